"""A real browser without a window, and pages that tell what they asked for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update", "disable-sync")


@contextmanager
def open_browser() -> Iterator[Any]:
    """Chromium with an empty profile; the test skips where there is none, or no playwright."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=[f"--{flag}" for flag in FLAGS])
        yield opened
        opened.close()


class Watched:
    """A page in its own window, and all that it asked for or complained of.

    Arguments:
        browser: of `open_browser`.
        page: a file, or an address.
        width: of the window, in pixels.
        scheme: "light" or "dark".
    """

    def __init__(self, browser: Any, page: Path | str, width: int = 1280, scheme: str = "light") -> None:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(page.as_uri() if isinstance(page, Path) else page)

    def lit(self) -> list[str]:
        """What is lit up, as "box 3" and "card 3"."""
        found: list[str] = self.page.eval_on_selector_all(
            ".lit", "all => all.map(one => one.classList[0] + ' ' + one.dataset.patch)"
        )
        return found

    def pictures_alone(self, file: Path, width: int) -> list[int]:
        """Widths of the pictures of a page that holds everything itself, fits its window and complains of nothing."""
        assert self.complaints == []
        assert [one for one in self.requests if not one.startswith("data:")] == [file.as_uri()]
        assert self.page.evaluate("document.documentElement.scrollWidth") == width
        found: list[int] = self.page.eval_on_selector_all("img", "all => all.map(one => one.naturalWidth)")
        return found

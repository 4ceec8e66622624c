"""The page of `foveate view` in a real browser: it loads from one place, and does what it promises."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browsers import Watched, open_browser
from PIL import Image

from foveate.view import ViewServer


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


def visit(browser: Any, server: ViewServer, image: int = 0, **how: Any) -> Watched:
    """The page of an image, when all it needs at first has come."""
    watched = Watched(browser, f"{server.address}#{image}", **how)
    watched.page.wait_for_selector(".box", state="attached")
    watched.page.wait_for_load_state("networkidle")
    watched.page.wait_for_timeout(300)
    return watched


def shot(watched: Watched) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(watched.page.locator("#stage").screenshot())).convert("RGB")).astype(int)


def middle(watched: Watched) -> tuple[int, int]:
    """Row and column of the image in the middle of the stage, as the page says."""
    import re

    found = re.match(r"middle: row ([\d,−-]+), column ([\d,−-]+) ", watched.page.locator("#place").inner_text())
    assert found is not None
    row, column = (int(one.replace(",", "")) for one in found.groups())
    return row, column


def test_it_asks_this_server_alone_and_complains_of_nothing(browser: Any, server: ViewServer) -> None:
    watched = visit(browser, server)
    assert [url for url in watched.requests if not url.startswith((server.address, "data:", "blob:"))] == []
    assert any("/images/0_files/" in url for url in watched.requests)
    assert any("/images/0_map/" in url for url in watched.requests)
    assert watched.complaints == []
    assert watched.page.locator("#probabilities th").all_inner_texts() == ["cat", "<b>dog", "owl & co"]
    assert watched.page.locator("#path").inner_text().endswith("a.png")
    assert watched.page.locator("#trouble").inner_text() == ""


def test_the_slider_changes_the_picture(browser: Any, server: ViewServer) -> None:
    watched = visit(browser, server)
    watched.page.locator("#show-boxes").uncheck()
    shots = []
    for key in ("Home", "End"):
        watched.page.locator("#opacity").focus()
        watched.page.keyboard.press(key)
        watched.page.wait_for_timeout(300)
        shots.append(shot(watched))
    changed = np.abs(shots[0] - shots[1])
    assert changed.max() > 100  # where the attention is; elsewhere the map is nearly transparent
    assert changed.mean() > 5
    assert watched.page.locator("#opacity-value").inner_text() == "100 %"
    ground = shots[1][shots[1].shape[0] // 2, shots[1].shape[1] // 2]
    assert ground.tolist() != shots[0][shots[0].shape[0] // 2, shots[0].shape[1] // 2].tolist()


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
@pytest.mark.slow
def test_a_click_on_a_patch_centres_it(how: str, browser: Any, server: ViewServer) -> None:
    watched = visit(browser, server)
    said = watched.page.request.get(f"{server.address}images/0.json").json()
    for which in (1, 3):
        card = watched.page.locator(f".card[data-patch='{which}']")
        if how == "mouse":
            card.click()
        else:
            card.focus()
            watched.page.keyboard.press("Enter")
        watched.page.wait_for_timeout(1200)
        top, left, height, width = said["patches"][which]["box"]
        assert middle(watched) == pytest.approx((top + height / 2, left + width / 2), abs=1.5)
        assert f"card {which}" in watched.lit()
        assert f"box {which}" in watched.lit()
        stage, box = (watched.page.locator(one).bounding_box() for one in ("#stage", f".box[data-patch='{which}']"))
        assert box["x"] + box["width"] / 2 == pytest.approx(stage["x"] + stage["width"] / 2, abs=2)
        assert box["y"] + box["height"] / 2 == pytest.approx(stage["y"] + stage["height"] / 2, abs=2)
        assert box["height"] / box["width"] == pytest.approx(28 / 36, rel=0.03)


def test_pixels_lie_where_the_page_says(browser: Any, server: ViewServer, folder: Any) -> None:
    watched = visit(browser, server)
    watched.page.locator("#show-boxes").uncheck()
    watched.page.locator("#opacity").fill("0")
    watched.page.locator(".card[data-patch='0']").click()
    watched.page.wait_for_timeout(1200)
    watched.page.locator("#pixels").click()
    watched.page.wait_for_timeout(1500)
    row, column = middle(watched)
    seen = shot(watched)
    height, width = seen.shape[:2]
    whole = np.asarray(Image.open(folder / "a.png")).astype(int)
    part = seen[height // 2 - 60 : height // 2 + 60, width // 2 - 60 : width // 2 + 60]
    apart = {
        (down, along): np.abs(
            part[20:100, 20:100] - whole[row - 40 + down : row + 40 + down, column - 40 + along : column + 40 + along]
        ).mean()
        for down in range(-4, 5)
        for along in range(-4, 5)
    }
    best = min(apart, key=apart.__getitem__)
    assert max(map(abs, best)) <= 1, apart
    assert apart[best] < 12


@pytest.mark.slow
def test_a_box_on_the_image_chooses_its_patch(browser: Any, server: ViewServer) -> None:
    watched = visit(browser, server)
    watched.page.locator(".box[data-patch='2']").click()
    watched.page.wait_for_timeout(1000)
    watched.page.mouse.move(1, 1)
    assert "card 2" in watched.lit()
    watched.page.keyboard.press("Escape")
    watched.page.locator("#opacity").focus()
    assert watched.lit() == []
    watched.page.locator(".box[data-patch='1']").focus()
    assert set(watched.lit()) == {"box 1", "card 1"}
    watched.page.keyboard.press("Enter")
    watched.page.locator("#opacity").focus()
    assert set(watched.lit()) == {"box 1", "card 1"}


def test_the_keyboard_and_the_buttons_move_the_image(browser: Any, server: ViewServer) -> None:
    watched = visit(browser, server)
    before = watched.page.locator("#place").inner_text()
    watched.page.locator("#closer").click()
    watched.page.wait_for_timeout(900)
    near = watched.page.locator("#place").inner_text()
    assert near != before
    watched.page.locator("#stage .openseadragon-canvas").first.focus()
    watched.page.keyboard.press("ArrowRight")
    watched.page.wait_for_timeout(900)
    assert middle(watched)[1] > 1107 / 2
    watched.page.locator("#whole").click()
    watched.page.wait_for_timeout(900)
    assert watched.page.locator("#place").inner_text() == before


@pytest.mark.slow
def test_draws_and_classes_are_chosen(browser: Any, server: ViewServer) -> None:
    watched = visit(browser, server)
    page = watched.page
    assert page.locator(".card:visible").count() == 4
    page.select_option("#draw", "all")
    assert page.locator(".card:visible").count() == 8
    page.select_option("#draw", "1")
    assert page.locator(".card:visible").count() == 4
    assert page.locator(".box:visible").count() == 4
    said = page.request.get(f"{server.address}images/0.json").json()
    for place in range(3):
        page.select_option("#class", str(place))
        shown = page.locator(".card[data-patch='5'] .adds").inner_text().replace("−", "-")
        assert float(shown) == pytest.approx(said["patches"][5]["adds"][place], rel=6e-3)


@pytest.mark.slow
def test_images_are_chosen_from_a_list(browser: Any, server: ViewServer) -> None:
    watched = visit(browser, server)
    page = watched.page
    assert page.locator("nav li").count() == 3
    page.get_by_role("button", name="c.png").click()
    page.wait_for_selector("h1.wrong")
    assert "broken image" in page.locator("h1").inner_text()
    assert page.locator("nav li.failed").count() == 1
    assert page.locator(".card").count() == 0
    page.get_by_role("button", name="b.tif").click()
    page.wait_for_selector(".box", state="attached")
    assert page.locator("#facts").inner_text().startswith("389 × 571 pixels")
    page.get_by_label("Find an image").fill("A.PN")
    assert page.locator("nav li:visible").count() == 1
    assert watched.complaints == []


@pytest.mark.slow
def test_it_follows_light_and_dark_and_fits_small_windows(browser: Any, server: ViewServer) -> None:
    papers = []
    for scheme, width in (("light", 1600), ("dark", 390)):
        page = visit(browser, server, scheme=scheme, width=width).page
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#stage").bounding_box()["height"] > 300
    assert papers == ["rgb(255, 255, 255)", "rgb(22, 22, 26)"]


@pytest.mark.slow
def test_a_screen_reader_hears_names(browser: Any, server: ViewServer) -> None:
    page = visit(browser, server).page
    for role, name in [
        ("slider", "Attention"),
        ("checkbox", "Patches"),
        ("combobox", "Adds to"),
        ("navigation", "Images"),
    ]:
        assert page.get_by_role(role, name=name).count() == 1, name  # type: ignore[arg-type]
    for name in ("Closer", "Farther", "Whole", "Patch 1, attention"):
        assert page.get_by_role("button", name=name).count() == 1, name
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.locator("img:not([alt])").count() == 0

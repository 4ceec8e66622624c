"""The page of an image in a real browser: it loads nothing, says nothing, and does what it promises."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import Watched, open_browser

from foveate.explain import Explainer
from foveate.explain.page import Entry, write_index
from foveate.images import ArraySource
from foveate.models import DrawOptions, Model

Make = Callable[..., Model]
Draw = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def written(tmp_path: Path, pointing: Make, canvas: Draw) -> Path:
    """The page of an image whose name wants to be escaped, of four draws and two other seeds."""
    model = pointing(channels=3, classes=("cat", "<b>dog", "owl & co"))
    explainer = Explainer(model, tmp_path, DrawOptions(4), what_if=2)
    source = ArraySource(canvas((417, 605), (120, 430), channels=3))
    explainer('</script><i>odd & "name".png', model.look(source, DrawOptions(4)))
    explainer.finish()
    return tmp_path / explainer.entries[0].folder / "explanation.html"


def test_it_asks_for_nothing_and_complains_of_nothing(browser: Any, written: Path) -> None:
    watched = Watched(browser, written)
    watched.page.wait_for_load_state("networkidle")
    assert [url for url in watched.requests if not url.startswith("data:")] == [written.as_uri()]
    assert watched.complaints == []
    broken = watched.page.eval_on_selector_all("img", "all => all.filter(one => !one.naturalWidth).length")
    assert broken == 0
    assert watched.page.locator(".path").inner_text() == '</script><i>odd & "name".png'
    assert watched.page.locator("tbody th").nth(1).inner_text() == "<b>dog"


def test_the_map_lies_where_its_affine_map_says(browser: Any, written: Path) -> None:
    watched = Watched(browser, written)
    stage, image, drawn = (watched.page.locator(one).bounding_box() for one in ("#stage", ".image", "#map"))
    with np.load(written.parent / "attention.npz") as arrays:
        (a, _, c, _, e, f), (rows, columns) = arrays["affine"], arrays["attention"].shape
    scale = image["width"] / 605
    assert image["height"] / 417 == pytest.approx(scale, rel=0.01)
    assert stage["width"] == pytest.approx(image["width"], abs=3)
    assert drawn["x"] - image["x"] == pytest.approx(c * scale, abs=0.5)
    assert drawn["y"] - image["y"] == pytest.approx(f * scale, abs=0.5)
    assert drawn["width"] == pytest.approx(a * columns * scale, rel=2e-3)
    assert drawn["height"] == pytest.approx(e * rows * scale, rel=4e-3)


def test_the_slider_changes_the_picture(browser: Any, written: Path) -> None:
    watched = Watched(browser, written)
    stage, slider = watched.page.locator("#stage"), watched.page.locator("#opacity")
    shots = []
    for key in ("Home", "End"):
        slider.focus()
        watched.page.keyboard.press(key)
        shots.append(stage.screenshot())
    assert shots[0] != shots[1]
    assert watched.page.locator("#opacity-value").inner_text() == "100 %"
    assert watched.page.eval_on_selector("#map", "map => getComputedStyle(map).opacity") == "1"
    watched.page.locator("#show-boxes").uncheck()
    assert stage.screenshot() != shots[1]


def test_a_box_and_its_patch_light_up_together(browser: Any, written: Path) -> None:
    watched = Watched(browser, written)
    page = watched.page
    page.locator(".box[data-patch='2']").focus()
    assert watched.lit() == ["box 2", "card 2"]
    page.locator(".card[data-patch='1']").focus()
    assert watched.lit() == ["box 1", "card 1"]
    page.locator(".card[data-patch='0']").hover()
    assert watched.lit() == ["box 0", "card 0"]
    page.locator(".card[data-patch='3']").focus()
    page.keyboard.press("Enter")
    page.locator("#opacity").focus()
    page.mouse.move(0, 0)
    assert watched.lit() == ["box 3", "card 3"]  # pinned
    assert page.locator(".box[data-patch='3']").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert watched.lit() == []


def test_draws_and_other_seeds_are_shown_in_turn(browser: Any, written: Path) -> None:
    page = Watched(browser, written).page
    assert page.locator(".card:visible").count() == 4
    page.select_option("#draw", "all")
    assert page.locator(".card:visible").count() == 16
    page.select_option("#draw", "2")
    shown = page.eval_on_selector_all(".box:not([hidden])", "all => all.map(one => one.dataset.patch)")
    assert shown == ["8", "9", "10", "11"]
    page.select_option("#draw", "seed-2")
    assert page.locator(".card:visible").count() == 0
    assert page.locator(".box.other:visible").count() == 16
    assert page.locator("#no-cards").is_visible()


def test_contributions_to_another_class(browser: Any, written: Path) -> None:
    import json

    page = Watched(browser, written).page
    record = json.loads((written.parent / "explanation.json").read_text())
    for place in range(3):
        page.select_option("#class", str(place))
        for number in range(4):
            told = page.locator(f".card[data-patch='{number}'] .value").inner_text().replace("−", "-")
            added = record["patches"][number]["contributions"]
            expected = added[place] - sum(added) / 3
            assert float(told) == pytest.approx(expected, rel=6e-3)
        assert page.locator("#sum").inner_text().startswith("bias ")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("width", [360, 800, 1600])
def test_it_fits_every_window(width: int, browser: Any, written: Path) -> None:
    page = Watched(browser, written, width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#stage").bounding_box()["width"] >= min(width, 600) * 0.5


def test_it_follows_light_and_dark(browser: Any, written: Path) -> None:
    papers = [
        Watched(browser, written, scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert papers == ["rgb(255, 255, 255)", "rgb(22, 22, 26)"]


def test_a_screen_reader_hears_names(browser: Any, written: Path) -> None:
    page = Watched(browser, written).page
    assert page.get_by_role("button", name="Patch 1, attention").count() >= 2  # its box and its card
    assert page.get_by_role("slider", name="Attention map").count() == 1
    assert page.get_by_role("combobox", name="Contribution to").count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("img", name="Attention map, laid over the image").count() == 1
    assert page.locator("img:not([alt])").count() == 0
    assert page.evaluate("document.documentElement.lang") == "en"


def test_the_index_leads_to_every_page(browser: Any, written: Path) -> None:
    watched = Watched(browser, written.parent.parent / "index.html")
    watched.page.get_by_role("link").first.click()
    watched.page.wait_for_selector("#stage")
    assert watched.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in watched.requests)


def test_the_index_is_sorted_by_a_click_on_a_title(browser: Any, tmp_path: Path) -> None:
    answers = [("b", "red", 0.7), ("a", "green", 0.95), ("image 10", "blue", 0.8), ("image 9", "red", 0.6)]
    write_index(tmp_path / "index.html", [Entry(path, path, answer, p, ()) for path, answer, p in answers])
    page = Watched(browser, tmp_path / "index.html").page

    def shown() -> list[str]:
        return page.eval_on_selector_all("#entries tr", "rows => rows.map(row => row.cells[1].textContent)")

    assert shown() == ["b", "a", "image 10", "image 9"]
    title = page.get_by_role("button", name="image")
    title.focus()
    page.keyboard.press("Enter")
    assert shown() == ["a", "b", "image 9", "image 10"]
    assert page.locator("[aria-sort=ascending]").inner_text().startswith("image")
    title.click()
    assert shown() == ["image 10", "image 9", "b", "a"]
    page.get_by_role("button", name="probability").click()
    assert shown() == ["image 9", "b", "image 10", "a"]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ["cnn", "uniform", "deep-mil"])
def test_every_kind_of_model_has_a_page(name: str, browser: Any, tmp_path: Path, pointing: Make, canvas: Draw) -> None:
    model = pointing(name=name)
    explainer = Explainer(model, tmp_path)
    explainer("image.png", model.look(canvas((217, 305), (60, 170))))
    watched = Watched(browser, tmp_path / "image" / "explanation.html")
    assert watched.complaints == []
    assert watched.page.locator(".note").is_visible()
    assert watched.page.locator(".card").count() == {"cnn": 0, "uniform": 4, "deep-mil": 24}[name]

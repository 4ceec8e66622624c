"""What a notebook shows of a prediction and of a training: HTML that needs nothing, in a real browser."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsers import Watched, open_browser
from PIL import Image

from foveate.config.settings import AttentionSettings, FeatureSettings, ModelSettings, ViewSettings
from foveate.models import Model, build_model
from foveate.notebook import History, heat_png, prediction_html
from foveate.types import Box

NAMES = ("epoch", "training_error", "validation_error", "training_loss", "validation_loss", "seconds")
ROWS = ((1, 0.5, None, 0.7, None, 1.0), (2, 0.25, 0.4, 0.4, 0.6, 2.0), (3, 0.1, 0.3, 0.2, 0.5, 3.0))
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]


@pytest.fixture
def model() -> Model:
    settings = ModelSettings(
        view=ViewSettings(longest_side=60),
        patch=(22, 26),
        patches=3,
        attention=AttentionSettings(widths=(4,), stride=2),
        features=FeatureSettings(width=4),
    )
    return build_model(settings, ("cat", "<b>dog", "owl & co"), channels=3).eval()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)


def test_a_prediction_knows_what_it_looked_like(model: Model, pixels: np.ndarray, tmp_path: Path) -> None:
    found = model.predict(pixels)
    assert found.sketch is not None
    assert found.sketch.size == (90, 140)
    assert found.sketch.attention is not None
    assert found.sketch.attention.sum() == pytest.approx(1, abs=1e-3)
    top, left, bottom, right = found.sketch.extent
    assert (top, left) == (0, 0)
    assert (bottom, right) == pytest.approx((90, 140), rel=0.05)
    html = found._repr_html_()
    assert html.count("<rect") == 2 * 3
    for box in found.boxes:
        assert f'x="{box.left}" y="{box.top}" width="26" height="22"' in html
    assert "&lt;b&gt;dog" in html
    assert "<b>dog" not in html
    assert "3 patches of 30" in html
    Image.fromarray(pixels).save(tmp_path / "one.png")
    from_file = replace(model.predict(tmp_path / "one.png"), sketch=None)._repr_html_()
    assert from_file.count("<image") == 1  # its file, and no map
    assert "<image" not in replace(found, sketch=None)._repr_html_()
    assert found == replace(found, sketch=None)


@pytest.mark.parametrize("name", ["uniform", "cnn", "deep-mil"])
def test_every_model_draws_what_it_has(name: str, model: Model, pixels: np.ndarray) -> None:
    other = build_model(replace(model.settings, name=name), model.classes, channels=3).eval()  # type: ignore[arg-type]
    html = other.predict(pixels)._repr_html_()
    assert html.count("<image") == (2 if other.attends else 1)
    assert html.count("<rect") == 2 * other.predict(pixels).patches


def test_low_attention_is_transparent_and_high_is_not(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(heat_png(np.array([[0.0, 0.01], [0.2, 0.79]])))
    alpha = np.asarray(Image.open(tmp_path / "map.png"))[..., 3]
    assert alpha[0].tolist() == [0, 0]
    assert 0 < alpha[1, 0] < alpha[1, 1] < 255


def test_curves_are_where_the_numbers_say() -> None:
    html = History.of(RECORDS, 0.55)._repr_html_()
    assert "best validation error 0.300 · one answer for all 0.550" in html
    curves = re.findall(r'<polyline points="([^"]+)"', html)
    assert [len(points.split()) for points in curves] == [3, 2, 3, 2]
    heights = [float(point.split(",")[1]) for point in curves[0].split()]
    assert heights == sorted(heights)  # an error that falls goes down on the screen
    assert History()._repr_html_() == "<div>no epoch has ended yet</div>"


def test_a_browser_shows_both_and_complains_of_nothing(model: Model, pixels: np.ndarray, tmp_path: Path) -> None:
    shown = model.predict(pixels)._repr_html_() + History.of(RECORDS, 0.55)._repr_html_()
    many = prediction_html("a.png", "c1", {f"c{one}": 0.05 for one in range(20)}, [Box(1, 2, 3, 4)], "", None)
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><meta charset="utf-8"><title>notebook</title><body>{shown}{many}')
    with open_browser() as browser:
        for scheme in ("light", "dark"):
            watched = Watched(browser, page, width=400, scheme=scheme)
            watched.page.wait_for_load_state("networkidle")
            assert watched.complaints == []
            assert [url for url in watched.requests if not url.startswith("data:")] == [page.as_uri()]
            assert watched.page.evaluate("document.documentElement.scrollWidth") <= 400
            box = watched.page.locator("svg").first.bounding_box()
            assert box["width"] / box["height"] == pytest.approx(140 / 90, rel=0.02)
            assert "and 12 more classes" in watched.page.inner_text("body")
        watched.page.screenshot(path=str(tmp_path / "page.png"), full_page=True)

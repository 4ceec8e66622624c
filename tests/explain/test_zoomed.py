"""What a model that zooms looked at on the way to its patches is told in every file that tells of patches."""

import json
from pathlib import Path

import numpy as np
from tiny import small_settings

from foveate.config.resolutions import ZoomSettings
from foveate.config.settings import ModelSettings, ViewSettings
from foveate.explain.explainer import Explainer
from foveate.explain.explanation import explain
from foveate.images import ArraySource
from foveate.models import Model, build_model


def small_zoom() -> Model:
    zoom = ZoomSettings(levels=3, scale=(3, 2))
    changes = {"view": ViewSettings(longest_side=20), "zoom": zoom, "prior": ModelSettings().prior}
    return build_model(small_settings("zoom", **changes), ("cat", "dog"), 3).eval()


def test_regions_are_told_with_the_patches(tmp_path: Path) -> None:
    model = small_zoom()
    image = ArraySource(np.random.default_rng(0).integers(0, 255, (130, 170, 3), np.uint8), name="a.png")
    look = model.look(image)
    seen = explain(model, look)
    assert [len(patch.regions) for patch in seen.patches] == [2] * 4
    for patch in seen.patches:
        outer, inner = patch.regions
        assert outer.height * outer.width > inner.height * inner.width
    assert set(seen.regions) == {box for patch in seen.patches for box in patch.regions}
    assert "dashed frames" in seen.note

    Explainer(model, tmp_path)("a.png", look)
    record = json.loads((tmp_path / "a" / "explanation.json").read_text())
    assert [len(patch["regions"]) for patch in record["patches"]] == [2] * 4
    features = json.loads((tmp_path / "a" / "patches.geojson").read_text())["features"]
    names = [one["properties"]["name"] for one in features]
    assert sum(name.startswith("region ") for name in names) == len(seen.regions)
    assert len({one["id"] for one in features}) == len(features)
    page = (tmp_path / "a" / "explanation.html").read_text()
    assert page.count('class="box region"') == len(seen.regions)
    assert page.count('class="box" type="button"') == 4

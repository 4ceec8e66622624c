from dataclasses import replace

import pytest

from foveate.config.settings import AttentionSettings, FeatureSettings, ModelSettings, PriorSettings, ViewSettings
from foveate.errors import ConfigError
from foveate.models import build_model, resolve

VALID = ModelSettings()


@pytest.mark.parametrize(
    ("view", "patch", "image_size", "stride"),
    [
        (ViewSettings(scale=0.12), (50, 50), None, 3),
        (ViewSettings(scale=0.3), (100, 120), None, 15),
        (ViewSettings(scale=0.1), (50, 70), None, 3),  # 2.5 rounds up
        (ViewSettings(scale=0.01), (50, 50), None, 1),
        (ViewSettings(longest_side=180), (50, 60), (1500, 700), 3),
        (ViewSettings(longest_side=512), (100, 100), (300, 400), 50),  # never enlarged
        (ViewSettings(longest_side=512), (100, 100), None, 1),
        (ViewSettings(mpp=8.0), (100, 100), (9000, 8000), 1),
    ],
)
def test_stride_is_about_half_a_patch(
    view: ViewSettings, patch: tuple[int, int], image_size: tuple[int, int] | None, stride: int
) -> None:
    given = ModelSettings(view=view, patch=patch)
    assert resolve(given, image_size).attention.stride == stride
    model = build_model(given, ("a", "b"), 1, image_size=image_size)
    assert model.settings.attention.stride == stride
    assert model.grid.stride == stride


def test_a_stride_that_is_set_stays() -> None:
    given = ModelSettings(attention=AttentionSettings(stride=7))
    assert resolve(given, (5000, 4000)) == given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"view": ViewSettings()},
            "model.view needs exactly one of longest_side, scale and mpp, got none: set one and leave the others null",
        ),
        (
            {"view": ViewSettings(longest_side=5, scale=0.5)},
            "model.view needs exactly one of longest_side, scale and mpp, got longest_side 5 and scale 0.5: "
            "set one and leave the others null",
        ),
        (
            {"view": ViewSettings(scale=1.5)},
            "model.view.scale must be above 0 and at most 1, got 1.5: set e.g. 0.25",
        ),
        (
            {"view": ViewSettings(mpp=float("inf"))},
            "model.view.mpp must be above 0 microns per pixel, got inf: set e.g. 8",
        ),
        ({"patches": 0}, "model.patches must be at least 1, got 0: set it to a positive number"),
        ({"patch": (0, 50)}, "model.patch must be at least 1, got 0: set it to a positive number"),
        (
            {"attention": AttentionSettings(stride=-1)},
            "model.attention.stride must be at least 1, got -1: set it to a positive number",
        ),
        (
            {"attention": AttentionSettings(stride=0)},
            "model.attention.stride must be at least 1, got 0: set it to a positive number",
        ),
        (
            {"attention": AttentionSettings(smoothing=1.0)},
            "model.attention.smoothing must be at least 0 and less than 1, got 1.0: it is a share, e.g. 1e-5",
        ),
        (
            {"view": ViewSettings(longest_side=6), "attention": AttentionSettings(padding="valid")},
            "model.view.longest_side is 6, less than the 7 pixels that the attention network needs: "
            "enlarge it or set model.attention.padding to same",
        ),
        (
            {"features": FeatureSettings(learning_rate=-1e-3)},
            "model.features.learning_rate must be positive, got -0.001: set it to e.g. 1e-4, or model.features.frozen "
            "to true",
        ),
        (
            {"features": FeatureSettings("residul")},
            "no feature network 'residul', there are colon-cancer-paper, convolutional, megapixel-mnist-paper, "
            "residual, speed-limits-paper: did you mean residual?",
        ),
        (
            {"prior": PriorSettings(contrast=1.0, epsilon=-1.0)},
            "model.prior.epsilon must be positive, got -1.0: set it to e.g. 0.01",
        ),
        (
            {"name": "cnm"},
            "no model 'cnm', there are attention-sampling, cnn, deep-mil, evidence, gmic, ips, multi-scale, "
            "perturbed-top-k, top-k, uniform, zoom: set model.name to one of them",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(replace(VALID, **changes), ("a", "b"), 3)
    assert str(caught.value) == message


@pytest.mark.parametrize("classes", [("a",), ("a", "a")])
def test_classes_must_differ(classes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(VALID, classes, 3)
    assert str(caught.value) == (f"a model needs at least two classes with different names, got {list(classes)}")

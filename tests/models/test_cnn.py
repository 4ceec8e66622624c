from collections.abc import Callable

import pytest
import torch

from foveate.config.settings import FeatureSettings, ViewSettings
from foveate.errors import ConfigError
from foveate.images import ArraySource
from foveate.models import Model, make_batch
from foveate.types import Box

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]


def test_is_its_feature_network_on_the_view(make_model: Models, make_source: Sources) -> None:
    model = make_model("cnn", view=ViewSettings(scale=1.0)).eval()
    source = make_source((41, 63))
    pixels = torch.from_numpy(source.read(Box(0, 0, 41, 63))).permute(2, 0, 1)[None] / 255
    expected = model.head(model.features(pixels))
    torch.testing.assert_close(model(make_batch([source], model.view, [0])).logits, expected, rtol=0, atol=1e-6)


def test_an_image_smaller_than_the_receptive_field_is_filled_up(make_model: Models, make_source: Sources) -> None:
    model = make_model("cnn").eval()
    sources = [make_source((20, 44)), make_source((120, 100), seed=1)]
    output = model(make_batch(sources, model.view, [0, 0]))
    alone = model(make_batch(sources[:1], model.view, [0]))
    assert output.logits.isfinite().all()
    torch.testing.assert_close(output.logits[:1], alone.logits, rtol=0, atol=1e-5)


def test_says_nothing_of_where_it_looked(make_model: Models, make_source: Sources) -> None:
    model = make_model("cnn")
    output = model(make_batch([make_source((120, 100))], model.view, [0]))
    assert output.attention is output.draw is output.boxes is output.features is None


def test_a_network_of_one_input_size_is_refused(make_model: Models) -> None:
    with pytest.raises(ConfigError, match=r"^the feature network colon-cancer-paper takes patches of one size"):
        make_model("cnn", features=FeatureSettings("colon-cancer-paper"))

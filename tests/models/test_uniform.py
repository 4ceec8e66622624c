from collections.abc import Callable

import pytest
import torch

from foveate.images import ArraySource
from foveate.models import Model, make_batch

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_the_head_of_the_mean_feature(training: bool, make_model: Models, make_source: Sources) -> None:
    model = make_model("uniform").train(training)
    output = model(make_batch([make_source((100, 160)), make_source((90, 70))], model.view, [1, 2]))
    torch.testing.assert_close(output.logits, model.head(output.features.mean(1)), rtol=0, atol=1e-5)
    for row, cells in enumerate((13 * 20, 12 * 9)):
        attention = output.attention[row][output.attention[row] > 0]
        torch.testing.assert_close(attention, torch.full((cells,), 1 / cells))


def test_draws_uniformly_whatever_the_method(make_model: Models, make_source: Sources) -> None:
    """1,500 draws of an image; a cell farther than 5 standard errors from its share fails once in 50,000."""
    model = make_model("uniform", patches=3).eval()
    assert model.method == "uniform"
    model.method = "top"
    with torch.no_grad():
        output = model(make_batch([make_source((28, 40))], model.view, [3]), samples=1500)
    assert output.draw.method == "uniform"
    counts = torch.bincount(output.draw.index.flatten(), minlength=20)
    share = 3 / 20
    assert counts.sum() == 4500
    assert (counts / 1500 - share).abs().max() < 5 * (share * (1 - share) / 1500) ** 0.5


def test_it_has_no_attention_to_train(make_model: Models) -> None:
    assert not any(key.startswith("attention") for key, _ in make_model("uniform").named_parameters())

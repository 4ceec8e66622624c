"""Contributions by omission: what is shown of patches that do not add up, against models asked without them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from foveate.config.heads import HeadSettings
from foveate.explain import contributions, explain
from foveate.explain.omission import adds_up, omissions
from foveate.models import DrawOptions, Model
from foveate.sampling import log_coefficients

Make = Callable[..., Model]
CROSS = HeadSettings(pool="cross-attention", heads=2)


@pytest.mark.parametrize("name", ["attention-sampling", "uniform"])
def test_what_a_patch_adds_is_what_is_lost_without_it(
    name: str, pointing: Make, canvas: Callable[..., np.ndarray]
) -> None:
    model: Any = pointing(name=name, head=CROSS)
    look = model.look(canvas((173, 260), (60, 170)), DrawOptions(2))
    seen, drawn = explain(model, look), look.output.draw
    assert seen.bias is None
    assert seen.rest is None
    assert "no sum over them" in seen.note
    mean = dict(zip(seen.classes, seen.probabilities.mean(0), strict=True))
    assert mean == pytest.approx(seen.prediction.probabilities, abs=1e-6)
    assert len(seen.patches) == 8
    for number, patch in enumerate(seen.patches):
        row, slot = divmod(number, 4)
        others = [one for one in range(4) if one != slot]
        with torch.no_grad():
            vector = model.pool(
                look.output.features[row : row + 1, others], log_coefficients(drawn)[row : row + 1, others]
            )
            without = model.head(vector)[0].double().numpy()
        np.testing.assert_allclose(patch.contributions, seen.logits[row] - without, atol=1e-5)


@pytest.mark.parametrize("name", ["attention-sampling", "deep-mil"])
def test_where_patches_add_up_omission_says_the_same(
    name: str, pointing: Make, canvas: Callable[..., np.ndarray]
) -> None:
    model = pointing(name=name)
    output = model.look(canvas((97, 160), (60, 100)), DrawOptions(1)).output
    assert adds_up(model)
    parts, logits = omissions(output, model)
    np.testing.assert_allclose(parts, contributions(output, model.head), atol=2e-5)
    np.testing.assert_allclose(logits, output.logits.double().numpy(), atol=2e-5)


def test_a_patch_that_is_alone_adds_nothing_that_could_be_told(
    pointing: Make, canvas: Callable[..., np.ndarray]
) -> None:
    model = pointing(head=CROSS)
    seen = explain(model, model.look(canvas((3, 3), (1, 1), side=2)))
    assert [patch.contributions for patch in seen.patches] == [(0.0, 0.0, 0.0)] * len(seen.patches)
    assert len(seen.patches) == 1


def test_of_a_model_that_reads_all_patches_the_chosen_ones_are_told(
    pointing: Make, canvas: Callable[..., np.ndarray]
) -> None:
    model: Any = pointing(name="ips", head=HeadSettings(heads=2))
    look = model.look(canvas((173, 260), (60, 170)))
    seen, output = explain(model, look), look.output
    assert len(seen.patches) == 4
    assert seen.attention is not None
    assert [patch.attention for patch in seen.patches] == sorted(seen.attention.flatten().tolist(), reverse=True)[:4]
    for slot, patch in enumerate(seen.patches):
        others = [one for one in range(4) if one != slot]
        with torch.no_grad():
            without = model.head(model.pool(output.features[:, others]))[0].double().numpy()
        np.testing.assert_allclose(patch.contributions, seen.logits[0] - without, atol=1e-5)

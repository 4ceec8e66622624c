"""Rounds are the beginning of one order; their variance is unbiased by enumeration; answers that are settled hold."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from foveate.errors import ArgumentError, ConfigError
from foveate.images import ArraySource
from foveate.models import DrawOptions, Ensemble, Model
from foveate.models.look import finish_looks, see, start_looks
from foveate.models.receipts import Stages
from foveate.models.settle import Drawn, Looked, round_sizes, settle
from foveate.models.types import Batch
from foveate.sampling import draw, expectation, variance, weigh
from foveate.sampling.geometry import Grid

Models = Callable[..., Model]
Sources = Callable[..., ArraySource]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_variance_is_unbiased_by_enumeration(n: int) -> None:
    """Every order of n of 5 cells: the mean of the variance estimates is the variance of the estimates."""
    random = np.random.default_rng(n)
    attention = torch.from_numpy(random.dirichlet(np.ones(5) * 0.7))
    values = torch.from_numpy(random.normal(size=(5, 3)) * 2 + 10)
    chances, estimates, variances = [], [], []
    for order in permutations(range(5), n):
        left, chance = 1.0, 1.0
        for cell in order:
            chance *= float(attention[cell]) / left
            left -= float(attention[cell])
        drawn = weigh(attention.log()[None], torch.tensor([order]))
        chances.append(chance)
        estimates.append(expectation(drawn, values[None, list(order)])[0].numpy())
        variances.append(variance(drawn, values[None, list(order)])[0].numpy())
    weight, found = np.array(chances)[:, None], np.array(estimates)
    truth = (attention[:, None] * values).sum(0).numpy()
    assert (weight * found).sum(0) == pytest.approx(truth, rel=1e-10)
    assert (weight * np.array(variances)).sum(0) == pytest.approx((weight * (found - truth) ** 2).sum(0), rel=1e-8)
    assert np.array(variances).min() >= 0


def test_the_variance_of_nothing_left_is_zero_and_of_one_draw_unknown() -> None:
    log_prob = torch.tensor([[0.5, 0.3, 0.2]]).log()
    values = torch.tensor([[[1.0], [2.0], [4.0]]])
    assert variance(draw(log_prob, 4), torch.cat((values, values[:, :1]), 1)).tolist() == [[0.0]]
    assert variance(draw(log_prob, 1), values[:, :1]).tolist() == [[float("inf")]]
    with pytest.raises(ArgumentError, match="draw by murthy"):
        variance(draw(log_prob, 2, "iid"), values[:, :2])


def sharp(model: Model) -> Model:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model.eval()


@pytest.mark.parametrize("name", ["attention-sampling", "uniform"])
def test_a_round_says_what_a_prediction_of_so_many_patches_says(
    name: str, make_model: Models, make_source: Sources
) -> None:
    image, model = make_source((160, 100), seed=1), sharp(make_model(name))
    for most in (4, 8, 20):
        found = model.predict(image, seed=3, max_patches=most, confidence=1 - 1e-12)
        fixed = sharp(make_model(name, patches=most)).predict(image, seed=3)
        if found.patches == most:
            assert found.probabilities == pytest.approx(fixed.probabilities, abs=1e-6)
            assert found.boxes == fixed.boxes
    every = model.predict(image, seed=3, max_patches=10_000, confidence=1 - 1e-12)
    assert every.settled
    assert every.spread is not None
    if every.patches < 10_000:
        assert every.patches in {*round_sizes(4, 10_000)} or every.spread == 0


def test_images_of_a_batch_stop_for_themselves(make_model: Models, make_source: Sources) -> None:
    model = sharp(make_model())
    sources = [make_source((160, 100), seed=seed) for seed in range(6)]
    options = DrawOptions(seed=2, max_patches=32, confidence=0.9)
    with model.evaluating(), torch.inference_mode():
        together = finish_looks(model, start_looks(model, [see(model, one) for one in sources], options))
    for look, source in zip(together, sources, strict=True):
        alone = model.look(source, options).prediction
        assert (look.prediction.patches, look.prediction.settled) == (alone.patches, alone.settled)
        assert look.prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert look.prediction.boxes == alone.boxes


@dataclass
class Table:
    """A model whose patches are single pixels, and whose features are looked up in a table, image by image."""

    table: torch.Tensor
    head: nn.Linear
    grid: Grid = field(default_factory=lambda: Grid(1))
    multi_label: bool = False
    patches: int = 10
    normalise: None = None
    patch: tuple[int, int] = (1, 1)

    def features(self, patches: torch.Tensor) -> torch.Tensor:
        return patches

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(1)

    def read_patches(self, sources: Any, boxes: torch.Tensor, *_: object) -> Any:
        rows = torch.tensor([int(source.name) for source in sources])[:, None]
        found = self.table[rows, boxes[:, :, 0] * SIDES[1] + boxes[:, :, 1]]
        return SimpleNamespace(features=lambda *_: found)


SIDES = (16, 25)


@pytest.mark.parametrize("control", [False, True])
def test_what_is_called_settled_is_what_all_cells_say(control: bool) -> None:
    """600 images of 400 cells, three classes: at a confidence of 0.9 a tenth of the settled answers may be wrong."""
    random, images, cells = np.random.default_rng(7), 600, SIDES[0] * SIDES[1]
    log_prob = torch.from_numpy(random.normal(size=(images, cells)) * 1.5).log_softmax(1)
    own = random.normal(size=(images, 1, 3)) * 0.4
    table = torch.from_numpy(own + random.normal(size=(images, cells, 3)) * 1.5).float()
    head = nn.Linear(3, 3)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3))
        head.bias.zero_()
    sources = tuple(ArraySource(np.zeros(SIDES, np.uint8), name=str(number)) for number in range(images))
    mask = torch.ones(images, *SIDES, dtype=torch.bool)
    batch = Batch(torch.zeros(images, 1, *SIDES), mask, sources, (0,) * images, (SIDES,) * images)
    foretold = table + torch.from_numpy(random.normal(size=table.shape)).float() if control else None
    options = DrawOptions(max_patches=160, confidence=0.9)
    generators = [torch.Generator().manual_seed(number) for number in range(images)]
    with torch.no_grad():
        looked = Looked(log_prob, mask, foretold)
        drawn = draw(log_prob, 160, generator=generators)
        boxes = Grid(1).boxes(drawn.index, SIDES[1], [SIDES] * images, [SIDES] * images, (1, 1))
        lot = Drawn(batch, 1, looked, drawn, boxes, None, Stages(), drawn.index, drawn.valid)
        found = settle(Table(table, head), batch, looked, options, lot, (torch.zeros(images, 3), 1.0), Stages())
    assert found.settled is not None
    assert found.read is not None
    truth = torch.bmm(log_prob.exp()[:, None], table.double())[:, 0].argmax(1)
    wrong = (found.logits.argmax(1) != truth)[found.settled].double().mean()
    patches, share = found.read.sum(1).double(), found.settled.double().mean()
    assert wrong <= 0.1, "far fewer, as a rule: the bound adds up over classes and rounds"
    assert share > 0.5
    assert patches.mean() < 100
    assert {*patches.tolist()} <= {*map(float, round_sizes(10, 160))}
    unsettled = (found.logits.argmax(1) != truth)[~found.settled].double().mean()
    assert unsettled > 2 * wrong, "those that are not settled are those that are close"


def test_what_cannot_be_settled_is_said(make_model: Models, make_source: Sources) -> None:
    image = make_source((160, 100), seed=1)
    members = [make_model(), make_model()]
    with pytest.raises(ConfigError, match="members of an ensemble draw each for itself: leave out max_patches"):
        Ensemble(members).predict(image, max_patches=8)
    for model in (make_model("cnn"), make_model("deep-mil")):
        with pytest.raises(ConfigError, match="max_patches is for a single model that draws patches"):
            model.predict(image, max_patches=8)
    with pytest.raises(ConfigError, match="draws by method murthy, got iid"):
        make_model().predict(image, method="iid", max_patches=8)
    for options in ({"max_patches": 0}, {"max_patches": 8, "samples": 2}, {"confidence": 1.0}):
        with pytest.raises(ConfigError):
            DrawOptions(**options)  # type: ignore[arg-type]
    assert replace(DrawOptions(), max_patches=8).confidence == 0.95

"""How biased the gradient of the loss is, although that of the estimate is not.

Φ̂ and its gradient are unbiased for Φ; the cross-entropy at Φ̂ is not linear in it, so that the mean of its gradient
over draws differs from its gradient at Φ. Measured on Megapixel MNIST canvases small enough to read every patch, for a
run or for a model that has learnt nothing: relative bias and cosine of the mean gradient with the one at Φ, by method
and number of patches, for the parameters of each part of the model. Noise is how far one draw's gradient lies from the
mean, relative likewise.

    python experiments/loss_gradient_bias.py [RUN] [--canvas 300] [--images 8] [--patches 5 10 50] [--out bias.json]
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from original_gradient import original_expectation
from torch import Tensor
from torch.nn.functional import cross_entropy

from foveate.config.files import merge_settings, preset
from foveate.config.training import RunSettings
from foveate.datasets import open_dataset
from foveate.images.tensors import gather
from foveate.models import Model, build_model, load_model, make_batch
from foveate.models.types import Batch
from foveate.pipeline.loader import split_indices
from foveate.sampling import draw, expectation
from foveate.seeds import derive_seed
from foveate.training.run_folder import run_settings
from foveate.types import Draw

Estimator = Callable[[Draw, Tensor], Tensor]
"""From a draw and the features of its patches to the estimate."""

ESTIMATORS: dict[str, tuple[str, Estimator]] = {
    "iid": ("iid", expectation),
    "des_raj": ("des_raj", expectation),
    "murthy": ("murthy", expectation),
    "murthy, baseline": ("murthy", partial(expectation, baseline="leave-one-out")),
    "original": ("des_raj", original_expectation),
}
"""Name → how cells are drawn, and what is made of them."""

ROWS = 512
"""Draws worked on at a time."""

CHUNK = 128
"""Patches worked on at a time."""

CELLS = 20_000
"""Most patches of all images together: all their features are computed, many times."""


@dataclass(frozen=True)
class Agreement:
    """How the mean of a random gradient agrees with another one, from the means of independent blocks of draws.

    Attributes:
        squared: squared length of the difference over that of the other gradient; unbiased, so it may be negative.
        squared_error: its standard error.
        cosine: of the angle between the two.
        cosine_error: its standard error.
        noise: root mean square deviation of a single draw's gradient from their mean, over the length of the other.
    """

    squared: float
    squared_error: float
    cosine: float
    cosine_error: float
    noise: float

    def bias(self, errors: float = 0.0) -> float:
        """Relative bias, so many standard errors of its square up or down; 0 where the square is negative."""
        return math.sqrt(max(0.0, self.squared + errors * self.squared_error))


def agreement(truth: Tensor, means: Tensor, draws: int) -> Agreement:
    r"""Compare the mean of a random gradient with another one, such that noise does not count as bias.

    With block means m_k, of which there are B, d_k = m_k − g and unequal k, l,

    .. math:: \widehat{|\mathrm{bias}|^2} = \frac{1}{B(B-1)} \sum_{k \ne l} d_k \cdot d_l

    is unbiased, for blocks are independent; likewise |μ|² in the cosine. Standard errors by the jackknife over blocks.

    Arguments:
        truth: (P,) the other gradient g.
        means: (B, P) mean gradient of each block; at least three of them.
        draws: in a block.
    """
    gram, along, length = means @ means.T, means @ truth, truth @ truth
    differences = (means - truth) @ (means - truth).T  # and not from the products above, which would cancel

    def pairs(products: Tensor) -> Tensor:
        """Mean over pairs of different blocks; and that without each block."""
        total, own = products.sum(), products.diagonal()
        others = total - 2 * products.sum(1) + own, own.sum() - own
        blocks = len(products)
        without = (others[0] - others[1]) / ((blocks - 1) * (blocks - 2))
        return torch.cat([((total - own.sum()) / (blocks * (blocks - 1)))[None], without])

    blocks = len(means)
    squared = pairs(differences) / length
    inner = torch.cat([along.mean()[None], (along.sum() - along) / (blocks - 1)])
    cosines = inner / (pairs(gram).clamp(min=0) * length).sqrt()
    centred = gram.diagonal().mean() - gram.mean()
    return Agreement(
        squared=float(squared[0]),
        squared_error=_jackknife(squared),
        cosine=float(cosines[0]),
        cosine_error=_jackknife(cosines),
        noise=math.sqrt(max(0.0, float(draws * centred * blocks / (blocks - 1) / length))),
    )


def _jackknife(values: Tensor) -> float:
    """Standard error of the first value from those without each block, which follow it."""
    rest = values[1:]
    return math.sqrt(float((len(rest) - 1) / len(rest) * (rest - rest.mean()).square().sum()))


@dataclass(frozen=True)
class Whole:
    """Images of which every patch has been read.

    Attributes:
        log_prob: (images, cells) log attention.
        features: (images, cells, D) features of all patches.
        head: from (…, D) to logits.
        labels: (images,) class numbers.
    """

    log_prob: Tensor
    features: Tensor
    head: torch.nn.Linear
    labels: Tensor

    def slopes(self, estimate: Callable[[Tensor, Tensor], Tensor], repeats: int = 1) -> list[Tensor]:
        """Gradient of the mean loss of the images by log attention, features, and the head's weight and bias.

        Arguments:
            estimate: from (images, cells) log attention and (images, cells, D) features to (images · repeats, D).
            repeats: estimates per image, side by side.
        """
        log_prob, features = (one.detach().requires_grad_() for one in (self.log_prob, self.features))
        logits = self.head(estimate(log_prob, features))
        loss = cross_entropy(logits, self.labels.repeat_interleave(repeats))
        return list(torch.autograd.grad(loss, [log_prob, features, self.head.weight, self.head.bias]))

    def exact(self) -> list[Tensor]:
        """The gradient at Φ."""
        return self.slopes(lambda log_prob, features: torch.einsum("bk,bkd->bd", log_prob.exp(), features))

    def drawn(self, name: str, patches: int, draws: int, generator: torch.Generator) -> list[Tensor]:
        """The mean of the gradients at Φ̂ over so many draws."""
        method, estimator = ESTIMATORS[name]
        images = len(self.labels)

        def estimate(log_prob: Tensor, features: Tensor) -> Tensor:
            found = draw(log_prob.repeat_interleave(repeats, 0), patches, method, generator=generator)
            image = torch.arange(images).repeat_interleave(repeats)[:, None]
            return estimator(found, features[image, found.index])

        total: list[Tensor] = []
        left = draws
        while left:
            repeats = min(left, max(1, ROWS // images))
            part = [repeats / draws * one for one in self.slopes(estimate, repeats)]
            total = [one + other for one, other in zip(total, part, strict=True)] if total else part
            left -= repeats
        return total


def compare_gradients(
    whole: Whole,
    pull: Callable[[list[list[Tensor]]], dict[str, Tensor]],
    patches: Sequence[int],
    draws: int,
    blocks: int,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Bias and cosine of every estimator, number of patches and part of the model.

    Arguments:
        whole: the images.
        pull: from several gradients by attention, features and head to part → (gradients, parameters of the part).
        patches: numbers of patches drawn.
        draws: in all, per estimator.
        blocks: into which they are divided.
        seed: of the draws.
    """
    rows = []
    for n in patches:
        for name in ESTIMATORS:
            generator = torch.Generator().manual_seed(derive_seed(seed, name, n))
            each = max(1, draws // blocks)
            slopes = [whole.drawn(name, n, each, generator) for _ in range(blocks)]
            for part, gradients in pull([whole.exact(), *slopes]).items():
                found = agreement(gradients[0], gradients[1:], each)
                bias = {"bias": found.bias(), "low": found.bias(-2), "high": found.bias(2)}
                rows.append({"patches": n, "estimator": name, "part": part, **bias, **asdict(found)})
    return rows


class Puller:
    """From gradients by attention and features to gradients by the model's parameters; the features' graph in chunks.

    Arguments:
        model: attention sampling, in float64.
        batch: the images.
    """

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model = model
        assert model.grid is not None
        assert model.patch is not None
        assert batch.labels is not None
        cells = model.grid.cell_mask(batch.mask, batch.view_sizes)
        self.log_prob: Tensor = model.log_attention(batch, cells).double()  # type: ignore[operator]
        index = torch.arange(self.log_prob.shape[1]).expand(len(batch), -1)
        sizes = [source.size for source in batch.sources]
        boxes = model.grid.boxes(index, cells.shape[2], batch.view_sizes, sizes, model.patch)
        self.patches = gather(batch.sources, boxes).flatten(0, 1).double()
        with torch.no_grad():
            features = torch.cat([model.features(one) for one in self.patches.split(CHUNK)])
        self.whole = Whole(self.log_prob.detach(), features.unflatten(0, index.shape), model.head, batch.labels.long())

    def __call__(self, slopes: list[list[Tensor]]) -> dict[str, Tensor]:
        """Part of the model → (gradients, parameters); see `compare_gradients`."""
        attention = list(self.model.attention.parameters())  # type: ignore[union-attr]
        parts = {
            "attention": torch.stack([_flat(self.log_prob, attention, one[0]) for one in slopes]),
            "features": self._by_chunks(torch.stack([one[1].flatten(0, 1) for one in slopes])),
            "head": torch.stack([torch.cat([one[2].flatten(), one[3]]) for one in slopes]),
        }
        return {**parts, "all": torch.cat(list(parts.values()), 1)}

    def _by_chunks(self, slopes: Tensor) -> Tensor:
        parameters = list(self.model.features.parameters())
        total = torch.zeros(len(slopes), sum(one.numel() for one in parameters), dtype=slopes.dtype)
        for patches, along in zip(self.patches.split(CHUNK), slopes.split(CHUNK, 1), strict=True):
            features = self.model.features(patches)
            total += torch.stack([_flat(features, parameters, one) for one in along])
        return total


def _flat(output: Tensor, parameters: Sequence[Tensor], along: Tensor) -> Tensor:
    found = torch.autograd.grad(output, parameters, along, retain_graph=True)
    return torch.cat([one.flatten() for one in found])


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", nargs="?", help="folder of a run on Megapixel MNIST; a model that learnt nothing if left out"
    )
    parser.add_argument("--canvas", type=int, help="side of the canvases (default: the run's, or 300)")
    parser.add_argument("--digits", help="as data.digits (default: the run's, or bundled)")
    parser.add_argument("--norm", type=float, default=16.0, help="of the features of a model that learnt nothing")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--patches", type=int, nargs="+", default=[5, 10, 50])
    parser.add_argument("--draws", type=int, default=3200, help="per method and number of patches")
    parser.add_argument("--blocks", type=int, default=16, help="independent blocks of these, at least three")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bias.json"))
    arguments = parser.parse_args()
    settings, model = _model(arguments)
    dataset = open_dataset(settings.data, settings.seed)
    indices = split_indices(dataset, "test")[: arguments.images]
    labels = [dataset.examples[index].label for index in indices]
    sources = [dataset.open(index) for index in indices]
    batch = make_batch(sources, model.view, [0] * len(sources), labels=labels)
    batch = replace(batch, views=batch.views.double())
    cells = math.prod(model.grid.shape(batch.view_sizes[0])) if model.grid else 0
    if not 0 < cells * len(sources) <= CELLS:
        parser.error(
            f"{cells} cells in each of {len(sources)} images are too many to read all: lower --images or --canvas"
        )
    puller = Puller(model, batch)
    rows = compare_gradients(puller.whole, puller, arguments.patches, arguments.draws, arguments.blocks, arguments.seed)
    told = {key: value for key, value in vars(arguments).items() if key not in ("run", "out")}
    told |= {"trained": arguments.run is not None, "canvas": settings.data.canvas, "cells": cells}
    largest = float(puller.whole.log_prob.exp().amax(1).mean())
    told["largest_attention"] = largest
    print(f"{len(sources)} images of {settings.data.canvas} pixels, {cells} cells, the likeliest {largest:.3f}")
    print(f"{'patches':>7}  {'estimator':18}{'part':11}{'relative bias (± 2 s.e.)':28}{'cosine':18}noise of one draw")
    for row in rows:
        spread = f"{row['bias']:.4f} ({row['low']:.4f}–{row['high']:.4f})"
        cosine = f"{row['cosine']:+.4f} ± {row['cosine_error']:.4f}"
        print(f"{row['patches']:7}  {row['estimator']:18}{row['part']:11}{spread:28}{cosine:18}{row['noise']:.2f}")
    arguments.out.write_text(json.dumps({"settings": told, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def _model(arguments: argparse.Namespace) -> tuple[RunSettings, Model]:
    if arguments.run is None:
        settings = merge_settings(preset("megapixel-mnist"), {"model": {"features": {"norm": arguments.norm}}})
        canvas = arguments.canvas or 300
    else:
        settings = run_settings(Path(arguments.run))
        canvas = arguments.canvas or settings.data.canvas[0]
    area = canvas**2 / math.prod(settings.data.canvas)
    data: dict[str, Any] = {
        "canvas": [canvas, canvas],
        "noise": round(settings.data.noise * area),
        "train_images": 1,
        "validation": 0.0,
        "test_images": arguments.images,
    }
    if arguments.digits is not None:
        data["digits"] = arguments.digits
    settings = merge_settings(settings, {"data": data})
    if arguments.run is not None:
        return settings, load_model(arguments.run).double()
    classes = tuple(str(digit) for digit in range(10))
    return settings, build_model(settings.model, classes, settings.data.channels, seed=arguments.seed).double()


if __name__ == "__main__":
    main()

"""Localisation: scores of heatmaps against ground truth, and deletions, over many images, with intervals."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from foveate.config.settings import Method
from foveate.datasets import ColonCancer
from foveate.datasets.manifest.objects import known_objects_of
from foveate.datasets.types import ImageDataset, Resplit
from foveate.errors import ConfigError, DataError, ImageError
from foveate.evaluation.intervals import bootstrap_interval, unit_names
from foveate.explain.deletion import Deletion, check_deletion, delete_patches
from foveate.explain.explanation import explain
from foveate.explain.map_scores import MapScores, score_map
from foveate.models import Model
from foveate.models.types import ONE_DRAW, DrawOptions
from foveate.pipeline.inference import on_cores
from foveate.predict import Failure, Row, look_at_rows
from foveate.types import Box

SCORES = ("chance", "mass", "pointing", "average_precision", "draws_that_hit", "objects_hit")
"""Attributes of `MapScores` that are averaged."""


@dataclass(frozen=True)
class Average:
    """Mean over images, with its interval.

    Attributes:
        mean: of the images' values.
        interval: 95 % of it, by bootstrap over images, or over groups where images have them.
        images: number of images that have a value.
    """

    mean: float
    interval: tuple[float, float]
    images: int


@dataclass(frozen=True)
class Localisation:
    """Localisation: how well a model finds what is known to be in images.

    Attributes:
        images: number of images in which there is something.
        objects_per_image: mean number of objects in them.
        scores: name of each score, as in `MapScores` → its average; None where the model has no such score.
    """

    images: int
    objects_per_image: float
    scores: dict[str, Average | None]

    def plain(self) -> dict[str, Any]:
        """JSON of it, as `foveate evaluate` writes it."""
        scores = {name: None if one is None else asdict(one) for name, one in self.scores.items()}
        return {"images": self.images, "objects_per_image": self.objects_per_image, **scores}


@dataclass(frozen=True)
class AverageDeletion:
    """Deletion curve over images: how the probability of the first answer falls as patches are covered up.

    Attributes:
        covered: patches covered at each step; 0 first.
        by_attention: mean probability, the most attended patches covered.
        by_chance: likewise, as many patches covered anywhere.
        drop: how much further it falls by attention than by chance; the mean over the steps but the first.
    """

    covered: tuple[int, ...]
    by_attention: tuple[float, ...]
    by_chance: tuple[float, ...]
    drop: Average

    def plain(self) -> dict[str, Any]:
        """JSON of it, as `foveate evaluate` writes it."""
        return asdict(self)


def known_objects(dataset: ImageDataset, index: int) -> tuple[Box, ...]:
    """Ground truth boxes: what decides the label of an image, where a data set tells; no model is ever told.

    Arguments:
        dataset: colon cancer (the centres of epithelial nuclei, a pixel each), road scenes (speed limits), circuit
            boards (defects), Megapixel MNIST (all five digits), a manifest with an objects.csv, or any other with a
            method `objects`.
        index: number of the example.

    Returns:
        Boxes in level-0 pixels; none in an image without such a thing.

    Raises:
        DataError: the data set does not tell.
    """
    while isinstance(dataset, Resplit):
        dataset = dataset.dataset
    if isinstance(dataset, ColonCancer):
        return tuple(Box(math.floor(row), math.floor(column), 1, 1) for row, column in dataset.nuclei(index).tolist())
    objects_of = known_objects_of(dataset)
    if objects_of is not None:
        return tuple(box for _, box in objects_of(index))
    raise DataError(
        "maps can be scored where the truth is known: put an objects.csv beside the manifest (docs/data.md), use "
        "circuit-boards, colon-cancer, speed-limits, german-speed-limits or megapixel-mnist, or give boxes to "
        "foveate.explain.score_map"
    )


def check_localisation(model: Model, dataset: ImageDataset, indices: Sequence[int]) -> None:
    """Localisation check: refuse what cannot be scored, before any image is looked at.

    Arguments:
        model: the one that looks.
        dataset: the images.
        indices: example numbers.

    Raises:
        ConfigError: the model has neither a map nor patches.
        DataError: the data set does not tell what is where, or there is nothing in these images.
    """
    if not model.attends and not model.reads_patches:
        raise ConfigError(
            f"a {model.settings.name} model has neither a map nor patches to score: use one that attends or draws"
        )
    if not any(known_objects(dataset, index) for index in indices):
        raise DataError(f"there is no object in any of {len(indices)} images, so nothing to find: take another split")


def score_maps(
    model: Model,
    dataset: ImageDataset,
    indices: Sequence[int],
    samples: int = 1,
    seed: int = 0,
    method: Method | None = None,
) -> Iterator[tuple[int, MapScores]]:
    """Scores of the heatmaps and draws of a model on images in which something is known to be.

    Arguments:
        model: the one that looks.
        dataset: as for `known_objects`.
        indices: example numbers.
        samples: draws per image.
        seed: of the draws.
        method: how cells are drawn; None as the model was set.

    Yields:
        Example number and scores of every image with an object.

    Raises:
        DataError: the data set does not tell.
        ImageError: an image cannot be read.
    """
    options = DrawOptions(samples, method, seed)
    # where there is nothing to find, there is nothing to look for
    objects = {index: found for index in indices if (found := known_objects(dataset, index))}
    rows = [Row(dataset.examples[index].id, partial(dataset.open, index)) for index in objects]
    with closing(look_at_rows(model, rows, options)) as looks:
        for (index, known), look in zip(objects.items(), looks, strict=True):
            if isinstance(look, Failure):
                raise ImageError(look.message)
            found_scores = score_map(explain(model, look), known)
            if found_scores is not None:
                yield index, found_scores


def localisation_over(
    model: Model, dataset: ImageDataset, indices: Sequence[int], options: DrawOptions = ONE_DRAW
) -> Localisation:
    """Localisation over images: how well the maps and draws of a model find what is known to be there.

    Arguments:
        model: the one that looks.
        dataset: as for `known_objects`.
        indices: example numbers; images without an object are left out.
        options: how to draw.

    Raises:
        ConfigError: as `check_localisation`.
        DataError: likewise.
        ImageError: an image cannot be read.
    """
    check_localisation(model, dataset, indices)
    found = dict(score_maps(model, dataset, indices, options.samples, options.seed, options.method))
    return average_scores(list(found.values()), [dataset.examples[index].group for index in found])


def deletion_over(
    model: Model, dataset: ImageDataset, indices: Sequence[int], options: DrawOptions = ONE_DRAW
) -> AverageDeletion:
    """Deletion over images: whether a model's answers rest on what its attention points at; see `delete_patches`.

    Arguments:
        model: with an attention of its own.
        dataset: the images.
        indices: example numbers; at least one.
        options: how to draw; what is covered by chance depends on its seed, too.

    Raises:
        ConfigError: the model has no attention.
        ImageError: an image cannot be read.
    """
    check_deletion(model)

    def told_of(index: int) -> Deletion:
        return delete_patches(model, dataset.open(index), options=options)

    with model.in_evaluation_mode(options.method):
        told = list(on_cores(told_of, indices) if model.device.type == "cpu" else map(told_of, indices))
    return average_deletions(told, [dataset.examples[index].group for index in indices])


def mean_with_interval(values: Sequence[float | bool | None], groups: Sequence[str | None]) -> Average | None:
    """Mean of what images are worth, with its bootstrap interval.

    Arguments:
        values: one per image; None where an image has none.
        groups: the group of each image; None is a group of its own.

    Returns:
        None where no image has a value.

    Example:
        >>> mean_with_interval([1.0, None, 1.0], [None] * 3)
        Average(mean=1.0, interval=(1.0, 1.0), images=2)
    """
    known = [(float(value), unit) for value, unit in zip(values, unit_names(groups), strict=True) if value is not None]
    if not known:
        return None
    numbers, units = zip(*known, strict=True)
    return Average(float(np.mean(numbers)), bootstrap_interval(numbers, units), len(known))


def average_scores(scores: Sequence[MapScores], groups: Sequence[str | None]) -> Localisation:
    """Localisation of images by their scores.

    Arguments:
        scores: one per image; at least one.
        groups: the group of each image; None is a group of its own.
    """
    return Localisation(
        images=len(scores),
        objects_per_image=float(np.mean([one.objects for one in scores])),
        scores={name: mean_with_interval([getattr(one, name) for one in scores], groups) for name in SCORES},
    )


def average_deletions(deletions: Sequence[Deletion], groups: Sequence[str | None]) -> AverageDeletion:
    """Deletion curve of images by their own curves.

    Arguments:
        deletions: one per image, all with the same steps; at least one.
        groups: the group of each image; None is a group of its own.
    """
    drop = mean_with_interval([one.drop for one in deletions], groups)
    assert drop is not None
    means = (np.mean([getattr(one, name) for one in deletions], axis=0) for name in ("by_attention", "by_chance"))
    by_attention, by_chance = (tuple(float(value) for value in one) for one in means)
    return AverageDeletion(deletions[0].covered, by_attention, by_chance, drop)

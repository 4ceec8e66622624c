"""What is known to be in the images of data sets that tell, and how well a model finds it."""

import math
from collections.abc import Iterator, Sequence

from foveate.datasets import ColonCancer
from foveate.datasets.objects import known_objects_of
from foveate.errors import DataError
from foveate.explain.explanation import explain
from foveate.explain.scores import MapScores, score_map
from foveate.models import Model
from foveate.settings import Method
from foveate.training.folds import Resplit
from foveate.types import Box, ImageDataset

__all__ = ["known_objects", "score_maps"]


def known_objects(dataset: ImageDataset, index: int) -> tuple[Box, ...]:
    """What decides the label of an image, where a data set tells where it is; no model is ever told.

    Arguments:
        dataset: colon cancer (the centres of epithelial nuclei, a pixel each), road scenes (speed limits), Megapixel
            MNIST (all five digits), a manifest with an objects.csv, or any other with a method `objects`.
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
        "colon-cancer, speed-limits, german-speed-limits or megapixel-mnist, or give boxes to foveate.explain.score_map"
    )


def score_maps(
    model: Model,
    dataset: ImageDataset,
    indices: Sequence[int],
    samples: int = 1,
    seed: int = 0,
    method: Method | None = None,
) -> Iterator[tuple[int, MapScores]]:
    """Score the maps and draws of a model on images in which something is known to be.

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
    for index in indices:
        objects = known_objects(dataset, index)
        if not objects:
            continue  # nothing to find, so nothing to look for
        found = score_map(explain(model, model.look(dataset.open(index), samples, method, seed)), objects)
        if found is not None:
            yield index, found

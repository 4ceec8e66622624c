"""Occlusion, the deletion metric: whether an answer rests on what attention points at; cover that up, and ask again."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Shaped

from foveate.cache import DECODED, Owner
from foveate.errors import ConfigError
from foveate.explain.explanation import explain
from foveate.images import Source
from foveate.images.area import Region
from foveate.images.header import Header, Pixels, from_unit, unit_range
from foveate.images.source import Known
from foveate.images.view import Averages, coverage
from foveate.images.wrappers.base import Wrapper
from foveate.models import Look, Model
from foveate.models.types import ONE_DRAW, DrawOptions
from foveate.pipeline.source_cache import CachedViews
from foveate.seeds import derive_seed
from foveate.types import Box, Size

STEPS = (1, 2, 5, 10, 20)
"""Patches covered, step by step."""


@dataclass(frozen=True)
class Deletion:
    """Deletion curve: how the probability of the first answer falls as patches are covered up.

    Attributes:
        covered: patches covered at each step; 0 first.
        by_attention: probability of the class first predicted, the most attended patches covered.
        by_chance: likewise, as many patches covered anywhere.
    """

    covered: tuple[int, ...]
    by_attention: tuple[float, ...]
    by_chance: tuple[float, ...]

    @property
    def drop(self) -> float:
        """Drop: how much further it falls by attention than by chance; the mean over all steps but the first."""
        return float(np.mean(self.by_chance[1:]) - np.mean(self.by_attention[1:]))


def delete_patches(
    model: Model, source: Source, steps: Sequence[int] = STEPS, options: DrawOptions = ONE_DRAW
) -> Deletion:
    """Occlude the patches behind the most attended cells with the image's mean colour, and predict again.

    The model looks anew at each step, with the same seed, and may find what it needs elsewhere: then the probability
    does not fall, and rightly so. As many patches covered anywhere say how much of a fall is due to the covering. After
    the deletion metric of Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    BMVC 2018, section 4.2, on patches instead of pixels.

    Arguments:
        model: with an attention of its own.
        source: the image.
        steps: numbers of patches to cover, ascending.
        options: how to draw; what is covered by chance depends on its seed, too.

    Raises:
        ConfigError: the model has no attention, or no step covers a patch.
        ImageError: the image cannot be read.
    """
    check_deletion(model)
    source = CachedViews(source, memory=Owner(DECODED))  # looked at once: what is covered is taken out of that view
    if not steps or min(steps) < 1:
        raise ConfigError(f"deletion needs steps of at least one patch, got {list(steps)}: use e.g. 1 2 5 10")
    look = model.look(source, options)
    seen = explain(model, look)
    assert seen.attention is not None
    assert seen.cell_mask is not None
    cells = np.flatnonzero(seen.cell_mask)
    attended = cells[np.argsort(-seen.attention.flat[cells], kind="stable")]
    anywhere = np.random.default_rng(derive_seed(options.seed, "deletion", look.source.name)).permutation(cells)
    fill = from_unit(source.view((1, 1)), source.dtype)[0, 0]
    answer = seen.classes[seen.shown_class]

    def probability(order: Int[np.ndarray, " cell"], count: int) -> float:
        occluded = Occluded(source, _boxes(model, look, order[:count]), fill)
        return model.look(occluded, options).prediction.probabilities[answer]

    before = look.prediction.probabilities[answer]
    return Deletion(
        covered=(0, *steps),
        by_attention=(before, *(probability(attended, count) for count in steps)),
        by_chance=(before, *(probability(anywhere, count) for count in steps)),
    )


def check_deletion(model: Model) -> None:
    """Deletion check: refuse a model by whose attention nothing can be covered.

    Raises:
        ConfigError: it has none.
    """
    if not model.attends:
        raise ConfigError(f"a {model.settings.name} model has no attention to cover by: use one that attends")


def _boxes(model: Model, look: Look, cells: Int[np.ndarray, " cell"]) -> list[Box]:
    """The patches behind cells, in level-0 pixels of the file."""
    assert model.grid is not None
    assert model.patch is not None
    columns = model.grid.shape(look.grid_size)[1]
    index = torch.from_numpy(cells.astype(np.int64))[None]
    boxes = model.grid.boxes(index, columns, [look.grid_size], [look.source.size], model.patch)
    return [look.source.to_file(Box(*box)) for box in boxes[0].tolist()]


class Occluded(Wrapper):
    """Occluded image: pixels whose centre lies in one of some boxes are one colour, at every level.

    Of a view of the original, what the boxes show is taken away and replaced: nothing else is read again.

    Arguments:
        source: the image.
        boxes: in its level-0 pixels.
        fill: (channels,) the colour, in the file's type.

    Example:
        >>> from foveate.images import ArraySource
        >>> image = ArraySource(np.full((2, 3), 9, np.uint8))
        >>> Occluded(image, [Box(0, 1, 1, 9)], np.array([5]))._read(Box(0, 0, 2, 3), 0)[:, :, 0].tolist()
        [[9, 5, 5], [9, 9, 9]]
    """

    def __init__(self, source: Source, boxes: Sequence[Box], fill: Shaped[np.ndarray, " channel"]) -> None:
        super().__init__(source)
        self.boxes, self.fill = tuple(boxes), fill

    def _measure(self) -> Header:
        return self.source.header

    def _read(self, box: Box, level: int) -> Pixels:
        pixels = self.source.read(box, level)
        self._cover(pixels, box, level, self.fill)
        return pixels

    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:
        known = self.source.read_known(boxes, level, threads)
        for box, (pixels, missing) in zip(boxes, known, strict=True):
            self._cover(pixels, box, level, self.fill)
            if missing is not None:
                self._cover(missing, box, level, False)
        return known

    def _cover(self, part: Shaped[np.ndarray, "height width _"], box: Box, level: int, fill: object) -> None:
        """Set what the boxes cover of a part of the image."""
        down, along = self.levels[level].factor
        rows, columns = (box.top + np.arange(box.height) + 0.5) * down, (box.left + np.arange(box.width) + 0.5) * along
        for one in self.boxes:
            top, bottom = np.searchsorted(rows, (one.top, one.bottom))
            left, right = np.searchsorted(columns, (one.left, one.right))
            part[top:bottom, left:right] = fill

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average of the original, the covered parts of it replaced, each in the cells that it touches."""
        result, share = self.source.average_of(size, region, window)
        share = None if share is None else share.copy()
        top, left, bottom, right = region
        down, along = (bottom - top) / size[0], (right - left) / size[1]
        fill = unit_range(self.fill)
        for box in _disjoint([one.within(window.top, window.left, window.bottom, window.right) for one in self.boxes]):
            rows = max(0, math.floor((box.top - top) / down)), min(size[0], math.ceil((box.bottom - top) / down))
            columns = max(0, math.floor((box.left - left) / along)), min(size[1], math.ceil((box.right - left) / along))
            if rows[0] >= rows[1] or columns[0] >= columns[1]:
                continue
            part = rows[1] - rows[0], columns[1] - columns[0]
            cells = top + rows[0] * down, left + columns[0] * along, top + rows[1] * down, left + columns[1] * along
            covered = coverage(part, cells, box)
            before, data = self.source.average_of(part, cells, box)
            where = slice(*rows), slice(*columns)
            result[where] += covered * fill - before
            if share is not None and data is not None:
                share[where] += covered - data
        return result, share


def _disjoint(boxes: Sequence[Box | None]) -> list[Box]:
    """The same pixels as parts that do not overlap."""
    parts: list[Box] = []
    for box in boxes:
        pieces = [] if box is None else [box]
        for other in tuple(parts):
            pieces = [piece for one in pieces for piece in _without(one, other)]
        parts += pieces
    return parts


def _without(box: Box, other: Box) -> Iterator[Box]:
    """What is left of a box, as up to four parts: above, below, left and right of another."""
    common = box.within(other.top, other.left, other.bottom, other.right)
    if common is None:
        yield box
        return
    for top, left, bottom, right in (
        (box.top, box.left, common.top, box.right),
        (common.bottom, box.left, box.bottom, box.right),
        (common.top, box.left, common.bottom, common.left),
        (common.top, common.right, common.bottom, box.right),
    ):
        if top < bottom and left < right:
            yield Box(top, left, bottom - top, right - left)

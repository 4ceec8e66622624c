"""Augmentation of images by random changes that stay lazy: a source that wraps a source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Shaped

from foveate.config.augment import AugmentSettings
from foveate.errors import ImageError
from foveate.images.area import Region
from foveate.images.augment.stain import Stain
from foveate.images.header import Header, PatchChange, Pixels, Sides, unit_range, without
from foveate.images.orientation import Orientation
from foveate.images.source import Known, Source
from foveate.images.view import LEAST, Averages, coverage
from foveate.images.wrappers.base import Told, Wrapper
from foveate.seeds import derive_seed
from foveate.types import Box, Level, Size


@dataclass(frozen=True)
class Change:
    """Augmentation drawn for one image; the order is flips, turns, stain, gain and bias, translation.

    Attributes:
        flip_rows: turn upside down.
        flip_columns: mirror left to right.
        quarter_turns: turns by 90° counter-clockwise, 0 … 3.
        shift: (rows, columns) moved down and to the right, in level-0 pixels; what is uncovered is 0.
        gain: a of a·x + b, x in the unit range.
        bias: b of a·x + b; values are not clipped.
        stain: another staining of a haematoxylin-eosin slide, or None.
        patches: what is done to every patch for itself once it is read, or None; `read` knows nothing of it.
    """

    flip_rows: bool = False
    flip_columns: bool = False
    quarter_turns: int = 0
    shift: tuple[int, int] = (0, 0)
    gain: float = 1.0
    bias: float = 0.0
    stain: Stain | None = None
    patches: PatchChange | None = None

    @property
    def view_stays(self) -> bool:
        """Whether it changes patches alone."""
        return replace(self, patches=None) == Change()


def draw_change(settings: AugmentSettings, size: Size, seed: int) -> Change:
    """Augmentation at random; every part of it is drawn whatever the others are, so settings do not disturb draws.

    Arguments:
        settings: what may change, and how much.
        size: (height, width) of the image; it is never moved out of sight altogether.
        seed: determines the change; derive it from the run, the epoch and the image (`foveate.seeds.derive_seed`).

    Returns:
        The change.

    Example:
        >>> draw_change(AugmentSettings(), (60, 80), seed=1) == Change()
        True
        >>> draw_change(AugmentSettings(translate=(10, 0), turn=True), (60, 80), seed=1).shift
        (-2, 0)
    """
    generator = np.random.default_rng(seed)
    flips = generator.random(2) < 0.5
    turns = int(generator.integers(4))
    moves, shades = (bool(x) for x in generator.random(2) < settings.probability)
    place, shade, stains = generator.random(2), generator.random(2), generator.random(6)
    turns = turns if settings.turn else 0
    sides = size if turns % 2 == 0 else (size[1], size[0])
    reach = [min(t, side - 1) for t, side in zip(settings.translate, sides, strict=True)]
    shift = [int(np.floor(x * (2 * t + 1))) - t for x, t in zip(place, reach, strict=True)]
    gain, bias = (low + x * (high - low) for x, (low, high) in zip(shade, (settings.gain, settings.bias), strict=True))
    return Change(
        flip_rows=settings.flip and bool(flips[0]),
        flip_columns=settings.flip and bool(flips[1]),
        quarter_turns=turns,
        shift=(shift[0], shift[1]) if moves else (0, 0),
        gain=float(gain) if shades else 1.0,
        bias=float(bias) if shades else 0.0,
        stain=Stain.drawn(stains, settings.stain) if settings.stain > 0 else None,
        patches=_patch_change(settings, derive_seed(seed, "patches")),
    )


def _patch_change(settings: AugmentSettings, seed: int) -> PatchChange | None:
    change = PatchChange(
        settings.patch_turn,
        settings.patch_scale,
        seed,
        settings.patch_shift,
        settings.patch_gain,
        settings.patch_bias,
        settings.patch_colour,
        settings.patch_flip,
    )
    return None if change == PatchChange(0.0, (1.0, 1.0), seed) else change


class Augmented(Wrapper):
    """Augmented image: what is read, and what is seen from afar, is the change of the original's pixels.

    It has one level; views use the original's levels all the same. Where stain, gain or bias change anything, `read`
    gives float32 in the unit range.

    A change of stain is not linear: a view is the changed average of the original pixels, which is close to the average
    of the changed pixels and not equal to it. In views of colon tissue at a fifth of its resolution, at σ = 0.05, they
    differ by less than half a grey level of 255 in the mean, where the change itself is 2 to 10.

    Arguments:
        source: the original.
        change: what to do with it.

    Example:
        >>> from foveate.images import ArraySource
        >>> source = Augmented(ArraySource(np.array([[1, 2, 3], [4, 5, 6]], np.uint8)), Change(True, shift=(0, 1)))
        >>> source.read(Box(0, 0, 2, 3))[:, :, 0]
        array([[0, 4, 5],
               [0, 1, 2]], dtype=uint8)
        >>> source.to_original(Box(0, 1, 1, 2))
        Box(top=1, left=0, height=1, width=2)
    """

    def __init__(self, source: Source, change: Change) -> None:
        super().__init__(source)
        self.change = change
        self.patch_change = change.patches
        self._orientation = Orientation.turned(change.quarter_turns, change.flip_rows, change.flip_columns)
        self._shades = (change.gain, change.bias) != (1.0, 0.0)

    def to_original(self, box: Box) -> Box:
        """Coordinates in the original of a box of this image; it may hang over the border there.

        Arguments:
            box: in level-0 pixels of this image.

        Returns:
            The box in level-0 pixels of the original; height and width change places if the change turns by 90°.
        """
        down, right = self.change.shift
        moved = Box(box.top - down, box.left - right, box.height, box.width)
        return self._orientation.box_before(moved, self.source.size)

    def to_file(self, box: Box) -> Box:
        """Coordinates in the file of a box: where its original lies."""
        return self.source.to_file(self.to_original(box))

    def _moved(self, told: Told, size: Size, region: Region | None) -> Shaped[np.ndarray, "rows columns"] | None:
        seen = told(self._orientation.size(size), self._region_before(region))
        return None if seen is None else np.ascontiguousarray(self._orientation.apply(seen))

    def _told_pixel(self) -> Sides | None:
        sides = self.source.pixel
        return None if sides is None else self._orientation.sides(sides)

    def _region_before(self, region: Region | None) -> Region:
        """Region in the original; all of this image if None."""
        (down, right), (height, width) = self.change.shift, self.size
        top, left, bottom, east = region or (0, 0, height, width)
        moved = (top - down, left - right, bottom - down, east - right)
        return self._orientation.region_before(moved, self.source.size)

    def _measure(self) -> Header:
        original = self.source.header
        if self.change.stain is not None and original.channels != 3:
            raise ImageError(
                f"{self._label()}: stain can be changed in images of 3 channels (RGB), got {original.channels}: "
                "set augment.stain to 0"
            )
        size = self._orientation.size(original.levels[0].size)
        changed, moved = self._shades or self.change.stain is not None, self.change.shift != (0, 0)
        return replace(
            original,
            levels=(Level(size, (1.0, 1.0)),),
            dtype=np.dtype(np.float32) if changed else original.dtype,
            tile=None if original.tile is None else self._orientation.size(original.tile),
            nodata=None if changed else original.nodata,
            georeference=None if moved or self._orientation != Orientation() else original.georeference,
        )

    def _read(self, box: Box, level: int) -> Pixels:
        return self._fetch_many([box], level, 1)[0]

    def _fetch_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Pixels]:
        shown = [self._covered(box) for box in boxes]
        wanted = [self.to_original(covered) for covered in shown if covered is not None]
        parts = iter(self.source.read_many(wanted, level, threads))
        return [self._changed(box, part, parts) for box, part in zip(boxes, shown, strict=True)]

    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:
        shown = [self._covered(box) for box in boxes]
        wanted = [self.to_original(covered) for covered in shown if covered is not None]
        known = self.source.read_known(wanted, level, threads)
        parts, gaps = (pixels for pixels, _ in known), (missing for _, missing in known)
        results = []
        for box, covered in zip(boxes, shown, strict=True):
            missing = None if covered is None else next(gaps)
            if covered is not None and missing is not None:
                turned, missing = self._orientation.apply(missing), np.zeros((*box.size, missing.shape[2]), np.bool_)
                missing[covered.place_in(box)] = turned
            results.append(without(self._changed(box, covered, parts), missing))
        return results

    def _changed(self, box: Box, covered: Box | None, parts: Iterator[Pixels]) -> Pixels:
        """The next part of the original, if a box shows any of it, changed and laid into the box."""
        result = np.zeros((*box.size, self.channels), self.dtype)
        if covered is not None:
            part = self._orientation.apply(next(parts))
            if self.change.stain is not None:
                part = self.change.stain.apply(unit_range(part))
            if self._shades:
                part = unit_range(part) * np.float32(self.change.gain) + np.float32(self.change.bias)
            result[covered.place_in(box)] = part
        return result

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average of the original, changed."""
        covered = self._covered(window)
        if covered is None:
            return np.zeros((*size, self.channels)), None
        turn = self._orientation
        before = self._region_before(region)
        sums, share = self.source.average_of(turn.size(size), before, self.to_original(covered))
        result, share = turn.apply(sums), None if share is None else turn.apply(share)
        data = share
        if share is not None and covered != window:  # what a shift uncovers is not missing, but 0
            share = share + coverage(size, region, window) - coverage(size, region, covered)
        if not self._shades and self.change.stain is None:
            return result, share
        whole = (0, 0, *self.size) == region == (covered.top, covered.left, covered.bottom, covered.right)
        if self.change.stain is None and whole and data is None:
            shaded: np.ndarray = result * self.change.gain  # what lies outside is nowhere to be seen
            shaded += self.change.bias
            return shaded, None
        inside = coverage(size, region, covered) if data is None else data
        if self.change.stain is not None:
            # of a cell that lies partly outside, or is data in part, that part is stained
            some = inside > (0 if data is None else LEAST)
            result = self.change.stain.apply(np.divide(result, inside, out=np.zeros(result.shape), where=some)) * inside
        return result * self.change.gain + inside * self.change.bias, share

    def _covered(self, box: Box) -> Box | None:
        """The part of a box that shows the original, in pixels of this image."""
        (down, right), (height, width) = self.change.shift, self.size
        return box.within(max(down, 0), max(right, 0), height + min(down, 0), width + min(right, 0))

"""OpenSlide reader: slides of all vendors that it knows."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from foveate.cache import DECODED
from foveate.images.formats.library import LibraryFile, levels_of, library, over_fill, where
from foveate.images.header import Header, unseen, without
from foveate.images.scale import mean_side, openslide_mpp
from foveate.images.source import Known
from foveate.types import Box, Size

CACHE_BYTES = 128 * 2**20
"""Decoded tiles that OpenSlide keeps, all slides of the process together."""

WHOLE_PIXELS = 2**25
"""Levels that cannot be addressed exactly are decoded whole if they have no more pixels, and left out otherwise."""

OFF_GRID = 1 / 512
"""Origins this close to the level's grid, in its pixels, are on it: below 1/256 Cairo does not interpolate."""


class OpenSlideSource(LibraryFile):
    """OpenSlide slide, as RGB: Aperio, Hamamatsu, Leica, MIRAX, Philips, Ventana, Zeiss, DICOM and others.

    What was not scanned is missing data; `read` gives it the slide's background colour where the slide tells one, else
    0. The image is not cropped
    to the area scanned (`openslide.bounds-…`).

    OpenSlide takes the origin of a read in level-0 pixels and divides it by the level's downsample; where that is no
    whole pixel of the level it interpolates, by up to half a level-0 pixel. So levels are read at origins that lie on
    their grid. A level whose downsample lets no integer do that (4.0001) is decoded whole, from its corner, and kept
    among the decoded images of the process, if it has no more than `WHOLE_PIXELS`; a larger one is left out, which the
    header's format says. The TIFF reader has no such limits and is preferred for slides that it can read.

    `bytes_read` counts the bytes of the pixels decoded: OpenSlide does not tell which bytes it reads.

    Reference: https://openslide.org/api/openslide_8h.html (openslide_read_region);
    https://github.com/openslide/openslide/issues/256.

    Arguments:
        path: the file; formats of several files are named by the one OpenSlide documents.
        mpp: microns per pixel at full resolution; overrides what the slide says.
    """

    told_by_pixels = True

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(path, mpp)
        self._numbers: tuple[int, ...] = ()
        self._steps: tuple[float | None, ...] = ()
        self._fill = (0, 0, 0)

    def _handle(self, level: int) -> Any:  # noqa: ARG002  one handle reads all levels
        openslide = library("openslide", self.name)
        slide = openslide.OpenSlide(str(self._path))
        slide.set_cache(_cache(os.getpid()))
        return slide

    def _measure(self) -> Header:
        with self._using(0, "") as slide:
            properties = dict(slide.properties)
            sizes = [(height, width) for width, height in slide.level_dimensions]
            steps = [_step(size, factor) for size, factor in zip(sizes, slide.level_downsamples, strict=True)]
        usable = [
            number
            for number, (size, step) in enumerate(zip(sizes, steps, strict=True))
            if step is not None or size[0] * size[1] <= WHOLE_PIXELS
        ]
        self._numbers, self._steps = tuple(usable), tuple(steps[number] for number in usable)
        self._fill = _background(properties.get("openslide.background-color"))
        left_out = [str(number) for number in range(len(sizes)) if number not in usable]
        note = f", level {' and '.join(left_out)} left out, off the grid" if left_out else ""
        tile = tuple(int(properties.get(f"openslide.level[0].tile-{side}", 0)) for side in ("height", "width"))
        sides = openslide_mpp(properties)
        return Header(
            levels_of([sizes[number] for number in usable]),
            3,
            np.dtype(np.uint8),
            f"OpenSlide, {properties.get('openslide.vendor', 'unknown vendor')}{note}",
            mean_side(sides),
            (tile[0], tile[1]) if all(tile) else None,
            pixel=sides,
            masked="what was not scanned",
        )

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width 3"]:
        return over_fill(self._scanned(box, level), self._fill)

    def _fetch_known(self, box: Box, level: int) -> Known:
        self._ready()
        scanned = self._scanned(box, level)
        pixels, opacity = over_fill(scanned, self._fill), scanned[:, :, 3:]
        self._count(pixels.nbytes)
        return without(pixels, unseen(opacity))

    def _may_miss(self, level: int) -> bool:  # noqa: ARG002  nobody knows without reading
        return True

    def _scanned(self, box: Box, level: int) -> Shaped[np.ndarray, "height width 4"]:
        """Colours, and an opacity of 0 where nothing was scanned."""
        if self._steps[level] is None:
            return self._whole(level)[box.top : box.bottom, box.left : box.right]
        return self._region(box, level, self._steps[level] or 1.0)

    def _region(self, box: Box, level: int, step: float) -> Shaped[np.ndarray, "height width 4"]:
        corner = (round(box.left * step), round(box.top * step))
        with self._using(level, where(box, level)) as slide:
            return np.asarray(slide.read_region(corner, self._numbers[level], (box.width, box.height)))

    def _whole(self, level: int) -> Shaped[np.ndarray, "height width 4"]:
        whole = Box(0, 0, *self.levels[level].size)
        return self._owned(DECODED).get(level, lambda: self._region(whole, level, 1.0))


def is_slide(path: Path) -> bool:
    """Whether OpenSlide knows what a file is; only where it is installed."""
    openslide = library("openslide", str(path))
    try:
        return openslide.OpenSlide.detect_format(str(path)) is not None
    except openslide.OpenSlideError:  # of this kind, but broken: opening it says how
        return True


def _step(size: Size, downsample: float) -> float | None:
    """What to multiply a level's pixels by so that OpenSlide reads from whole ones; None if rounding would not do."""
    pixels = np.arange(max(size))
    origins = np.rint(pixels * downsample) / downsample
    return downsample if np.abs(origins - pixels).max() < OFF_GRID else None


def _background(colour: str | None) -> tuple[int, int, int]:
    try:
        value = int(colour or "0", 16)
    except ValueError:
        value = 0
    return (value >> 16) & 255, (value >> 8) & 255, value & 255


@functools.cache
def _cache(process: int) -> Any:  # noqa: ARG001
    """The cache that all slides of this process share; a forked process makes its own."""
    return library("openslide", "slide").OpenSlideCache(CACHE_BYTES)

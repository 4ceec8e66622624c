"""GDAL reader, by rasterio: GeoTIFF, cloud-optimised GeoTIFF and other rasters."""

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from foveate.errors import ImageError
from foveate.images.area import Bins, Region, average
from foveate.images.formats.library import LibraryFile, kept_type, levels_of, library, matches, where
from foveate.images.header import Georeference, Header, Pixels
from foveate.images.scale import projected_mpp
from foveate.types import Box, Size

_OPENING = threading.Lock()
"""Warnings are switched off for the whole process, so one file is opened at a time."""


class RasterSource(LibraryFile):
    """GDAL raster, read by rasterio: bands, overviews, missing data and place on earth are kept.

    Overviews become levels, and their pixels are those of the overview. Values are read as they are stored, nodata
    included (`valid` tells where it is) and without GDAL's scale and offset; int16, int32, uint32 and other integers of
    no known range become float32. `bytes_read` counts the bytes of the pixels decoded: GDAL does not tell which bytes
    of the file it reads.

    Microns per pixel are told where the coordinate system is projected, in a unit of length: a ground sampling distance
    of 0.5 m is 500,000.

    Reference: https://gdal.org/en/stable/user/raster_data_model.html; https://rasterio.readthedocs.io.

    Arguments:
        path: the file.
        mpp: microns per pixel at full resolution; overrides what the file says.
    """

    _shared = False  # a data set of GDAL must not be used by two threads at a time
    _remedy = "write it again, e.g. by gdal_translate, or leave it out"

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(path, mpp)
        self._overviews: tuple[int | None, ...] = (None,)
        self._all_valid = True

    def _handle(self, level: int) -> Any:
        return self._dataset(self._overviews[level])

    def _dataset(self, overview: int | None) -> Any:
        rasterio = library("rasterio", self.name)
        options = {} if overview is None else {"overview_level": overview}
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            return rasterio.open(str(self._path), **options)

    def _measure(self) -> Header:
        with self._using(0, "") as dataset:
            if dataset.count == 0:
                inside = f", but {len(dataset.subdatasets)} data sets" if dataset.subdatasets else ""
                raise ImageError(f"{self.name}: a file with no bands{inside}: take one of them out, by gdal_translate")
            stored = np.result_type(*map(np.dtype, dataset.dtypes))
            dtype = kept_type(stored, self.name)
            full: Size = dataset.shape
            self._overviews, sizes = self._levels(full, len(dataset.overviews(1)))
            flags = library("rasterio.enums", self.name).MaskFlags
            self._all_valid = all(flags.all_valid in band for band in dataset.mask_flag_enums)
            names = dataset.descriptions
            note = "" if dtype == stored else f", {stored} as {dtype}"
            block: Size = dataset.block_shapes[0]
            return Header(
                levels_of(sizes),
                dataset.count,
                dtype,
                f"GDAL, {dataset.driver}{note}",
                _mpp(dataset),
                None if block == full else block,
                tuple(name or f"band {i}" for i, name in enumerate(names, 1)) if any(names) else (),
                next((float(value) for value in dataset.nodatavals if value is not None), None),
                _georeference(dataset),
            )

    def _levels(self, full: Size, count: int) -> tuple[tuple[int | None, ...], list[Size]]:
        """Overviews that show the image smaller, finest first: GDAL takes any page for one, a slide's label too."""
        found: dict[Size, int] = {}
        for overview in range(count):
            with self._dataset(overview) as smaller:
                if matches(full, smaller.shape):
                    found.setdefault(smaller.shape, overview)
        sizes = sorted(found, reverse=True)
        return (None, *(found[size] for size in sizes)), [full, *sizes]

    def _read(self, box: Box, level: int) -> Pixels:
        with self._using(level, where(box, level)) as dataset:
            bands = dataset.read(window=_window(box))
        return np.ascontiguousarray(np.moveaxis(bands, 0, 2), self.dtype)

    def valid(self, size: Size, region: Region | None = None) -> Bool[np.ndarray, "rows columns"] | None:
        """Validity mask of a view: False where most of a cell is nodata, masked out or outside the image.

        Arguments:
            size: (rows, columns) of the view.
            region: what the view shows, in level-0 pixels; the whole image if None.

        Returns:
            (rows, columns), or None if every pixel of the image is valid: GDAL's mask of the whole data set, which is
            that of its nodata values, its opacity or its mask band.

        Raises:
            ImageError: if the file cannot be read.
        """
        share = self._valid_share(size, region or (0, 0, *self.size))
        return None if share is None else share >= 0.5

    def _valid_share(self, size: Size, region: Region) -> Float64[np.ndarray, "rows columns"] | None:
        """The share of every pixel of a view that is valid, by area; None if all pixels are."""
        _ = self.header
        if self._all_valid:
            return None
        level = self.level_for(size, region)
        rows, columns = Bins.both(size, region, Box(0, 0, *self.size), self.levels[level].factor)
        west, east = columns.extent()

        def strip(start: int, stop: int) -> Shaped[np.ndarray, "rows columns 1"]:
            box = Box(start, west, stop - start, east - west)
            with self._using(level, where(box, level)) as dataset:
                mask: np.ndarray = dataset.dataset_mask(window=_window(box))
            self._count(mask.nbytes)
            return (mask[:, :, None] > 0).astype(np.uint8)

        return average(strip, rows, columns, 1)[:, :, 0]


def _window(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    return (box.top, box.bottom), (box.left, box.right)


def _georeference(dataset: Any) -> Georeference | None:
    transform = tuple(float(value) for value in tuple(dataset.transform)[:6])
    if dataset.crs is None and transform == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0):
        return None
    a, b, c, d, e, f = transform
    return Georeference("" if dataset.crs is None else dataset.crs.to_wkt(), (a, b, c, d, e, f))


def _mpp(dataset: Any) -> float | None:
    if dataset.crs is None or not dataset.crs.is_projected:
        return None
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    return projected_mpp((a, b, c, d, e, f), float(dataset.crs.linear_units_factor[1]))

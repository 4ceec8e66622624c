"""GDAL reader, by rasterio: GeoTIFF, cloud-optimised GeoTIFF and other rasters."""

from pathlib import Path
from typing import Any

import numpy as np

from foveate.errors import ImageError
from foveate.images.formats.library import LibraryFile, levels_of, library, matches, where
from foveate.images.formats.place import RPC_WORDS, georeference, ground_sides, named, quietly, scaled
from foveate.images.formats.tiled import TileName, touched_tiles
from foveate.images.header import Header, Missing, Pixels, is_stored, kept_type, missing_values, united, unseen
from foveate.images.scale import mean_side
from foveate.types import Box, Size


class RasterSource(LibraryFile):
    """GDAL raster, read by rasterio: bands, overviews, missing data and place on earth are kept.

    Overviews become levels, and their pixels are those of the overview. Values are read as they are stored, nodata
    included, and without GDAL's scale and offset; integers other than uint8 and uint16 become floating point.
    Missing data is what has a nodata value, what a mask band or an opacity of 0 leaves out, and blocks that
    the file does not hold. `bytes_read` counts the bytes of the pixels decoded: GDAL does not tell which bytes
    of the file it reads.

    Microns per pixel are told where the coordinate system is projected, in a unit of length: a ground sampling distance
    of 0.5 m is 500,000.

    Reference: https://gdal.org/en/stable/user/raster_data_model.html; https://rasterio.readthedocs.io.

    Arguments:
        path: the file.
        mpp: microns per pixel at full resolution; overrides what the file says.
    """

    told_by_pixels = True
    _shared = False  # a data set of GDAL must not be used by two threads at a time
    _remedy = "write it again, e.g. by gdal_translate, or leave it out"

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(path, mpp)
        self._overviews: tuple[int | None, ...] = (None,)
        self._nodata: tuple[float | None, ...] = ()
        self._opacity: int | None = None
        self._masked = False
        self._sparse = False
        self._holes: dict[int, bool] = {}

    def _handle(self, level: int) -> Any:
        return self._dataset(self._overviews[level])

    def _dataset(self, overview: int | None) -> Any:
        rasterio = library("rasterio", self.name)
        options = {} if overview is None else {"overview_level": overview}
        with quietly(rasterio):
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
            self._note_missing(dataset)
            note = "" if dtype == stored else f", {stored} as {dtype}"
            block: Size = dataset.block_shapes[0]
            sides = ground_sides(dataset)
            told = [float(value) for value in dataset.nodatavals if value is not None]
            never = [f"no-data value {value:g}, which no {dtype} has" for value in told if not is_stored(value, dtype)]
            return Header(
                levels_of(sizes),
                dataset.count,
                dtype,
                f"GDAL, {dataset.driver}{note}",
                mean_side(sides),
                None if block == full else block,
                named(dataset.descriptions),
                next((value for value in told if is_stored(value, dtype)), None),
                georeference(dataset),
                sides,
                scaled(dataset.scales, dataset.offsets),
                " and ".join(["opacity"] * (self._opacity is not None) + ["mask"] * self._masked),
                (*([RPC_WORDS] if dataset.rpcs else []), *dict.fromkeys(never)),
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

    def _note_missing(self, dataset: Any) -> None:
        """What tells missing data: nodata values, an opacity, a mask, blocks that may be left out."""
        enums = library("rasterio.enums", self.name)
        self._nodata = tuple(None if value is None else float(value) for value in dataset.nodatavals)
        alpha = enums.ColorInterp.alpha
        self._opacity = next((i for i, kind in enumerate(dataset.colorinterp) if kind == alpha), None)
        flags = {flag for band in dataset.mask_flag_enums for flag in band}
        self._masked = enums.MaskFlags.per_dataset in flags and enums.MaskFlags.alpha not in flags
        self._sparse = dataset.driver in ("GTiff", "COG") and not any(value is not None for value in self._nodata)

    def _missing(self, pixels: Pixels, box: Box, level: int) -> Missing | None:
        found = [self._without_value(pixels)]
        if self._opacity is not None:
            found.append(unseen(pixels[:, :, self._opacity, None]))
        if self._masked:
            with self._using(level, where(box, level)) as dataset:
                mask: np.ndarray = dataset.dataset_mask(window=_window(box))
            self._count(mask.nbytes)
            found.append(mask[:, :, None] == 0)
        if self._sparse:
            found.append(self._left_out(pixels, box, level))
        return united(*found)

    def _without_value(self, pixels: Pixels) -> Missing | None:
        """Values that are their band's nodata."""
        if len(set(self._nodata)) == 1:
            return None if self._nodata[0] is None else missing_values(pixels, self._nodata[0])
        found = np.zeros(pixels.shape, np.bool_)
        for band, value in enumerate(self._nodata):
            missing = None if value is None else missing_values(pixels[:, :, band, None], value)
            if missing is not None:
                found[:, :, band] = missing[:, :, 0]
        return found

    def _left_out(self, pixels: Pixels, box: Box, level: int) -> Missing | None:
        """Blocks that the file does not hold: of all that are 0, those that lie nowhere in it."""
        found = None
        if pixels.all():
            return None
        with self._using(level, where(box, level)) as dataset:
            height, width = dataset.block_shapes[0]
            for name in touched_tiles(box, (height, width)):
                block = Box(name[0] * height, name[1] * width, height, width)
                seen = block.within(box.top, box.left, box.bottom, box.right)
                assert seen is not None
                part = seen.place_in(box)
                if not pixels[part].any() and _is_left_out(dataset, name):
                    found = np.zeros((*box.size, 1), np.bool_) if found is None else found
                    found[part] = True
        return found

    def _may_miss(self, level: int) -> bool:
        _ = self.header
        known = self._masked or self._opacity is not None or any(value is not None for value in self._nodata)
        return known or (self._sparse and self._has_holes(level))

    def _has_holes(self, level: int) -> bool:
        """Whether a level has blocks that lie nowhere in the file; all are asked for once."""
        if level not in self._holes:
            with self._using(level, "") as dataset:
                blocks = touched_tiles(Box(0, 0, *dataset.shape), dataset.block_shapes[0])
                self._holes[level] = any(_is_left_out(dataset, name) for name in blocks)
        return self._holes[level]


def _is_left_out(dataset: Any, block: TileName) -> bool:
    """Whether a block lies nowhere in the file."""
    row, column = block
    return dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1) is None


def _window(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    return (box.top, box.bottom), (box.left, box.right)

"""Images of which a part is no data, as every reader can know it, with any bytes stored there."""

import itertools
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from foveate.images import Source, open_image

SIZE, TILE = (96, 128), 32
BYTES = ("zeros", "extreme", "odd")
"""What is stored where nothing is known: of each kind of file three."""

Made = tuple[Source, np.ndarray, np.ndarray]
"""An image, its pixels (height, width, channels), and (height, width) True where they are no data."""


def hole(aligned: bool) -> np.ndarray:
    """Where no data is: whole tiles, or what ends within pixels of a view."""
    missing = np.zeros(SIZE, bool)
    if aligned:
        missing[:TILE, 2 * TILE :] = missing[TILE:, :TILE] = True
    else:
        missing[:, 77:] = missing[3:50, 5:31] = missing[90, 40] = True
    return missing


def data(channels: int, dtype: str) -> np.ndarray:
    """Pixels that have none of the values that stand for no data."""
    values = np.random.default_rng(7).random((*SIZE, channels)) * 0.8 + 0.1
    return (values * {"uint8": 255, "uint16": 65535, "int16": 3000}.get(dtype, 1)).astype(dtype)


def stored(pixels: np.ndarray, missing: np.ndarray, what: str) -> np.ndarray:
    """The pixels with other bytes where nothing is known."""
    kind: np.dtype[Any] = pixels.dtype
    if what == "odd":
        noise = np.random.default_rng(8).integers(0, 255, pixels.shape)
        under = np.full(pixels.shape, np.nan) if kind.kind == "f" else noise
    else:
        under = np.full(pixels.shape, 0 if what == "zeros" else -3.4028234663852886e38 if kind.kind == "f" else 255)
    return np.where(missing[:, :, None], under, pixels).astype(kind)


def raster(path: Path, pixels: np.ndarray, place: bool = True, **how: Any) -> Path:
    """GeoTIFF by GDAL; `mask` writes a mask (`inside` the file or beside it), `overviews` makes some."""
    import rasterio

    mask, inside, overviews = how.pop("mask", None), how.pop("inside", True), how.pop("overviews", ())
    place_of = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6)} if place else {}
    shape = {"height": pixels.shape[0], "width": pixels.shape[1], "count": pixels.shape[2], "dtype": pixels.dtype}
    tiles = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate"}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="GTiff", **shape, **tiles, **place_of, **how) as file:
            file.write(np.moveaxis(pixels, 2, 0))
            if mask is not None:
                file.write_mask(mask)
        if overviews:
            with rasterio.open(path, "r+") as file:
                file.build_overviews(list(overviews), rasterio.enums.Resampling.nearest)
    return path


def tiff(path: Path, pixels: np.ndarray, nodata: float | None = None, orientation: int = 1, **how: Any) -> Path:
    """TIFF by tifffile, perhaps with GDAL's tag of no data."""
    tags = [] if nodata is None else [(42113, "s", 0, f"{nodata:.17g}", True)]
    tags += [(274, 3, 1, orientation, True)] if orientation != 1 else []
    kind = {"photometric": "rgb" if pixels.shape[2] in (3, 4) else "minisblack", "planarconfig": "contig"}
    pixels = pixels if pixels.shape[2] > 1 else pixels[:, :, 0]
    kind = kind if pixels.ndim == 3 else {"photometric": "minisblack"}
    tifffile.imwrite(path, pixels, tile=(TILE, TILE), metadata=None, extratags=tags, **(kind | how))
    return path


def leave_out(path: Path, missing: np.ndarray) -> Path:
    """Set offset and length of the tiles of nothing to 0."""
    with tifffile.TiffFile(path) as file:
        tags = [file.pages.first.tags[number] for number in (324, 325)]
        width = {3: "H", 4: "I", 16: "Q"}
        gone = [
            tag.valueoffset + number * struct.calcsize(width[int(tag.dtype)])
            for number, (row, column) in enumerate(itertools.product(*(range(0, side, TILE) for side in SIZE)))
            if missing[row, column]
            for tag in tags
        ]
        sizes = {tag.valueoffset: struct.calcsize(width[int(tag.dtype)]) for tag in tags}
    content = bytearray(path.read_bytes())
    for place in gone:
        size = sizes[max(start for start in sizes if start <= place)]
        content[place : place + size] = bytes(size)
    path.write_bytes(content)
    return path


def _nodata(what: str, kind: str) -> float:
    """Values that stand for no data: of whole numbers they are ordinary ones."""
    values = {"f": (0.0, -3.4028234663852886e38, float("nan")), "i": (0.0, -9999.0, -32768.0), "u": (0.0, 255.0, 3.0)}
    return values[kind][BYTES.index(what)]


def _of_value(write: Callable[[Path, np.ndarray, float], Path], channels: int, dtype: str) -> Callable[..., Made]:
    """Where no data is a value."""

    def make(path: Path, what: str) -> Made:
        pixels, missing = data(channels, dtype), hole(aligned=False)
        value = _nodata(what, np.dtype(dtype).kind)
        marked = np.where(missing[:, :, None], np.array(value).astype(dtype), pixels)
        return open_image(write(path, marked, value)), pixels, missing

    return make


def _of_mask(
    write: Callable[[Path, np.ndarray, np.ndarray], object], channels: int, aligned: bool = False, reader: Any = "auto"
) -> Callable[..., Made]:
    """Where no data is said beside the pixels: written of the pixels and of 255 where they are data."""

    def make(path: Path, what: str) -> Made:
        pixels, missing = data(channels, "uint8"), hole(aligned)
        write(path, stored(pixels, missing, what), (~missing).astype(np.uint8) * np.uint8(255))
        return open_image(path, reader=reader), pixels, missing

    return make


def _with(pixels: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, opacity[:, :, None]], axis=2)


def _save(kind: str, **how: Any) -> Callable[[Path, np.ndarray, np.ndarray], object]:
    return lambda path, pixels, mask: Image.fromarray(_with(pixels, mask)).save(path, kind, **how)


def _sparse(write: Callable[[Path, np.ndarray, str], object], reader: Any = "auto") -> Callable[..., Made]:
    """Where tiles are left out: what a reader has for them is written, too."""

    def make(path: Path, what: str) -> Made:
        pixels, missing = data(3, "uint8"), hole(aligned=True)
        write(path, np.where(missing[:, :, None], np.uint8(0), pixels), what)
        return open_image(path, reader=reader), pixels, missing

    return make


def _zarr(path: Path, pixels: np.ndarray, what: str) -> None:
    import zarr

    fill = {"zeros": 0, "extreme": 255, "odd": 7}[what]
    array = zarr.create_array(
        path, shape=pixels.shape, chunks=(TILE, TILE, 3), dtype="uint8", fill_value=fill, overwrite=True
    )
    for row, column in itertools.product(*(range(0, side, TILE) for side in SIZE)):
        if not hole(aligned=True)[row, column]:
            array[row : row + TILE, column : column + TILE] = pixels[row : row + TILE, column : column + TILE]


def _zarr_value(path: Path, pixels: np.ndarray, value: float) -> Path:
    import zarr

    array = zarr.create_array(path, shape=pixels.shape, chunks=(40, TILE, 1), dtype=pixels.dtype, overwrite=True)
    array[:] = pixels
    array.attrs["_FillValue"] = value if np.isfinite(value) else "nan"
    return path


def _sparse_tiff(path: Path, pixels: np.ndarray, what: str) -> None:
    nodata = {"zeros": None, "extreme": 255.0, "odd": 7.0}[what]
    leave_out(tiff(path, pixels, nodata, compression="deflate"), hole(aligned=True))


def _sparse_raster(path: Path, pixels: np.ndarray, what: str) -> None:
    raster(path, pixels, sparse_ok=True, **({} if what == "zeros" else {"nodata": 0, "photometric": "rgb"}))


def _turned_png(path: Path, pixels: np.ndarray, mask: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise: stored counter-clockwise
    Image.fromarray(np.rot90(_with(pixels, mask))).save(path, "PNG", exif=exif)


KINDS: dict[str, Callable[[Path, str], Made]] = {
    "raster, float": _of_value(lambda path, pixels, value: raster(path, pixels, nodata=value), 2, "float32"),
    "raster, int16": _of_value(lambda path, pixels, value: raster(path, pixels, nodata=value), 1, "int16"),
    "raster, bytes": _of_value(lambda path, pixels, value: raster(path, pixels, nodata=value), 3, "uint8"),
    "raster, mask": _of_mask(lambda path, pixels, mask: raster(path, pixels, mask=mask), 3),
    "raster, mask, overviews": _of_mask(lambda path, pixels, mask: raster(path, pixels, mask=mask, overviews=(2,)), 3),
    "raster, mask beside": _of_mask(lambda path, pixels, mask: raster(path, pixels, mask=mask, inside=False), 3),
    "raster, opacity": _of_mask(
        lambda path, pixels, mask: raster(path, _with(pixels, mask), photometric="rgb", alpha="yes"), 3
    ),
    "raster, left out": _sparse(_sparse_raster),
    "tiff, float": _of_value(tiff, 2, "float32"),
    "tiff, int16": _of_value(tiff, 1, "int16"),
    "tiff, turned": _of_value(
        lambda path, pixels, value: tiff(path, np.rot90(pixels), value, orientation=6), 3, "uint8"
    ),
    "tiff, mask": _of_mask(lambda path, pixels, mask: raster(path, pixels, place=False, mask=mask), 3),
    "tiff, mask beside": _of_mask(
        lambda path, pixels, mask: raster(path, pixels, place=False, mask=mask, inside=False), 3
    ),
    "tiff, opacity": _of_mask(
        lambda path, pixels, mask: tiff(path, _with(pixels, mask), extrasamples=["unassalpha"]), 3
    ),
    "tiff, laid over black": _of_mask(
        lambda path, pixels, mask: tiff(path, _with(pixels, mask), extrasamples=["assocalpha"]), 3
    ),
    "tiff, left out": _sparse(_sparse_tiff),
    "slide, left out": _sparse(_sparse_tiff, reader="openslide"),
    "zarr, left out": _sparse(_zarr),
    "zarr, float": _of_value(_zarr_value, 2, "float32"),
    "png": _of_mask(_save("PNG"), 3),
    "png, grey": _of_mask(_save("PNG"), 1),
    "png, turned": _of_mask(_turned_png, 3),
    "webp": _of_mask(_save("WEBP", lossless=True, exact=True), 3),
    "tiff, pillow": _of_mask(_save("TIFF"), 3, reader="pillow"),
    "png, vips": _of_mask(_save("PNG"), 3, reader="vips"),
}
"""By reader, and by how the file says what is no data."""

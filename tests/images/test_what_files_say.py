"""What a file says is kept by every reader, near and far: its pixels, mask and place, its scale and its channels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from servers import FileServer

from foveate.errors import ImageError
from foveate.images import Source, open_image
from foveate.types import Box

INTEGERS = ("int8", "int16", "int32", "uint32", "int64", "uint64")


def whole(source: Source) -> np.ndarray:
    return source.read(Box(0, 0, *source.size))


def extremes(dtype: str, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    """Pixels of a type, its least and greatest among them; of 64 bits only those that float64 can tell apart."""
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -(2**53)), min(limits.max, 2**53)
    drawn = np.random.default_rng(0).integers(low, high, size, dtype, endpoint=True)
    drawn[0, :2] = low, high
    return drawn


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_read_by_one_rule(dtype: str, tmp_path: Path) -> None:
    rasterio, zarr = pytest.importorskip("rasterio"), pytest.importorskip("zarr")
    array = extremes(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    np.save(tmp_path / "a.npy", array)
    zarr.create_array(tmp_path / "a.zarr", data=array, chunks=(16, 16))
    how: dict[str, Any] = {"driver": "GTiff", "height": 20, "width": 30, "count": 1, "dtype": dtype}
    with rasterio.open(
        tmp_path / "g.tif", "w", **how, crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5, 0, -1, 9)
    ) as to:
        to.write(array, 1)
    wide = np.float32 if array.itemsize < 4 else np.float64
    with FileServer({name: (tmp_path / name).read_bytes() for name in ("a.tif", "g.tif")}) as server:
        near = [tmp_path / name for name in ("a.tif", "a.npy", "a.zarr", "g.tif")]
        for source in map(open_image, [*near, server.address("a.tif"), server.address("g.tif")]):
            assert source.dtype == wide, source
            np.testing.assert_array_equal(whole(source)[:, :, 0], array.astype(wide))
            assert source.header.format.endswith(f"{dtype} as {np.dtype(wide)}")


def test_what_is_no_number_is_refused_by_name(tmp_path: Path) -> None:
    array = np.ones((20, 30), np.complex64)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    np.save(tmp_path / "a.npy", array)
    for name in ("a.tif", "a.npy"):
        with pytest.raises(ImageError, match=f"{name}: pixels must be bool, integers or floating point, got complex64"):
            open_image(tmp_path / name)

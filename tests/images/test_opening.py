"""The door: paths, arrays and sources all become sources, and values mean what their type says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.errors import ImageError
from foveate.images import ArraySource, open_image, unit_range
from foveate.images.header import from_unit


@pytest.mark.parametrize("kind", [str, Path])
def test_content_decides_not_the_name(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "actually-a-png.jpg"
    Image.new("RGB", (7, 5)).save(path, "PNG")
    source = open_image(kind(path), mpp=0.5)
    assert (source.size, source.channels, source.name, source.mpp) == ((5, 7), 3, str(path), 0.5)
    assert repr(source) == f"PillowSource({str(path)!r}, 5×7×3)"


def test_arrays_and_sources() -> None:
    array = np.zeros((4, 6, 5), np.float32)
    source = open_image(array, mpp=2.0)
    assert (source.size, source.channels, source.levels[0].factor, source.mpp) == ((4, 6), 5, (1.0, 1.0), 2.0)
    assert open_image(source) is source
    other = open_image(source, mpp=1.0)
    assert (other.mpp, source.mpp, other.size) == (1.0, 2.0, (4, 6))
    with pytest.raises(ImageError, match="must be \\(height, width\\) or \\(height, width, channels\\)"):
        open_image(np.zeros((1, 4, 6, 3), np.uint8))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.float32])
def test_the_unit_range_and_back(dtype: type) -> None:
    scale = {np.bool_: 1, np.uint8: 255, np.uint16: 65535}.get(dtype, 0)
    values = np.arange(scale + 1).astype(dtype) if scale else np.array([-0.5, 0.25, 1.5], dtype)
    unit = unit_range(values)
    assert unit.dtype == np.float32
    if scale:
        assert (unit.min(), unit.max()) == (0, 1)
    np.testing.assert_array_equal(from_unit(unit, np.dtype(dtype)), values)


def test_open_is_not_a_copy() -> None:
    array = np.zeros((4, 6), np.uint8)
    source = ArraySource(array)
    array[:] = 255
    assert source.view((1, 1)).item() == 1

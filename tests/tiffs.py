"""TIFF files for tests and benchmarks: pyramids, and files of many gigapixels that are a few megabytes long."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from pyramid_files import sliced

from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box

SIZE = (45, 77)
"""Of small images: odd, not square, and no multiple of any tile."""


def noise(height: int, width: int, channels: int = 3, dtype: str = "uint8", seed: int = 3) -> np.ndarray:
    """(height, width, channels) random pixels, smooth enough for JPEG."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((height // 8 + 2, width // 8 + 2, channels))
    fine = coarse.repeat(8, 0).repeat(8, 1)[3 : 3 + height, 5 : 5 + width]
    values = 0.8 * fine + 0.2 * generator.random((height, width, channels))
    scale = {"bool": 2, "uint8": 256, "uint16": 65536}.get(dtype)
    return values.astype(dtype) if scale is None else np.floor(values * scale).astype(dtype)


def write_tiff(path: Path, array: np.ndarray, **options: Any) -> TiffSource:
    """Write an array (height, width, channels) by tifffile, with its options, and open it."""
    planar = options.get("planarconfig") == "separate"
    big, order = options.pop("bigtiff", False), options.pop("byteorder", "<")
    data = np.moveaxis(array, 2, 0) if planar and array.shape[2] > 1 else array
    if array.shape[2] == 1:
        data = array[:, :, 0]
        options.pop("planarconfig", None)
    options.setdefault("planarconfig", "contig" if data.ndim == 3 else None)
    kind = {"photometric": "rgb" if array.shape[2] == 3 else "minisblack", "metadata": None} | options
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as writer:
        writer.write(data, **kind)
    return TiffSource(path)


def check_tiff(source: TiffSource, array: np.ndarray, level: int = 0) -> None:
    """Some boxes at every border, one pixel in and out, and the whole."""
    height, width = array.shape[:2]
    assert source.levels[level].size == (height, width)
    assert (source.channels, source.dtype) == (array.shape[2], array.dtype)
    some = [Box(0, 0, height, width), Box(-3, -4, height + 9, width + 5)]
    for top in (-6, -5, 0, 13, height - 6, height - 1, height):
        some += [Box(top, left, 6, 3) for left in (-3, -2, 0, 31, width - 3, width - 2, width)]
    for box, read in zip(some, source.read_many(some, level, threads=2), strict=True):
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, sliced(array, box))
        assert read.flags.writeable
    for box in some[1::17]:
        np.testing.assert_array_equal(source.read(box, level), sliced(array, box))


def write_pyramid(
    path: Path | str,
    array: np.ndarray,
    tile: tuple[int, int] = (256, 256),
    levels: int = 3,
    compression: str | None = "jpeg",
    subifds: bool = False,
    **options: Any,
) -> list[np.ndarray]:
    """A tiled pyramid: every level has every other row and column of the one before.

    Returns:
        The levels, as written; JPEG changes them.
    """
    made = [np.ascontiguousarray(array[:: 2**level, :: 2**level]) for level in range(levels)]
    common: dict[str, Any] = {"tile": tile, "compression": compression, "metadata": None}
    common["photometric"] = "rgb" if array.ndim == 3 and array.shape[2] == 3 else "minisblack"
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as writer:
        writer.write(made[0], subifds=levels - 1 if subifds else 0, **(common | options))
        for level in made[1:]:
            writer.write(level, subfiletype=1, **common)
    return made


def giant_tiles(tile: int = 256, different: int = 4) -> np.ndarray:
    """(different, tile, tile, 3) the tiles that `write_giant` repeats."""
    return np.stack([noise(tile, tile, seed=number) for number in range(different)])


def giant_tile_at(level: int, row: int, column: int, different: int = 4) -> int:
    """Which of the tiles stands where."""
    return (31 * row + column + level) % different


def write_giant(
    path: Path | str,
    tiles_down: int,
    tiles_along: int,
    tile: int = 256,
    different: int = 4,
    levels: int = 1,
    compression: str = "jpeg",
) -> np.ndarray:
    """A BigTIFF file of any size, whose tables of tiles repeat the same few: 12 bytes a tile is all it takes.

    Arguments:
        path: to write to.
        tiles_down: rows of tiles at level 0.
        tiles_along: columns of tiles at level 0.
        tile: their height and width.
        different: tiles there are.
        levels: resolutions, each half of the one before.
        compression: "jpeg" or "deflate".

    Returns:
        (different, tile, tile, 3) the tiles as they were before compression.
    """
    tiles = giant_tiles(tile, different)
    with Path(path).open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        places, lengths = [], []
        for one in tiles:
            data = _jpeg(one) if compression == "jpeg" else zlib.compress(one.tobytes(), 1)
            places.append(file.tell())
            lengths.append(len(data))
            file.write(data)
        pointer = 8
        for level in range(levels):
            height, width = tiles_down * tile >> level, tiles_along * tile >> level
            rows, columns = np.ogrid[: -(-height // tile), : -(-width // tile)]
            which = (31 * rows + columns + level) % different
            tables = []
            for values, kind in ((places, "<u8"), (lengths, "<u4")):
                tables.append(file.tell())
                file.write(np.array(values, kind)[which].tobytes())
            tags = {254: (4, [int(level > 0)]), 256: (4, [width]), 257: (4, [height]), 258: (3, [8, 8, 8]),
                    259: (3, [7 if compression == "jpeg" else 8]), 262: (3, [6 if compression == "jpeg" else 2]),
                    277: (3, [3]), 284: (3, [1]), 322: (4, [tile]), 323: (4, [tile])}  # fmt: skip
            if compression == "jpeg":
                tags[530] = (3, [1, 1])
            here = file.tell()
            entries = [struct.pack("<HHQ", tag, kind, len(values)) + _packed(kind, values)
                       for tag, (kind, values) in tags.items()]  # fmt: skip
            for tag, kind, at in ((324, 16, tables[0]), (325, 4, tables[1])):
                inline = which.size * (8 if kind == 16 else 4) <= 8
                value = _packed(kind, [(places if kind == 16 else lengths)[which.flat[0]]]) if which.size == 1 else None
                assert not inline or value is not None, "two tiles would have to be written into the entry itself"
                entries.append(struct.pack("<HHQ", tag, kind, which.size) + (value or struct.pack("<Q", at)))
            entries.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
            file.write(struct.pack("<Q", len(entries)) + b"".join(entries) + bytes(8))
            end = file.tell()
            file.seek(pointer)
            file.write(struct.pack("<Q", here))
            file.seek(end)
            pointer = end - 8
    return tiles


def _packed(kind: int, values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}{ {3: 'H', 4: 'I', 16: 'Q'}[kind] }", *values).ljust(8, b"\0")


def _jpeg(pixels: np.ndarray) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg_encode(pixels, level=85, subsampling="444"))

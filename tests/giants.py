"""Pyramids of any size for tests and benchmarks: of a few tiles again and again, or stored in full."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from tiffs import noise

STORED = 256
"""Different tiles of a file that is stored in full."""


def levels_of(side: int) -> int:
    """Levels of a pyramid that ends at 1024 pixels or below."""
    levels = 1
    while side >> (levels - 1) > 1024:
        levels += 1
    return levels


def write_stored(path: Path, side: int, levels: int = 1, tile: int = 256, quality: int = 90) -> Path:
    """A square pyramid of JPEG tiles of smooth noise, every one stored by itself: its length is that of a real file.

    Arguments:
        path: to write to.
        side: height and width in pixels.
        levels: resolutions, each half of the one before; they do not show the same.
        tile: height and width of a tile.
        quality: of JPEG: 90 makes about 37 KB of a tile, more than most slides need.

    Returns:
        The path.
    """
    generator = np.random.default_rng(0)
    encoded = [_noisy_jpeg(generator, tile, quality) for _ in range(STORED)]

    def tiles(count: int) -> Iterator[bytes]:
        for number in generator.integers(0, STORED, count).tolist():
            yield encoded[number]

    kind: dict[str, Any] = {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2), "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=side > 40_000) as writer:
        for level in range(levels):
            edge = side >> level
            shape, count = (edge, edge, 3), (-(-edge // tile)) ** 2
            writer.write(
                tiles(count), shape=shape, dtype=np.uint8, tile=(tile, tile), subfiletype=int(level > 0), **kind
            )
    return path


def _noisy_jpeg(generator: np.random.Generator, tile: int, quality: int) -> bytes:
    import imagecodecs

    coarse = generator.random((tile // 8, tile // 8, 3)).repeat(8, 0).repeat(8, 1)
    pixels = (255 * (0.8 * coarse + 0.2 * generator.random((tile, tile, 3)))).astype(np.uint8)
    return bytes(imagecodecs.jpeg8_encode(pixels, level=quality, colorspace="RGB", outcolorspace="YCBCR"))


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

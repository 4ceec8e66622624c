"""Random 100×100 patches of a tiled 20,000×20,000 JPEG TIFF: this library against pyvips, OpenSlide and tiffslide.

Every round opens the file anew, so that no reader has decoded anything, and reads its 1,000 boxes, different ones in
every round; readers take their turn within a round, and ratios are taken within a round. One thread each, unless it
says otherwise.

    python benchmarks/patch_reading.py [--side 20000] [--boxes 1000] [--rounds 7] [--file slide.tif]
"""

import os

os.environ["VIPS_CONCURRENCY"] = "1"  # before libvips is loaded

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from foveate.images import open_image
from foveate.types import Box

PATCH, TILE, DIFFERENT = 100, 256, 256
Read = Callable[[Path, Sequence[Box]], object]


def main() -> None:
    """Write the file, read it in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--boxes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--file", type=Path, help="a file to read instead of one made for it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or _written(Path(folder) / "tiled.tif", arguments.side)
        size = open_image(path).size
        print(f"{size[0]}×{size[1]}, {path.stat().st_size / 1e6:.0f} MB, {arguments.boxes} patches of {PATCH}×{PATCH}")
        _table(
            "scattered", path, {**READERS, **OTHERS}, lambda n: _scattered(size, arguments.boxes, n), arguments.rounds
        )
        together = {"foveate, gathered": _gathered, "pyvips": OTHERS["pyvips"]}
        _table("sharing tiles", path, together, lambda n: _clustered(size, arguments.boxes, n), arguments.rounds)


def _table(title: str, path: Path, readers: dict[str, Read], boxes: Callable[[int], list[Box]], rounds: int) -> None:
    spent: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        some = boxes(number)
        for name, read in readers.items():
            start = time.perf_counter()
            read(path, some)
            if number > 0:  # the first round loads libraries and fills the system's file cache
                spent[name].append((time.perf_counter() - start) / len(some))
    ours = spent[next(iter(readers))]
    print(f"\n{title}: ms a patch, median (quartiles) of {rounds} rounds; speed of the first over each, in its round")
    for name, found in spent.items():
        low, middle, high = statistics.quantiles(found, n=4)
        ratio = statistics.median(theirs / mine for theirs, mine in zip(found, ours, strict=True))
        print(f"  {name:22} {1e3 * middle:6.3f} ({1e3 * low:.3f}–{1e3 * high:.3f})   {ratio:5.2f}×")


def _written(path: Path, side: int) -> Path:
    """A tiled JPEG TIFF of smooth noise; each tile is one of `DIFFERENT`, stored anew every time it comes."""
    import imagecodecs
    import tifffile

    generator = np.random.default_rng(0)
    encoded = []
    for _ in range(DIFFERENT):
        coarse = generator.random((TILE // 8, TILE // 8, 3)).repeat(8, 0).repeat(8, 1)
        pixels = (255 * (0.8 * coarse + 0.2 * generator.random((TILE, TILE, 3)))).astype(np.uint8)
        encoded.append(imagecodecs.jpeg8_encode(pixels, level=90, colorspace="RGB", outcolorspace="YCBCR"))
    count = -(-side // TILE)

    def tiles() -> Iterator[bytes]:
        for number in generator.integers(0, DIFFERENT, count * count).tolist():
            yield encoded[number]

    kind: dict[str, Any] = {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2), "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(TILE, TILE), **kind)
    return path


def _scattered(size: tuple[int, int], count: int, seed: int) -> list[Box]:
    generator = np.random.default_rng(seed)
    tops, lefts = (generator.choice(side - PATCH, count, replace=False).tolist() for side in size)
    return [Box(top, left, PATCH, PATCH) for top, left in zip(tops, lefts, strict=True)]


def _clustered(size: tuple[int, int], count: int, seed: int) -> list[Box]:
    """Ten patches within 600×600 pixels, a hundred times: what an attention that has found something asks for."""
    generator = np.random.default_rng(seed)
    boxes = []
    for corner in generator.integers(0, min(size) - 600, (count // 10, 2)):
        for offset in generator.integers(0, 500, (10, 2)):
            top, left = (corner + offset).tolist()
            boxes.append(Box(top, left, PATCH, PATCH))
    return boxes


def _one_thread(path: Path, boxes: Sequence[Box]) -> object:
    source = open_image(path)
    return [source.read(box) for box in boxes]


def _two_threads(path: Path, boxes: Sequence[Box]) -> object:
    source = open_image(path)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(source.read, boxes, chunksize=50))


def _gathered(path: Path, boxes: Sequence[Box]) -> object:
    source = open_image(path)
    return [source.read_many(boxes[start : start + 10]) for start in range(0, len(boxes), 10)]


def _pyvips(path: Path, boxes: Sequence[Box]) -> object:
    import pyvips

    region = pyvips.Region.new(pyvips.Image.new_from_file(str(path), access="random"))
    shape = PATCH, PATCH, 3
    return [
        np.frombuffer(region.fetch(box.left, box.top, box.width, box.height), np.uint8).reshape(shape) for box in boxes
    ]


def _openslide(path: Path, boxes: Sequence[Box]) -> object:
    import openslide

    with openslide.OpenSlide(str(path)) as slide:
        return [np.asarray(slide.read_region((box.left, box.top), 0, (PATCH, PATCH)))[:, :, :3] for box in boxes]


def _tiffslide(path: Path, boxes: Sequence[Box]) -> object:
    import tiffslide

    with tiffslide.TiffSlide(str(path)) as slide:
        return [slide.read_region((box.left, box.top), 0, (PATCH, PATCH), as_array=True) for box in boxes]


def _installed(readers: dict[str, tuple[str, Read]]) -> dict[str, Read]:
    from importlib.util import find_spec

    return {name: read for name, (module, read) in readers.items() if find_spec(module)}


READERS: dict[str, Read] = {"foveate": _one_thread, "foveate, two threads": _two_threads}
OTHERS = _installed(
    {
        "pyvips": ("pyvips", _pyvips),
        "OpenSlide": ("openslide", _openslide),
        "tiffslide": ("tiffslide", _tiffslide),
    }
)

if __name__ == "__main__":
    main()

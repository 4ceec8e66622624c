"""Random 100×100 patches of a tiled 20,000×20,000 JPEG TIFF: this library against pyvips, OpenSlide and tiffslide.

Every round opens the file anew, so that no reader has decoded anything, and reads its 1,000 boxes, different ones in
every round; readers take their turn within a round, and ratios are taken within a round. One thread each, unless it
says otherwise; freed memory is kept, as every verb of the command line does. "Decoder alone" is libjpeg-turbo on the
same tiles, each once, from memory: what of the time is not reading and, in its second row,
what a second thread is worth on this machine.

tiffslide, pyvips and OpenSlide come with the extra `bench`.

    python benchmarks/patch_reading.py [--side 20000] [--boxes 1000] [--rounds 7] [--file slide.tif]
"""

import os

os.environ["VIPS_CONCURRENCY"] = "1"  # before libvips is loaded

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from foveate.devices import keep_freed_memory
from foveate.images import open_image
from foveate.images.formats.tiff.source import TiffSource
from foveate.images.tensors import gather
from foveate.threads import reading_threads
from foveate.types import Box

PATCH, TILE = 100, 256
Read = Callable[[Path, Sequence[Box]], object]
Table = dict[str, list[float]]


def main() -> None:
    """Write the file, read it in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--boxes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--file", type=Path, help="a file to read instead of one made for it")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from giants import write_stored

    keep_freed_memory()
    for name, module in ABSENT.items():
        print(f"no row for {name}: {module} is not installed: pip install 'foveate[bench]'")
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or write_stored(Path(folder) / "tiled.tif", arguments.side, tile=TILE)
        size = open_image(path).size
        print(f"{size[0]}×{size[1]}, {path.stat().st_size / 1e6:.0f} MB, {arguments.boxes} patches of {PATCH}×{PATCH}")
        spent = _measured(path, SCATTERED, lambda n: _scattered(size, arguments.boxes, n), arguments.rounds)
        if isinstance(open_image(path), TiffSource):
            decoder = _decoder_alone(path, [_scattered(size, arguments.boxes, n) for n in range(arguments.rounds + 1)])
            spent |= decoder
        _print("scattered", spent)
        spent = _measured(path, SHARING, lambda n: _clustered(size, arguments.boxes, n), arguments.rounds)
        _print("sharing tiles: ten patches within 600×600 pixels", spent)


def _measured(path: Path, readers: dict[str, Read], boxes: Callable[[int], list[Box]], rounds: int) -> Table:
    """Seconds a patch of every reader, in every round but the first."""
    spent: Table = {name: [] for name in readers}
    for number in range(rounds + 1):
        some = boxes(number)
        for name, read in readers.items():
            start = time.perf_counter()
            read(path, some)
            if number > 0:  # the first round loads libraries and fills the system's file cache
                spent[name].append((time.perf_counter() - start) / len(some))
    return spent


def _print(title: str, spent: Table) -> None:
    """A line a reader, and in it how much faster each of ours is, in the same round."""
    ours = [name for name in spent if name.startswith("foveate")]
    rounds = len(spent[ours[0]])
    print(f"\n{title}: ms a patch, median (quartiles) of {rounds} rounds; then speed over it, in its round, of")
    print(f"{'':65}{'   '.join(ours)}")
    for name, found in spent.items():
        low, middle, high = statistics.quantiles(found, n=4)
        ratios = [
            f"{statistics.median(theirs / mine for theirs, mine in zip(found, spent[our], strict=True)):.2f}×".rjust(
                len(our)
            )
            for our in ours
        ]
        print(f"  {name:40} {1e3 * middle:6.3f} ({1e3 * low:.3f}–{1e3 * high:.3f})".ljust(65) + "   ".join(ratios))


def _decoder_alone(path: Path, rounds: Sequence[Sequence[Box]]) -> Table:
    """The same for the tiles that the boxes of every round touch, decoded by one thread and by two; nothing is read."""
    import imagecodecs

    source = TiffSource(path)
    segments, file = source._ready()[1][0], source._ready()[0]
    spent: Table = {"decoder alone": [], "decoder alone, two threads": []}

    def decode(tiles: Sequence[bytes]) -> None:
        for tile in tiles:
            imagecodecs.jpeg8_decode(tile, tables=segments._tables)

    with ThreadPoolExecutor(2) as pool:
        for number, boxes in enumerate(rounds):
            data = file.read_many(segments.table.parts(segments.numbers(_touched(boxes, segments.tile)), file))
            for found, threads in zip(spent.values(), (1, 2), strict=True):
                start = time.perf_counter()
                list(pool.map(decode, [data[i::threads] for i in range(threads)]))
                if number > 0:
                    found.append((time.perf_counter() - start) / len(boxes))
    return spent


def _touched(boxes: Sequence[Box], tile: tuple[int, int]) -> list[tuple[int, int]]:
    return list(
        {
            (row, column): None
            for box in boxes
            for row in range(box.top // tile[0], (box.bottom - 1) // tile[0] + 1)
            for column in range(box.left // tile[1], (box.right - 1) // tile[1] + 1)
        }
    )


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


def _together(path: Path, boxes: Sequence[Box]) -> object:
    source = open_image(path)
    return [source.read_many(boxes[start : start + 10]) for start in range(0, len(boxes), 10)]


def _together_in_threads(path: Path, boxes: Sequence[Box]) -> object:
    source = open_image(path)
    return [source.read_many(boxes[start : start + 10], 0, reading_threads()) for start in range(0, len(boxes), 10)]


def _gathered(path: Path, boxes: Sequence[Box]) -> object:
    source, corners = open_image(path), torch.tensor([(box.top, box.left, *box.size) for box in boxes])
    return [gather([source], corners[None, start : start + 10]) for start in range(0, len(boxes), 10)]


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


LIBRARIES: dict[str, tuple[str, Read]] = {
    "pyvips": ("pyvips", _pyvips),
    "OpenSlide": ("openslide", _openslide),
    "tiffslide": ("tiffslide", _tiffslide),
}
OTHERS = {name: read for name, (module, read) in LIBRARIES.items() if find_spec(module)}
ABSENT = {name: module for name, (module, _) in LIBRARIES.items() if name not in OTHERS}
SCATTERED = {"foveate": _one_thread, "foveate, two threads": _two_threads, **OTHERS}
SHARING = {
    "foveate, one thread": _together,
    f"foveate, {reading_threads()} threads": _together_in_threads,
    f"foveate.images.tensors.gather, {reading_threads()} threads": _gathered,
    **{name: read for name, read in OTHERS.items() if name == "pyvips"},
}

if __name__ == "__main__":
    main()

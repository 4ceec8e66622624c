"""Fuzzing: files of all formats and model folders, mutated by a seeded generator, and what foveate makes of them.

`python tests/fuzz.py --minutes 60` mutates for an hour and says what it found; `--seed` begins elsewhere. Whatever a
file says, it is read or refused in one line: no crash, no traceback, no more than `SLOW` seconds or `MEMORY` bytes.
"""

import argparse
import faulthandler
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.errors import FoveateError
from foveate.images import Canvas, describe, open_image
from foveate.images.view import shrunk_size
from foveate.models import build_model, load_model, save_model
from foveate.types import Box

SLOW, MEMORY = 10.0, 10**9
"""Seconds, and bytes of memory more than before, that no file may take."""

SIZE = (41, 67)
"""Of every image, none square."""

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
"""What integers are set to."""


WORDS = (b"-1", b"0", b"9" * 19, b"1e400", b"null")
"""What numbers in words are set to."""

FAILED = (("geo.tif", 61), ("geo.tif", 335))
"""Formats and seeds of mutations that once failed, each with a mend of its own: a place that is not a number."""


def pixels(channels: int = 3, kind: str = "u1") -> np.ndarray:
    """Smooth pixels with a square in them, so that every codec has something to do."""
    rows, columns = np.indices(SIZE)
    values = (rows * 3 + columns * 2)[:, :, None] + 20 * np.arange(channels)
    values[9:20, 30:44] = 255
    return np.ascontiguousarray((values % 256).astype(kind))


def _tiff(**how: object) -> bytes:
    stream = io.BytesIO()
    array = how.pop("array", pixels())
    tifffile.imwrite(stream, array, **{"photometric": "rgb", **how})
    return stream.getvalue()


def _pyramid() -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as tiff:
        tiff.write(pixels(), tile=(16, 32), photometric="rgb", subifds=1, compression="zlib")
        tiff.write(pixels()[::2, ::2], tile=(16, 32), photometric="rgb", subfiletype=1, compression="zlib")
    return stream.getvalue()


def _pillow(kind: str, array: np.ndarray | None = None, **how: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels() if array is None else array).save(stream, kind, **how)
    return stream.getvalue()


def _palette(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels()).quantize(16).save(stream, kind)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _canvas() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Canvas(pixels(2).transpose(2, 0, 1), np.array([[3, 4], [50, 60]]), (900, 800)).save(Path(folder) / "a")
        return (Path(folder) / "a").read_bytes()


def _geotiff() -> bytes:
    import rasterio

    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 400000, 0, -2, 5000000), "nodata": 9}
    with rasterio.MemoryFile() as memory:
        size = {"height": SIZE[0], "width": SIZE[1], "count": 3, "dtype": "uint8"}
        with memory.open(driver="GTiff", **size, **place) as stream:
            stream.write(pixels().transpose(2, 0, 1))
        return bytes(memory.getbuffer())


def _folder(make: Callable[[Path], None]) -> bytes:
    """A folder as an archive that is not packed, so that a mutation of it is one of its files."""
    with tempfile.TemporaryDirectory() as name:
        make(Path(name) / "a")
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for file in sorted((Path(name) / "a").rglob("*")):
                if file.is_file():
                    archive.write(file, str(file.relative_to(Path(name) / "a")))
        return stream.getvalue()


def _zarr(path: Path) -> None:
    from foveate.convert import Conversion, convert
    from foveate.images import ArraySource

    convert(ArraySource(pixels()), path, Conversion(format="ome-zarr", tile=16))


def _model(path: Path) -> None:
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
    )
    save_model(build_model(settings, ("left", "right"), channels=3), path, None)


FORMATS: dict[str, Callable[[], bytes]] = {
    "tiled.tif": lambda: _tiff(tile=(16, 32)),
    "zlib.tif": lambda: _tiff(tile=(16, 32), compression="zlib", predictor=True),
    "lzw.tif": lambda: _tiff(rowsperstrip=7, compression="lzw"),
    "jpeg.tif": lambda: _tiff(tile=(16, 32), compression="jpeg"),
    "big.tif": lambda: _tiff(bigtiff=True, byteorder=">", tile=(16, 32)),
    "strips.tif": lambda: _tiff(rowsperstrip=5, array=pixels(1, "u2")[:, :, 0], photometric="minisblack"),
    "planes.tif": lambda: _tiff(array=pixels(5).transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"),
    "pyramid.tif": _pyramid,
    "geo.tif": _geotiff,
    "a.png": lambda: _pillow("PNG"),
    "grey16.png": lambda: _pillow("PNG", pixels(1, "u2")[:, :, 0] * 200),
    "alpha.png": lambda: _pillow("PNG", pixels(4)),
    "palette.png": lambda: _palette("PNG"),
    "a.jpg": lambda: _pillow("JPEG"),
    "progressive.jpg": lambda: _pillow("JPEG", progressive=True),
    "a.gif": lambda: _palette("GIF"),
    "a.bmp": lambda: _pillow("BMP"),
    "a.ppm": lambda: _pillow("PPM"),
    "a.webp": lambda: _pillow("WEBP"),
    "a.jp2": lambda: _pillow("JPEG2000"),
    "a.npy": lambda: _npy(pixels()),
    "columns.npy": lambda: _npy(np.asfortranarray(pixels(2, "f4"))),
    "canvas.npz": _canvas,
    "a.zarr": lambda: _folder(_zarr),
    "model": lambda: _folder(_model),
}
"""Name → how a whole file of the format is made; a folder is an archive of its files."""


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The same content, but for one to six mutations, most of them near its beginning."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 7))):
        if not data:
            break
        reach = len(data) if random.random() < 0.4 else min(len(data), 600)
        at, length = int(random.integers(0, reach)), int(random.integers(1, 40))
        match int(random.integers(0, 9)):
            case 0:
                data[at] ^= 1 << int(random.integers(0, 8))
            case 1:
                data[at] = int(random.integers(0, 256))
            case 2 | 3:
                width, number = int(random.choice([2, 4, 8])), int(random.choice(len(NUMBERS)))
                order = "little" if random.random() < 0.7 else "big"
                data[at : at + width] = (NUMBERS[number] % 256**width).to_bytes(width, order)
            case 4:
                del data[at:]
            case 5:
                del data[at : at + length]
            case 6:
                other = int(random.integers(0, len(data)))
                data[at : at + length] = data[other : other + length]
            case 7:
                data[at:at] = bytes(random.integers(0, 256, length, np.uint8))
            case 8:
                digits = [i for i in range(reach) if 48 <= data[i] <= 57]
                if digits:  # numbers in words: JSON, XML, headers of NumPy
                    at = int(random.choice(digits))
                    data[at : at + 1] = WORDS[int(random.integers(0, len(WORDS)))]
    return bytes(data)


def write(path: Path, name: str, content: bytes, random: np.random.Generator | None) -> None:
    """Write a mutation: of a file, or of one file of a folder; without a generator what is whole."""
    if not (name == "model" or name.endswith(".zarr")):
        path.write_bytes(content if random is None else mutated(content, random))
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        chosen = "" if random is None else names[int(random.integers(0, len(names)))]
        for one in names:
            (path / one).parent.mkdir(parents=True, exist_ok=True)
            inside = archive.read(one)
            (path / one).write_bytes(inside if random is None or one != chosen else mutated(inside, random))


def look(path: Path) -> None:
    """All that is done with an image: it is described, seen at a low resolution, and read in parts at every level."""
    image = open_image(path)
    json.dumps(describe(image), allow_nan=False)
    height, width = image.size
    for level in range(len(image.levels)):
        rows, columns = image.levels[level].size
        image.read_known([Box(rows - 9, columns - 7, 20, 15), Box(0, 0, 12, 13)], level)
    if height * width <= 2**26:
        size = shrunk_size(image.size, 40)
        image.view(size)
        image.valid(size)
    image.close()


def ask(path: Path, name: str) -> str:
    """What is wrong with the answer to a mutation; "" if nothing is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_model(path) if name == "model" else look(path)
    except FoveateError as error:
        return "" if "\n" not in str(error) else f"more than one line: {error}"
    except Exception as error:
        import traceback

        return "".join(traceback.format_exception(error, limit=-4))
    return ""


@dataclass(frozen=True)
class Mutation:
    """Mutation: of which format, and the seed that makes it."""

    name: str
    seed: int

    def write(self, path: Path, contents: dict[str, bytes]) -> None:
        random = np.random.default_rng([self.seed, *self.name.encode()])
        write(path, self.name, contents[self.name], random)


def _work(channel: Connection, folder: str) -> None:
    faulthandler.enable()
    contents = {name: make() for name, make in FORMATS.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while True:
        mutation: Mutation | None = channel.recv()
        if mutation is None:
            return
        path = Path(folder) / mutation.name
        mutation.write(path, contents)
        started = time.monotonic()
        wrong = ask(path, mutation.name)
        took, now = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if (now - peak) * 1024 > MEMORY:
            wrong = wrong or f"{(now - peak) * 1024 / 1e9:.1f} GB of memory"
        peak = max(peak, now)
        if took > SLOW:
            wrong = wrong or f"{took:.1f} seconds"
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        channel.send(wrong)


class Worker:
    """Worker: a process that reads mutations, and is started again when one of them has ended it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._begin()

    def _begin(self) -> None:
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_work, args=(theirs, self._folder))
        self._process.start()
        theirs.close()
        self._channel = ours

    def ask(self, mutation: Mutation) -> str:
        """What is wrong with the answer to a mutation; "" if nothing is."""
        self._channel.send(mutation)
        try:
            if self._channel.poll(60 + 6 * SLOW):
                return str(self._channel.recv())
            wrong = "no answer"
            os.kill(self._process.pid or 0, signal.SIGKILL)
            self._process.join()
        except (EOFError, OSError):
            self._process.join()
            wrong = f"the process ended, exit code {self._process.exitcode}"
        shutil.rmtree(self._folder)
        Path(self._folder).mkdir()
        self._begin()
        return wrong

    def close(self) -> None:
        self._channel.send(None)
        self._process.join()


def mutations(seed: int) -> Iterator[Mutation]:
    """Mutations without end, of all formats in turn."""
    while True:
        yield from (Mutation(name, seed) for name in FORMATS)
        seed += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first mutation of every format")
    parser.add_argument("--format", choices=FORMATS, help="mutate this one alone")
    options = parser.parse_args()
    end, count, found = time.monotonic() + 60 * options.minutes, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(folder)
        for mutation in mutations(options.seed):
            if options.format not in (None, mutation.name):
                continue
            if time.monotonic() > end:
                break
            wrong, count = worker.ask(mutation), count + 1
            if wrong:
                found += 1
                print(f"{mutation.name} {mutation.seed}: {wrong}", flush=True)
        worker.close()
    print(f"{count} mutations of {len(FORMATS)} formats, the last with seed {mutation.seed}: {found} of them failed")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())

"""How long the page of `foveate view` waits for a tile: a pyramid of a gigapixel, and a JPEG without levels.

Tiles of all levels finer than a single tile are asked for at random, none twice: from the image one at a time, then
several at a time, as a browser does; then from the attention map. The model is the preset `smoke`'s, untrained. Server
and client share the machine.

    python benchmarks/view_tiles.py [--tiles 400] [--side 31744] [--file slide.svs ...]
"""

import argparse
import http.client
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from foveate.config.files import preset
from foveate.images import open_image
from foveate.models import Model, build_model
from foveate.predict import find_rows
from foveate.view import Gallery, Pyramid, ViewServer

AT_ONCE = 6
"""Requests that a browser has under way to one server."""

FLAT_SIDE = 8_000
"""Height and width of the JPEG."""


def main() -> None:
    """Write the files, serve each, ask for its tiles, print a line a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=400, help="image tiles one at a time; as many several at a time")
    parser.add_argument("--side", type=int, default=31_744, help="of the pyramid: 31,744 make a gigapixel")
    parser.add_argument("--file", type=Path, nargs="*", default=[], help="to serve instead of the two made for it")
    arguments = parser.parse_args()
    model = build_model(preset("smoke").model, ("a", "b"), channels=3).eval()
    print(
        "file | megapixels | look, s | first tile, ms | tile, ms: median, 95 %, most | several at a time, tiles/s | map"
    )
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.file or _files(Path(folder), arguments.side):
            print(_line(model, path, arguments.tiles), flush=True)


def _files(folder: Path, side: int) -> Iterator[Path]:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from giants import levels_of, write_stored

    yield write_stored(folder / "pyramid.tif", side, levels=levels_of(side))
    coarse = np.random.default_rng(0).integers(0, 256, (FLAT_SIDE // 8, FLAT_SIDE // 8, 3), dtype=np.uint8)
    Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(folder / "flat.jpg", quality=90)
    yield folder / "flat.jpg"


@contextmanager
def _served(model: Model, path: Path) -> Iterator[ViewServer]:
    with ViewServer(Gallery(model, find_rows([path]))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _line(model: Model, path: Path, count: int) -> str:
    size = open_image(path).size
    tiles = _some_tiles(Pyramid(size), 2 * count)
    alone, together = tiles[: len(tiles) // 2], tiles[len(tiles) // 2 :]
    with _served(model, path) as server:

        def milliseconds(address: str) -> float:
            return 1e3 * _seconds(server.server_port, address)

        look = _seconds(server.server_port, "/images/0.json")
        spent = [milliseconds(f"/images/0_files/{tile}.jpeg") for tile in alone]
        started = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(milliseconds, [f"/images/0_files/{tile}.jpeg" for tile in together]))
        rate = len(together) / (time.perf_counter() - started)
        overlay = [milliseconds(f"/images/0_map/{tile}.png") for tile in alone]
    first, rest = spent[0], spent[1:]
    return (
        f"{path.name} | {size[0] * size[1] / 1e6:.0f} | {look:.2f} | {first:.0f} | {statistics.median(rest):.1f}, "
        f"{_late(rest):.1f}, {max(rest):.0f} | {rate:.0f} | {statistics.median(overlay):.1f}, {_late(overlay):.1f}"
    )


def _some_tiles(pyramid: Pyramid, count: int) -> list[str]:
    random = np.random.default_rng(0)
    found: dict[str, None] = {}
    levels = range(min(pyramid.first + 1, pyramid.last), pyramid.last + 1)
    most = sum(rows * columns for rows, columns in (pyramid.grid(level) for level in levels))
    while len(found) < min(count, most):
        level = int(random.choice(levels))
        rows, columns = pyramid.grid(level)
        found[f"{level}/{int(random.integers(columns))}_{int(random.integers(rows))}"] = None
    return list(found)


def _seconds(port: int, address: str) -> float:
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("GET", address)
        reply = connection.getresponse()
        content = reply.read()
    finally:
        connection.close()
    if reply.status != 200 or not content:
        raise SystemExit(f"{address}: {reply.status} {reply.reason}")
    return time.perf_counter() - started


def _late(values: Sequence[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


if __name__ == "__main__":
    main()

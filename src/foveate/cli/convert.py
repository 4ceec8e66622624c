"""`foveate convert SRC DST`: any image as a tiled pyramid, which is read in parts."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foveate.errors import ConfigError, Interrupted

SUMMARY = "make a tiled pyramid of an image, of which only what is looked at is read"

EPILOG = """\
examples:
  foveate convert scan.png scan.tif                           BigTIFF, tiles of 256×256, JPEG of quality 90 for RGB
  foveate convert scene.tif lossless.tif --compression zstd   or deflate, lzw, none: level 0 equals the source
  foveate convert slide.svs slide.zarr                        OME-Zarr 0.4; --format ome-zarr-0.5 for the newer one
  foveate convert photo.jpg photo.tif --mpp 0.25              and says how many microns a pixel is

Without --compression, 8-bit grey and RGB become JPEG, and everything else is kept without loss. Each level is the 2×2
average of the one above. The image is read once, in strips: memory grows with its width only. JPEG and PNG are streamed
so by libvips (foveate[vips]), whatever their size; what has to be decoded whole (progressive, interlaced) is refused
above 268 megapixels. Microns per pixel, bands, nodata, masks (in TIFF) and georeference are kept. DST appears whole or
not at all.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `foveate convert` takes."""
    parser.add_argument("source", metavar="SRC", help="an image, or its address")
    parser.add_argument("destination", metavar="DST", type=Path, help="file to write, or folder named ….zarr")
    parser.add_argument("--tile", type=int, default=256, metavar="N", help="height and width of tiles (default: 256)")
    parser.add_argument("--compression", metavar="NAME", help="jpeg, deflate, zstd, lzw or none (default: see below)")
    parser.add_argument("--quality", type=int, default=90, metavar="N", help="of JPEG, 1 to 100 (default: 90)")
    parser.add_argument("--format", metavar="NAME", help="tiff, ome-zarr or ome-zarr-0.5 (default: by DST's name)")
    parser.add_argument("--mpp", type=float, metavar="X", help="microns per pixel (default: as the image says)")
    parser.add_argument("--overwrite", action="store_true", help="replace an image that is there already")


def run(arguments: argparse.Namespace) -> int:
    """Convert, with a bar on a terminal, and say what was written."""
    if arguments.mpp is not None and not 0 < arguments.mpp < float("inf"):
        raise ConfigError(f"--mpp must be above 0 microns per pixel, got {arguments.mpp}: give e.g. 0.25")
    from foveate.convert import Conversion, convert, open_stream
    from foveate.images import open_image
    from foveate.images.describe import describe

    destination: Path = arguments.destination
    settings = Conversion(arguments.tile, arguments.compression, arguments.quality, arguments.format)
    source = open_stream(arguments.source, arguments.mpp)
    with _stopped_by_sigterm(destination), _bar() as progress:
        convert(source, destination, settings, arguments.overwrite, progress)
    told = describe(open_image(destination))
    levels = " → ".join(f"{level['size'][0]}×{level['size'][1]}" for level in told["levels"])
    print(f"{destination}: {told['format']}, {levels}, {told['bytes'] / 1e6:.4g} MB")
    return 0


@contextmanager
def _stopped_by_sigterm(destination: Path) -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does."""

    def stop(number: int, _frame: Any) -> None:
        raise Interrupted(f"stopped by SIGTERM, {destination} is as it was", number)

    if threading.current_thread() is not threading.main_thread():  # elsewhere Python refuses handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("converting")
        yield lambda done, total: bar.update(task, completed=done, total=total)

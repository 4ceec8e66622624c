"""Conversion of one image to one file, which is whole or not there."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from foveate.atomic import whole_file, whole_folder
from foveate.convert.pyramid import Strip, level_sizes, strips
from foveate.convert.settings import Conversion
from foveate.convert.tiff import write_tiff
from foveate.convert.zarr import write_zarr
from foveate.errors import ConfigError, ImageError, TooLarge, one_line
from foveate.images.formats.library import installed
from foveate.images.formats.pillow import PillowSource
from foveate.images.formats.tiff.source import TiffSource
from foveate.images.formats.vips import STREAMED, WHOLE_PIXELS, VipsStream
from foveate.images.formats.zarr import is_zarr
from foveate.images.open import open_image, placed
from foveate.images.source import Source
from foveate.threads import reading_threads
from foveate.types import Box

REMEDIES = {
    errno.EACCES: "change its permissions or write elsewhere",
    errno.EPERM: "change its permissions or write elsewhere",
}


STREAM_FROM = 2**23
"""Pixels from which on an image is streamed; smaller ones are decoded whole sooner."""


def convert(
    source: Source,
    destination: Path | str,
    settings: Conversion | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Path:
    """Conversion to a tiled pyramid: each level the exact 2×2 area average of the one above.

    The source is read once, in strips; memory grows with its width only: large JPEG and PNG files are streamed by
    libvips (`open_stream`), other images that cannot be read in parts are decoded whole. What is written
    appears whole under its name, or not at all.

    Arguments:
        source: any image; bool becomes 0 and 255.
        destination: file or folder to write; folders on the way are made.
        settings: how; the defaults if None.
        overwrite: whether an image that is there already is replaced.
        progress: called with rows done and rows in all.
        threads: with which the source is read; None for `foveate.threads.reading_threads()`.

    Returns:
        The destination.

    Raises:
        ConfigError: if the settings are impossible, or something is in the way.
        ImageError: if the source cannot be read or the destination not written.
        WriteError: if its disk is full.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from foveate.images import ArraySource
        >>> folder = Path(tempfile.mkdtemp())
        >>> convert(ArraySource(np.zeros((300, 500, 3), np.uint8)), folder / "a.tif").stat().st_size > 1000
        True
    """
    source, destination = open_stream(source), Path(destination)
    settings = (settings or Conversion()).resolved(source.header, destination)
    _check_free(source, destination, overwrite)
    watched = _watched(source, settings.tile, reading_threads() if threads is None else threads, progress)
    try:
        if settings.format == "tiff":
            with whole_file(destination, over_folder=True) as beside:
                write_tiff(beside, source, settings, watched)
        else:
            with whole_folder(destination) as beside:
                write_zarr(beside, source, settings, watched)
    except OSError as error:
        raise ImageError(
            f"{destination}: cannot be written ({error.strerror or one_line(error)}): "
            f"{REMEDIES.get(error.errno or 0, 'check the path')}"
        ) from error
    return destination


def open_stream(image: str | Path | Source, mpp: float | None = None) -> Source:
    """Image source to be read once, from its top row down, in the memory of some rows, though it is decoded whole.

    Arguments:
        image: as for `foveate.open_image`; of sources only those of local files change.
        mpp: microns per pixel at full resolution; overrides what the file says.

    Returns:
        The same pixels as `open_image` gives; of JPEG and PNG, and of TIFF in one strip, streamed by libvips. JPEG and
        PNG may have more pixels than others can be decoded whole.

    Raises:
        ImageError: if the file is missing or cannot be read, or can only be decoded whole and is too large for it.
    """
    name = image.name if isinstance(image, Source) else str(image)
    try:
        source = open_image(image, mpp)
    except TooLarge:
        if not (installed("pyvips") and _is_picture(name)):
            raise
        stream = VipsStream(name, mpp)
        _ = stream.header
        return placed(stream)
    return _streamed(source) if Path(name).is_file() else source


def _streamed(source: Source) -> Source:
    """A stream of what can only be decoded whole, if it is large and can be streamed."""
    picture = type(source) is PillowSource and _is_picture(source.name)
    strip = type(source) is TiffSource and source.header.tile is None and not source.may_miss
    pixels = source.size[0] * source.size[1]
    if not (picture or strip) or pixels < STREAM_FROM:
        return source
    if not installed("pyvips"):
        if pixels > WHOLE_PIXELS:
            raise ImageError(
                f"{source.name}: {source.size[0]}×{source.size[1]} pixels are streamed by libvips, which is not "
                "installed: pip install 'foveate[vips]'"
            )
        return source
    stream = VipsStream(source.name, None if source.mpp == source.header.mpp else source.mpp)
    try:
        same = (stream.size, stream.channels, stream.dtype) == (source.size, source.channels, source.dtype)
        stream.read(Box(0, 0, 1, 1))
    except ImageError:  # of a TIFF, a kind or a compression that libvips does not know, or a tag that it warns of
        if picture:
            raise
        return source
    stream.tell(**{name: fact for name, fact in vars(source.header).items() if name != "levels"})
    return stream if same else source


def _is_picture(name: str) -> bool:
    """Whether a file is JPEG or PNG."""
    try:
        with Path(name).open("rb") as file:
            return file.read(3) in STREAMED
    except OSError:  # whoever opens it says so
        return False


def _watched(source: Source, tile: int, threads: int, progress: Callable[[int, int], None] | None) -> Iterator[Strip]:
    total = sum(height for height, _ in level_sizes(source.size, tile))
    done = 0
    for strip in strips(source, tile, threads):
        yield strip
        done += len(strip[2])
        if progress is not None:
            progress(done, total)


def _check_free(source: Source, destination: Path, overwrite: bool) -> None:
    if not os.path.lexists(destination):
        return
    if source.name and Path(source.name).exists() and destination.exists() and destination.samefile(source.name):
        raise ConfigError(f"{destination} is the image that is to be converted: give another name")
    if destination.is_dir() and not is_zarr(destination):
        raise ConfigError(f"{destination} is a folder, and no OME-Zarr that could be replaced: give another name")
    if not overwrite:
        raise ConfigError(f"{destination} is there already: give another name, or --overwrite to replace it")

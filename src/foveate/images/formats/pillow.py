"""Pillow reader: JPEG, PNG and other files that are decoded whole."""

import math
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from foveate.cache import DECODED
from foveate.disk_cache import DiskCache
from foveate.errors import ImageError, TooLarge, one_line
from foveate.images.area import Bins, Region
from foveate.images.formats.arrays import ArrayFile
from foveate.images.formats.decoders import DeepColour, deep_colour, deep_pixels, quick_jpeg
from foveate.images.formats.library import over_black
from foveate.images.formats.vips import remedy
from foveate.images.header import CacheKey, Header, Pixels, full_scale, unseen, without
from foveate.images.io.local import UNREADABLE, LocalFile, changed, file_stamp, not_readable
from foveate.images.io.open import Download, ZipMember
from foveate.images.orientation import ORIENTATION_TAG, Orientation
from foveate.images.source import Known, Source
from foveate.images.view import Averages, known_average
from foveate.types import Box, Level, Size

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000")
"""Formats tried, in this order, by content; Pillow's others are rare, or guess."""

MAX_PIXELS = 2**30
"""Images with more pixels are refused: decoding takes them into memory whole, RGB in about 10 bytes a pixel."""

PIXELS, SEEN_THROUGH = "decoded", "decoded, transparent"
"""What a decoded image is kept as, and one of a file in which pixels may be transparent."""

BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
"""What Pillow raises on files of too many pixels; the warning where warnings are errors."""

BROKEN = (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error, *BOMBS)
"""What Pillow raises on files that are not what they say."""


class PillowSource(Source):
    """Pillow image file, laid down as its EXIF orientation says.

    These formats cannot be read in parts: the first `read` decodes the whole image and keeps the pixels in a cache
    that all sources of the process share (`foveate.cache.DECODED`); the least recently used are dropped, and decoded
    again if needed. `close` drops them, pickling leaves them behind. Views are exact area averages of the same pixels:
    a view and the patches after it take one decode.

    Pixels are grey or RGB: palettes and CMYK become RGB, 1-bit images 0 and 255; 16 bits stay 16 bits, in colours as
    in grey (PNG, JPEG 2000, PPM). Transparency is laid over black, which is also what lies outside the image; pixels
    that are wholly transparent are missing data.

    Arguments:
        path: the file, a member of a zip archive or a file to download; its name says nothing, its content decides.
        mpp: microns per pixel, if known.

    Attributes:
        disk: where what is decoded is kept and, from then on, read in parts instead of being held in memory; None
            keeps it in memory alone. What is read there does not count.
    """

    _reads_file = True
    _left_behind = (*Source._left_behind, "_stamp")
    _stamp: tuple[object, ...] | None = None
    disk: DiskCache | None = None

    def __init__(self, path: Path | str | ZipMember | Download, mpp: float | None = None) -> None:
        super().__init__(str(path), mpp)
        self._path = path if isinstance(path, ZipMember | Download) else Path(path)
        self._orientation = Orientation()
        self._stored_size: Size = (0, 0)
        self._filed = self._transparent = False

    @property
    def threaded(self) -> bool:
        """Whether there is something to decode; copying decoded pixels in threads is slower."""
        return not self._filed and (self._owner is None or not self._owner.holds(self._kept_as))

    @property
    def upright(self) -> bool:
        """Whether the image is laid down as it is stored."""
        _ = self.header
        return self._orientation == Orientation()

    @property
    def file_bytes(self) -> int | None:
        """Length of the file; None of a member of an archive."""
        return self._path.file.size if isinstance(self._path, Download) else super().file_bytes

    def cache_key(self) -> CacheKey | None:
        """Cache key: the file as it was when opened; one that has changed since is not decoded."""
        stamp = self._stamp or self._now()
        return None if stamp is None else ("PillowSource", stamp)

    def _now(self) -> tuple[object, ...] | None:
        return file_stamp(self._path) if isinstance(self._path, Path) else self._path.stamp

    def _check(self) -> None:
        now = self._now()
        if self._stamp not in (None, now):
            raise changed(self.name)
        self._stamp = now

    def _measure(self) -> Header:
        try:
            with _OUR_LIMIT(), self._path.open("rb") as stream, _probe(stream, self.name) as image:
                height, width = _decoded_size(image)
                if width * height > MAX_PIXELS:
                    raise self._too_large(f"{height}×{width}")
                deep = deep_colour(image, stream)
                channels, dtype = _values(image, self.name, deep)
                self._transparent = self.told_by_pixels = deep.opacity if deep else _may_be_seen_through(image)
                self._orientation = Orientation.tagged(_orientation_tag(image))
            self._check()
        except BROKEN as error:
            raise self._broken(error) from error
        self._stored_size = (height, width)
        size = self._orientation.size((height, width))
        return Header((Level(size, (1.0, 1.0)),), channels, dtype, masked="opacity" if self._transparent else "")

    def _read(self, box: Box, level: int) -> Shaped[np.ndarray, "height width *channel"]:
        return self._fetch_many([box], level, 1)[0]

    def _fetch_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Pixels]:  # noqa: ARG002
        return [part[:, :, : self.channels].copy() for part in map(self._part, boxes)]

    def _known_many(self, boxes: Sequence[Box], level: int, threads: int) -> Sequence[Known]:  # noqa: ARG002
        parts, channels = map(self._part, boxes), self.channels
        return [without(part[:, :, :channels].copy(), unseen(part[:, :, channels:])) for part in parts]

    def _part(self, box: Box) -> Pixels:
        """A box of the image as it is laid down, with its opacity, where there is any."""
        return self._orientation.apply(self._stored(self._orientation.box_before(box, self._stored_size)))

    def _stored(self, box: Box) -> Pixels:
        """A box of the image as it is stored, which nobody may write to."""
        held = self._decoded()
        if isinstance(held, ArrayFile):
            try:
                return held.read(box)
            except ImageError:  # somebody cut it, or needed the room
                assert self.disk is not None
                self.disk.forget((self._kept_as, self.cache_key()))
                held = self._owned(DECODED).get(self._kept_as, self._decode)
        return held[box.top : box.bottom, box.left : box.right]

    def _may_miss(self, level: int) -> bool:  # noqa: ARG002
        _ = self.header
        return self._transparent

    def prefetch(self) -> None:
        """Decode the image, unless its pixels are held."""
        self.read(Box(0, 0, 1, 1))

    def average_of(self, size: Size, region: Region, window: Box) -> Averages:
        """Area average of the image, decoded whole; see the class."""
        turn, stored, wanted = self._orientation, self._stored_size, (size, region, window)
        region, window = turn.region_before(region, stored), turn.box_before(window, stored)
        channels = self.channels
        rows, columns = Bins.both(turn.size(size), region, window)
        west, east = columns.extent()

        def strip(start: int, stop: int) -> Known:
            part = self._stored(Box(start, west, stop - start, east - west))
            return part[:, :, :channels], unseen(part[:, :, channels:])

        sums, lost = known_average(strip, rows, columns, channels)
        return turn.apply(sums) / full_scale(self.dtype), self._share(
            None if lost is None else turn.apply(lost), *wanted
        )

    @property
    def _kept_as(self) -> str:
        return SEEN_THROUGH if self._transparent else PIXELS

    def _decoded(self) -> ArrayFile | Shaped[np.ndarray, "rows columns channel"]:
        """The image as it is stored and, if any of its pixels is wholly transparent, its opacity."""
        owner, identity, name = self._owned(DECODED), None if self.disk is None else self.cache_key(), self._kept_as
        if self.disk is None or identity is None or owner.holds(name):
            return owner.get(name, self._decode)
        held = self.disk.open_or_make(
            (name, identity),
            lambda path: ArrayFile(LocalFile(path, dated=False)),  # use is noted by its date
            self._decode,
            lambda: self._now() == self._stamp,  # else it is not of the file it was to be of
            owner,
            name,
            math.prod(self._stored_size) * (self.channels + self._transparent) * self.dtype.itemsize,
        )
        self._filed = self._filed or isinstance(held, ArrayFile)
        return held

    def _decode(self) -> Shaped[np.ndarray, "rows columns channel"]:
        """Decode the image as it is stored."""
        height, width = self._stored_size
        try:
            self._check()
            with _OUR_LIMIT(), self._path.open("rb") as stream, _probe(stream, self.name) as image:
                if _decoded_size(image) != self._stored_size:
                    raise ValueError(f"it was {height}×{width} when first opened")
                pixels = quick_jpeg(image, stream)
                pixels = _pixels(image, stream, self.name) if pixels is None else pixels
            self._check()
            with self._lock:  # a download is counted once, by whichever thread decodes it first
                self._count(self._path.stat().st_size if isinstance(self._path, Path) else self._path.stored_bytes())
        except BROKEN as error:
            raise self._broken(error) from error
        return pixels

    def _too_large(self, pixels: str) -> TooLarge:
        return TooLarge(
            f"{self.name}: {pixels} pixels are more than the {MAX_PIXELS} that can be decoded whole: "
            + remedy(self._path)
        )

    def _broken(self, error: BaseException) -> ImageError:
        if isinstance(error, BOMBS):
            counted = re.search(r"[0-9]+", str(error))
            return self._too_large(counted.group() if counted else "its")
        if isinstance(error, UNREADABLE):
            return not_readable(self.name, error)
        return ImageError(
            f"{self.name}: broken image, or of a kind not supported here ({one_line(error)}): "
            "export it again, e.g. as PNG, or leave it out"
        )


class _PixelLimit:
    """Puts `MAX_PIXELS` in the place of Pillow's own limit while any thread is in Pillow, and then puts it back.

    Pillow warns of, or refuses, images far smaller than ours when it opens (WebP, GIF) or decodes (TIFF) them, and its
    limit can be set for the whole process only.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._theirs: int | None = None
        self._lock = threading.RLock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    Image.MAX_IMAGE_PIXELS = self._theirs


_OUR_LIMIT = _PixelLimit()


def _probe(stream: IO[bytes] | BytesIO, name: str) -> Image.Image:
    """Open an image by its first bytes; `Image.open` would warn or raise by its own, global, limit on size."""
    prefix = stream.read(16)
    Image.init()
    for format_ in FORMATS:
        if format_ not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[format_]
        if accept is not None and accept(prefix) is True:
            stream.seek(0)
            return factory(stream, "")
    raise ImageError(
        f"{name}: not an image that can be read here: give one of {', '.join(FORMATS)}, or a canvas file (.npz)"
    )


def _decoded_size(image: Image.Image) -> Size:
    """(height, width) of what decoding gives, from the header alone."""
    if isinstance(image, TiffImageFile):
        # decoding lays it down as its tag or its XMP says; `size` tells so beforehand for the tag only
        columns, rows = image.tag_v2[256], image.tag_v2[257]
        return Orientation.tagged(image.getexif().get(ORIENTATION_TAG, 1)).size((rows, columns))
    return image.size[1], image.size[0]


def _orientation_tag(image: Image.Image) -> int:
    if isinstance(image, TiffImageFile):
        return 1  # Pillow applies the tag itself, in these files only
    # asking a PNG without EXIF in its header for EXIF would decode all of it, to see whether some follows the pixels
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(ORIENTATION_TAG, 1))


def _values(image: Image.Image, name: str, deep: DeepColour | None) -> tuple[int, np.dtype[Any]]:
    """Channels and type of what `_pixels` makes of an image, from its header alone."""
    if deep is not None:
        return deep.channels, np.dtype(np.uint16)
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        if image.mode == "I" and image.format not in ("PNG", "PPM"):
            raise ImageError(f"{name}: 32-bit integers have no known range: convert it to 8 or 16 bits or to float")
        return 1, np.dtype(np.uint16)
    if image.mode == "F":
        return 1, np.dtype(np.float32)
    grey = image.mode in ("1", "L", "LA", "La")
    return 1 if grey else 3, np.dtype(np.uint8)


def _may_be_seen_through(image: Image.Image) -> bool:
    """Whether pixels may be transparent, from the header alone."""
    return image.mode in ("LA", "RGBA", "PA", "RGBa", "La") or "transparency" in image.info


def _pixels(image: Image.Image, stream: IO[bytes] | BytesIO, name: str) -> Shaped[np.ndarray, "rows columns channel"]:
    """Pixels and, if any of them is wholly transparent, their opacity."""
    deep = deep_colour(image, stream)
    channels, dtype = _values(image, name, deep)
    if deep is not None:
        both = deep_pixels(deep, image, stream)
        return _laid(both, over_black(both)) if deep.opacity else both
    if dtype != np.uint8:
        values, clear = np.asarray(image).astype(dtype, copy=False)[:, :, None], image.info.get("transparency")
        marked = isinstance(clear, int) and bool((values == clear).any())
        return np.concatenate([values * (values != clear), values != clear], 2, dtype=dtype) if marked else values
    if _may_be_seen_through(image):
        laid = image.mode in ("RGBa", "La")  # over black already
        both = np.asarray(image if laid else image.convert("LA" if channels == 1 else "RGBA"))
        return _laid(both, both[:, :, :-1] if laid else over_black(both))
    mode = "L" if channels == 1 else "RGB"
    plain = image if image.mode == mode else image.convert(mode)
    pixels = np.asarray(plain)  # decodes; only now is the size that of a turned TIFF
    return pixels.reshape(*pixels.shape[:2], channels)


def _laid(
    both: Shaped[np.ndarray, "rows columns _"], pixels: Shaped[np.ndarray, "rows columns channel"]
) -> Shaped[np.ndarray, "rows columns _"]:
    """Pixels over black and, if any of them is wholly transparent, the opacity, which is the last of both."""
    opacity = both[:, :, -1:]
    return pixels if opacity.all() else np.concatenate([pixels, opacity], axis=2)

"""libvips reader: images of many formats, in parts where the format allows it."""

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from foveate.errors import ImageError
from foveate.images.formats.library import (
    LIBRARY_HANDLES,
    LibraryFile,
    installed,
    levels_of,
    library,
    matches,
    over_black,
    where,
)
from foveate.images.header import Header, Pixels, kept_type, unseen, without
from foveate.images.orientation import Orientation
from foveate.images.scale import described_mpp, mean_side, resolution_mpp
from foveate.images.source import Known
from foveate.types import Box, Size

TYPES = {
    "uchar": np.uint8,
    "char": np.int8,
    "ushort": np.uint16,
    "short": np.int16,
    "uint": np.uint32,
    "int": np.int32,
    "float": np.float32,
    "double": np.float64,
}
"""libvips's names of number types."""

AS_STORED = {"srgb", "rgb", "rgb16", "scrgb", "b-w", "grey16", "multiband", "matrix", "histogram", "error"}
"""Colour spaces whose values are kept; CMYK, Lab and the like become sRGB."""

WHOLE_PIXELS = 2**28
"""Pixels that are decoded whole to convert an image: about 1 GB of a PNG, 2 GB of a JPEG."""

STREAMED = (b"\xff\xd8\xff", b"\x89PN")
"""How files begin that are decoded row by row: JPEG, PNG."""

MAPPING = ("", "ppm", "analyze")
"""Loaders that map a file into memory, "" that of libvips's own format: whoever cuts the file ends the process."""

PAGES = 32
"""Pages of a file looked at for smaller versions of the first."""


class VipsSource(LibraryFile):
    """libvips image: TIFF, JPEG 2000, HEIF, SVG and whatever else its build knows.

    Tiled files are read in parts. Formats that cannot be (JPEG, PNG, WebP, HEIF) are decoded whole when the first
    pixel is read, by libvips, into memory or, when large, a temporary file; they are decoded again whenever the file is
    opened again. Pages and sub-images of a TIFF that show the first page smaller become levels.

    Values are kept, also of many bands; CMYK, Lab and the like become sRGB; integers other than uint8 and uint16
    become floating point. Images are laid down as their EXIF orientation says. Transparency is laid over black, and
    what is wholly transparent is missing data, but extra bands of a TIFF are kept, for they may be anything.
    `bytes_read` counts the bytes of the pixels decoded.

    libvips runs threads of its own: processes that read with it should be spawned, not forked.

    Reference: https://www.libvips.org/API/current/ (vips_region_fetch).

    Arguments:
        path: the file.
        mpp: microns per pixel at full resolution; overrides what the file says.
    """

    told_by_pixels = True
    _remedy = "export it again, e.g. as a tiled TIFF, or leave it out"
    _access = "random"

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(path, mpp)
        self._options: tuple[dict[str, int], ...] = ({},)
        self._orientation = Orientation()
        self._transparent = False

    @property
    def upright(self) -> bool:
        """Whether the image is laid down as it is stored."""
        _ = self.header
        return self._orientation == Orientation()

    def _handle(self, level: int) -> Any:
        return self._image(self._options[level])

    def _image(self, options: dict[str, int]) -> Any:
        image = self._load(options)
        return image if image.interpretation in AS_STORED else image.colourspace("srgb")

    def _load(self, options: dict[str, int]) -> Any:
        pyvips = library("pyvips", self.name)
        with self._path.open("rb") as stream:
            tiff = stream.read(2) in (b"II", b"MM")
        # a tile of a TIFF that cannot be decoded is but a warning, and black; a JPEG has warnings that mean nothing
        fail_on = "warning" if tiff else "error"
        more = {"unlimited": True} if tiff and self._access == "sequential" else {}  # a strip may be large
        return pyvips.Image.new_from_file(
            str(self._path), access=self._access, fail_on=fail_on, revalidate=True, **more, **options
        )

    def _measure(self) -> Header:
        with self._using(0, "") as image:
            if image.format not in TYPES:
                raise ImageError(
                    f"{self.name}: pixels must be integers or floating point, got {image.format}: convert it first"
                )
            loader = str(_field(image, "vips-loader") or "")
            if loader.removesuffix("_source").removesuffix("load") in MAPPING:
                raise ImageError(
                    f"{self.name}: libvips maps files of this kind into memory, where one that changes can end the "
                    "process: convert it, e.g. with vips copy IN OUT.tif"
                )
            self._orientation = Orientation.tagged(int(_field(image, "orientation") or 1))
            self._transparent = not loader.startswith("tiff") and (image.bands, image.interpretation) in {
                (2, "b-w"), (2, "grey16"), (4, "srgb"), (4, "rgb16"), (4, "scrgb")
            }  # fmt: skip
            found: dict[Size, dict[str, int]] = {}
            for options in _smaller(image, loader):
                smaller = self._image(options)
                if matches(_size(image), _size(smaller)) and _kind(smaller) == _kind(image):
                    found.setdefault(_size(smaller), options)
            sizes = [_size(image), *sorted(found, reverse=True)]
            tile = tuple(int(_field(image, f"tile-{side}") or 0) for side in ("height", "width"))
            sides = described_mpp(str(_field(image, "image-description") or ""))
            if sides is None and _field(image, "resolution-unit") == "cm" and min(image.xres, image.yres) > 0:
                sides = resolution_mpp(1000 / image.yres, 1000 / image.xres)
            stored = np.dtype(TYPES[image.format])
            bands = image.bands - self._transparent
        self._options = ({}, *(found[size] for size in sizes[1:]))
        dtype = kept_type(stored, self.name)
        note = "" if dtype == stored else f", {stored} as {dtype}"
        return Header(
            levels_of([self._orientation.size(size) for size in sizes]),
            bands,
            dtype,
            f"libvips, {loader.removesuffix('_source').removesuffix('load') or 'unknown format'}{note}",
            mean_side(sides),
            self._orientation.size((tile[0], tile[1])) if all(tile) else None,
            pixel=None if sides is None else self._orientation.sides(sides),
            masked="opacity" if self._transparent else "",
        )

    def _read(self, box: Box, level: int) -> Pixels:
        return self._laid_down(self._stored(box, level))

    def _fetch_known(self, box: Box, level: int) -> Known:
        if not self._may_miss(level):
            return super()._fetch_known(box, level)
        self._ready()
        stored = self._stored(box, level)
        pixels, opacity = self._laid_down(stored), self._orientation.apply(stored)[:, :, -1:]
        self._count(pixels.nbytes)
        return without(pixels, unseen(opacity))

    def _may_miss(self, level: int) -> bool:  # noqa: ARG002
        _ = self.header
        return self._transparent

    def _stored(self, box: Box, level: int) -> Shaped[np.ndarray, "_ _ band"]:
        turn = self._orientation
        stored = turn.box_before(box, turn.size(self.levels[level].size))
        with self._using(level, where(box, level)) as image:
            region = library("pyvips", self.name).Region.new(image)  # of this thread: the image is all threads'
            data = region.fetch(stored.left, stored.top, stored.width, stored.height)
        return np.frombuffer(data, TYPES[image.format]).reshape(*stored.size, image.bands)

    def _laid_down(self, stored: Shaped[np.ndarray, "_ _ _"]) -> Pixels:
        pixels = over_black(stored) if self._transparent else stored
        result: np.ndarray = self._orientation.apply(pixels).astype(self.dtype, copy=False)
        return result


class VipsStream(VipsSource):
    """Stream of a JPEG, PNG or TIFF, decoded by libvips as it is read from its top row down, in memory of some rows.

    Values are those of `PillowSource` and `TiffSource`, to the bit. An image that its orientation turns is decoded to
    a temporary file, one that is progressive or interlaced into memory. Reading rows above those read last begins anew.
    """

    def __init__(self, path: Path | str, mpp: float | None = None) -> None:
        super().__init__(path, mpp)
        self._next = 0

    def _image(self, options: dict[str, int]) -> Any:
        return self._load(options)

    def _measure(self) -> Header:
        self._access = "sequential"
        header = super()._measure()
        with self._using(0, "") as image:
            interlaced, pixels = bool(_field(image, "interlaced")), image.width * image.height
            cmyk = image.interpretation == "cmyk"
        if interlaced and pixels > WHOLE_PIXELS:
            height, width = header.levels[0].size
            raise ImageError(
                f"{self.name}: {height}×{width} pixels, interlaced or progressive, "
                f"have to be decoded whole, and more than {WHOLE_PIXELS} are not: export it again without interlacing "
                "(PNG) or as baseline JPEG, or as a tiled TIFF"
            )
        if self._orientation not in (Orientation.tagged(1), Orientation.tagged(2)):
            self._access = "random"
        self.close()  # what was opened to look at it has its first rows decoded
        return replace(header, channels=3 if cmyk else header.channels, mpp=None, tile=None)

    def _key(self) -> Hashable:
        return super()._key(), id(self)  # of a stream at its row nobody else makes use

    def _stored(self, box: Box, level: int) -> Shaped[np.ndarray, "_ _ band"]:
        with self._lock:
            if box.top < self._next and self._access == "sequential":
                LIBRARY_HANDLES.drop(self._key())
            self._next = box.bottom
            return super()._stored(box, level)

    def _laid_down(self, stored: Shaped[np.ndarray, "_ _ _"]) -> Pixels:
        if stored.shape[2] == 4 and not self._transparent:
            stored = np.asarray(Image.fromarray(np.ascontiguousarray(stored), "CMYK").convert("RGB"))
        return super()._laid_down(stored)


def remedy(file: object, streamed: bool = False) -> str:
    """Remedy for an image that is too large to be decoded whole: the command that converts it, if there is one.

    Arguments:
        file: of the image; a path, or something else of images that are not here.
        streamed: whether libvips streams it, though it is neither JPEG nor PNG.
    """
    if isinstance(file, Path):
        with file.open("rb") as stream:
            if streamed or stream.read(3) in STREAMED:
                lazy = file.with_suffix(".lazy.tif" if file.suffix.lower() == ".tif" else ".tif")
                return f"make it lazy by foveate convert {quote(str(file))} {quote(str(lazy))}"
    return "make it smaller, or cut it into several images"


def knows_format(loader: str) -> bool:
    """Whether libvips is here, and built with a loader, e.g. "jp2k"."""
    if not installed("pyvips"):
        return False
    return bool(library("pyvips", loader).type_find("VipsForeignLoad", f"{loader}load"))


def _field(image: Any, name: str) -> Any:
    return image.get(name) if image.get_typeof(name) else None


def _size(image: Any) -> Size:
    return image.height, image.width


def _kind(image: Any) -> tuple[int, str, str]:
    return image.bands, image.format, image.interpretation


def _smaller(image: Any, loader: str) -> list[dict[str, int]]:
    """Options that open what may be smaller versions of an image."""
    if not loader.startswith(("tiff", "jp2k")):
        return []
    subifds = int(_field(image, "n-subifds") or 0) if loader.startswith("tiff") else 0
    pages = min(PAGES, int(_field(image, "n-pages") or 1))
    return [{"subifd": number} for number in range(subifds)] + [{"page": number} for number in range(1, pages)]

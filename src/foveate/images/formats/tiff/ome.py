"""OME-XML of images in several TIFF files: which files there are, and which page of which shows a channel."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from xml.etree import ElementTree

from foveate.images.formats.tiff.directory import MOST_PAGES, first_directory
from foveate.images.io.local import ByteFile, stream

DESCRIPTION, MOST_TEXT = 270, 2**24
"""Tag of a TIFF that OME-XML stands in, and the most bytes of it that are read."""

FILE_NAME = re.compile(r"\bFileName\s*=\s*[\"']([^\"']+)")


@dataclass(frozen=True)
class OmeImage:
    """Image that OME-XML tells of.

    Attributes:
        text: the XML, of this file or of the one that holds it.
        files: names of its files, that of the first plane first.
        planes: how many there are, of all depths, times and channels.
        deep: whether there are several depths or times.
        channels: file and page of each, of the first depth and time; none if some is not told.
        names: of the channels; "" of one that has none.
    """

    text: str
    files: tuple[str, ...]
    planes: int
    deep: bool
    channels: tuple[tuple[str, int], ...]
    names: tuple[str, ...]


def ome_image(text: str, name: str, beside: Callable[[str], ByteFile]) -> OmeImage | None:
    """Image that a file is a part of, as OME-XML tells that names other files, too; None if this one does not.

    Source: "The OME-TIFF specification" (2016-06), TiffData, UUID and BinaryOnly.

    Arguments:
        text: the description of its first page.
        name: of the file, without a folder.
        beside: opens a file in its folder.

    Raises:
        ImageError: the file that holds the XML is missing, or broken.
    """
    if not is_of_several(text):
        return None
    try:
        root = _parsed(text)
        binary = next(_named(root, "BinaryOnly"), None)
        own = root.get("UUID")
        if binary is not None:
            text = _metadata(beside(companion_of(text)))
            root = _parsed(text)
        images = (_image(image, text, name, own) for image in _named(root, "Image"))
        return next((image for image in images if name in image.files), None)
    except (ElementTree.ParseError, ValueError):
        return None


def companion_of(text: str) -> str:
    """Name of the file that holds the OME-XML of one that has only pixels (BinaryOnly); "" of any other."""
    found = re.search(r"<(?:\w+:)?BinaryOnly\b[^>]*\bMetadataFile\s*=\s*[\"']([^\"']+)", text)
    return PurePath(found[1]).name if found else ""


def is_of_several(text: str) -> bool:
    """Whether a description names other files than its own, as of a file that is a part of a set."""
    return bool(companion_of(text)) or len(set(FILE_NAME.findall(text))) > 1


def description(file: ByteFile) -> str:
    """Description of the first page of a TIFF.

    Raises:
        ImageError: it cannot be read.
    """
    return first_directory(stream(file, 512), file.size, file.name, {DESCRIPTION: MOST_TEXT}).text(DESCRIPTION)


def _parsed(text: str) -> ElementTree.Element:
    if "<!DOCTYPE" in text:  # OME-XML has none; entities that grow as they are read need one
        raise ValueError("a document type")
    return ElementTree.fromstring(text)


def _metadata(file: ByteFile) -> str:
    """OME-XML of a companion, or of the one OME-TIFF of a set that has it."""
    first = file.read(0, min(file.size, MOST_TEXT))
    return description(file) if first[:2] in (b"II", b"MM") else first.decode()


def _image(image: ElementTree.Element, text: str, name: str, own: str | None) -> OmeImage:
    pixels = next(_named(image, "Pixels"), image)
    order = [axis for axis in pixels.get("DimensionOrder", "XYCZT") if axis in "CZT"]
    if sorted(order) != ["C", "T", "Z"]:
        raise ValueError(f"planes in the order {order}")
    sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in order}
    described = list(_named(pixels, "Channel"))
    sizes["C"] //= max([1, *(int(one.get("SamplesPerPixel", "1")) for one in described[:1])])
    if min(sizes.values()) < 1:
        raise ValueError(f"{sizes} planes")
    steps, planes = {}, 1
    for axis in order:
        steps[axis], planes = planes, planes * sizes[axis]
    runs = []
    for data in _named(pixels, "TiffData"):
        uuid = next(_named(data, "UUID"), None)
        alone = uuid is None or (own is not None and (uuid.text or "").strip() == own)
        file = name if alone or uuid is None else PurePath(uuid.get("FileName", name)).name
        first = {axis: int(data.get(f"First{axis}") or 0) for axis in order}
        count = data.get("PlaneCount") or data.get("NumPlanes") or ("1" if "IFD" in data.keys() else planes)  # noqa: SIM118
        begin = sum(first[axis] * steps[axis] for axis in order)
        runs.append((tuple(first[axis] for axis in "TZC"), file, begin, int(data.get("IFD") or 0), int(count)))
    files = tuple(dict.fromkeys(file for _, file, *_ in sorted(runs)))
    channels = []
    for number in range(sizes["C"] if sizes["C"] <= MOST_PAGES else 0):
        at = number * steps["C"]
        channels += [(file, page + at - begin) for _, file, begin, page, count in runs if 0 <= at - begin < count][:1]
    whole = len(channels) == sizes["C"] == len(set(channels))
    names = tuple(one.get("Name", "") for one in described)
    return OmeImage(text, files, planes, planes > sizes["C"], tuple(channels) if whole else (), names)


def _named(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements within one, of a name, whatever the namespace."""
    return (one for one in element.iter() if one.tag.rpartition("}")[2] == name)

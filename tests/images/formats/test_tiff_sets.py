"""OME-TIFF in several files: one image, with the channels of all, whichever file is named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from servers import FileServer
from tiffs import check_tiff, noise

from foveate.convert import Conversion, convert
from foveate.datasets.manifest.folders import image_files
from foveate.errors import Changed, ImageError
from foveate.images import open_image
from foveate.images.formats.tiff.ome import ome_image
from foveate.images.formats.tiff.source import TiffSource
from foveate.types import Box

NAMES = ("DAPI", "CD8 &amp; CD4", "PanCK")
BANDS = ("DAPI", "CD8 & CD4", "PanCK")
SCHEMA = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
Place = tuple[int, int]
"""Number of a file, and of a page in it."""


def planes(dtype: str = "uint16") -> np.ndarray:
    """(3, 107, 160) pixels, page after page."""
    return np.ascontiguousarray(np.moveaxis(noise(107, 160, 3, dtype), 2, 0))


def uuid(number: int) -> str:
    return f"urn:uuid:00000000-0000-0000-0000-{number:012}"


def told(
    places: Sequence[Place], names: Sequence[str], axis: str = "C", runs: bool = False, order: str = "XYCZT"
) -> str:
    """OME-XML of an image whose planes lie there; with `runs` one element tells of all planes in a file."""
    sizes = {"C": 1, "Z": 1, "T": 1} | {axis: len(places)}
    data = ""
    for plane, (file, page) in enumerate(places):
        if not (runs and plane and places[plane - 1][0] == file):
            count = sum(place[0] == file for place in places) if runs else 1
            where = f'PlaneCount="{count}"' if runs else f'IFD="{page}" PlaneCount="1"'
            data += (
                f'<TiffData First{axis}="{plane}" {where}><UUID FileName="{names[file]}">{uuid(file)}</UUID></TiffData>'
            )
    channels = "".join(f'<Channel ID="Channel:0:{c}" Name="{NAMES[c]}"/>' for c in range(sizes["C"]))
    shape = " ".join(f'Size{axis}="{size}"' for axis, size in sizes.items())
    return (
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="{order}" {shape} SizeX="160" SizeY="107" '
        f'Type="uint16" PhysicalSizeX="0.5" PhysicalSizeY="0.25">{channels}{data}</Pixels></Image>'
    )


def write_set(
    folder: Path,
    array: np.ndarray,
    places: Sequence[Place] = ((0, 0), (1, 0), (2, 0)),
    reduced: str = "sub",
    holder: str = "",
    image: str | None = None,
    options: dict[str, Any] | None = None,
    **about: Any,
) -> list[Path]:
    """Files that hold planes at places, on two levels: sub-pages, or ("after") pages after all others.

    Arguments:
        holder: of the only metadata, to which the others point: a companion's name, or "0", the first file.
        image: what the metadata say, instead of what is right.
    """
    folder.mkdir(exist_ok=True)
    names = [f"panel_{number}.ome.tif" for number in range(max(file for file, _ in places) + 1)]
    image = told(places, names, **about) if image is None else image
    common: dict[str, Any] = {"tile": (32, 48), "photometric": "minisblack", "metadata": None} | (options or {})
    for number, name in enumerate(names):
        own = holder in ("", str(number))
        points = f'<BinaryOnly MetadataFile="{names[0] if holder == "0" else holder}" UUID="{uuid(0)}"/>'
        text = f'<?xml version="1.0"?><OME {SCHEMA} UUID="{uuid(number)}">{image if own else points}</OME>'
        inside = sorted((page, plane) for plane, (file, page) in enumerate(places) if file == number)
        with tifffile.TiffWriter(folder / name, byteorder=common.pop("byteorder", None)) as writer:
            for page, plane in inside:
                more: dict[str, Any] = {} if page else {"description": text}
                writer.write(array[plane], subifds=1 if reduced == "sub" else 0, **common, **more)
                if reduced == "sub":
                    writer.write(array[plane, ::2, ::2], subfiletype=1, **common)
            for _, plane in inside if reduced == "after" else []:
                writer.write(array[plane, ::2, ::2], subfiletype=1, **common)
    if holder.endswith(".ome"):
        (folder / holder).write_text(f"<OME {SCHEMA}>{image}</OME>")
    return [folder / name for name in names]


CASES: dict[str, dict[str, Any]] = {
    "a file each": {},
    "in strips": {"options": {"tile": None, "rowsperstrip": 16, "compression": "zlib"}},
    "one strip, plain": {"options": {"tile": None}},
    "big-endian": {"options": {"byteorder": ">", "compression": "lzw"}},
    "two in a file, the wrong way round": {"places": ((1, 1), (0, 0), (1, 0))},
    "two in a file, told at once": {"places": ((0, 0), (0, 1), (1, 0)), "runs": True},
    "reduced pages after the others": {"places": ((0, 0), (0, 1), (1, 0)), "reduced": "after"},
    "another order of planes": {"order": "XYZTC"},
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("case", CASES)
def test_a_set_reads_like_its_channels_on_every_level(case: str, dtype: str, tmp_path: Path) -> None:
    array = planes(dtype)
    files = write_set(tmp_path, array, **CASES[case])
    with tifffile.TiffFile(files[0]) as file:
        np.testing.assert_array_equal(file.series[0].asarray(), array)  # what others make of the same set
    for path in files:
        source = open_image(path)
        assert isinstance(source, TiffSource)
        assert (source.header.bands, source.header.unused, len(source.levels)) == (BANDS, (), 2)
        assert source.header.format.endswith(f", 3 channels in {len(files)} files")
        assert source.pixel == (0.25, 0.5)
    check_tiff(source, np.moveaxis(array, 0, 2))
    check_tiff(source, np.moveaxis(array[:, ::2, ::2], 0, 2), 1)
    assert image_files(tmp_path) == [files[CASES[case].get("places", ((0, 0),))[0][0]].name]
    assert source.file_bytes == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("holder", ["panel.companion.ome", "0"])
def test_a_file_of_pixels_alone_finds_what_tells_of_them(holder: str, tmp_path: Path) -> None:
    array = planes()
    files = write_set(tmp_path, array, holder=holder)
    for path in files:
        source = open_image(path)
        assert (source.header.bands, source.pixel) == (BANDS, (0.25, 0.5))
        np.testing.assert_array_equal(source.read(Box(0, 0, 107, 160)), np.moveaxis(array, 0, 2))
    assert image_files(tmp_path) == ["panel_0.ome.tif"]


def test_metadata_that_declare_entities_are_not_read(tmp_path: Path) -> None:
    """A few hundred bytes that say a billion letters, where the parser itself sets no limit."""
    files = write_set(tmp_path, planes(), holder="panel.companion.ome")
    companion = tmp_path / "panel.companion.ome"
    companion.write_text('<!DOCTYPE OME [<!ENTITY a "panel_0.ome.tif">]>' + companion.read_text())
    source = open_image(files[0])
    assert (source.channels, source.header.bands) == (1, ())
    np.testing.assert_array_equal(source.read(Box(0, 0, 107, 160))[:, :, 0], planes()[0])


@pytest.mark.parametrize("holder", ["", "panel.companion.ome"])
def test_a_set_at_an_address_is_read_a_tile_at_a_time(holder: str, tmp_path: Path) -> None:
    near = open_image(write_set(tmp_path, planes(), holder=holder, options={"compression": "zlib"})[1])
    with FileServer({f"a b/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}) as server:
        far = TiffSource(server.address("a b/panel_1.ome.tif?key=1"))
        assert (far.header.bands, far.pixel, far.levels) == (near.header.bands, near.pixel, near.levels)
        box = Box(33, 50, 20, 30)
        np.testing.assert_array_equal(far.read(box), near.read(box))
        assert far.tiles_decoded == near.tiles_decoded == 1
        assert far.bytes_read == server.sent
        del server.files["a b/panel_2.ome.tif"]
        with pytest.raises(ImageError, match=r"a b/panel_2.ome.tif\?key=1: no such file there \(404\): check the addr"):
            open_image(server.address("a b/panel_1.ome.tif?key=1"))


def test_a_part_that_is_missing_or_short_is_named(tmp_path: Path) -> None:
    files = write_set(tmp_path, planes())
    files[1].rename(tmp_path / "elsewhere")
    for path in (files[0], files[2]):
        with pytest.raises(ImageError) as caught:
            open_image(path)
        assert str(caught.value) == (
            f"{path}: an OME-TIFF of several files, of which panel_1.ome.tif missing: copy all of its files"
        )
    with pytest.raises(ImageError, match=r"panel_1.ome.tif: no such file: check the path"):
        open_image(files[0], reader="tiff").read(Box(0, 0, 9, 9))
    write_set(tmp_path, planes(), image=told(((0, 0), (1, 4), (2, 0)), [path.name for path in files]))
    with pytest.raises(ImageError) as caught:
        open_image(files[0])
    assert str(caught.value) == (
        f"{files[1]}: an OME-TIFF of several files, of which this one has no page 5, but 1 in all: copy all of its "
        "files"
    )
    write_set(tmp_path, planes(), image=told(((0, 0), (1, 0), (2, 0)), [path.name for path in files]))
    with tifffile.TiffFile(files[1], mode="r+") as file:
        offsets = list(file.pages[0].tags[324].value)  # type: ignore[union-attr]
        file.pages[0].tags[324].overwrite([offset + 10**5 for offset in offsets])  # type: ignore[union-attr]
    with pytest.raises(
        ImageError, match=r"broken tile at row 0, column 0 of level 0 \(.*panel_1.ome.tif: it ends at byte"
    ):
        open_image(files[0]).read(Box(0, 0, 9, 9))


@pytest.mark.parametrize("axis", ["Z", "T"])
def test_depths_and_times_in_several_files_are_said_not_to_be_used(axis: str, tmp_path: Path) -> None:
    array = planes()
    files = write_set(tmp_path, array, axis=axis)
    for path, plane in zip(files, array, strict=True):
        source = open_image(path)
        assert source.header.format.endswith(", one of 3 files")
        assert source.header.unused == ("the other 2 planes, in 3 files: the first of this one is read",)
        check_tiff(source, plane[:, :, None])
    assert image_files(tmp_path) == ["panel_0.ome.tif"]


def test_pages_that_are_not_alike_are_not_made_one(tmp_path: Path) -> None:
    files = write_set(tmp_path, planes())
    with tifffile.TiffFile(files[1]) as file:
        text = file.pages[0].description  # type: ignore[union-attr]
    tifffile.imwrite(files[1], planes()[1, :90], description=text, metadata=None, tile=(32, 48))
    source = open_image(files[0])
    assert source.channels == 1
    assert source.header.unused == (
        "channels CD8 & CD4, PanCK, on other pages or in other files (as OME-Zarr, e.g. by bioformats2raw, they are "
        "bands)",
    )


def test_a_file_that_names_those_of_other_images_has_its_own_channels(tmp_path: Path) -> None:
    names = ["panel_0.ome.tif", "other.ome.tif"]
    image = told(((1, 0),), names) + told(((0, 0), (0, 1), (0, 2)), names)
    write_set(tmp_path, planes(), places=((0, 0), (0, 1), (0, 2)), image=image)
    source = open_image(tmp_path / "panel_0.ome.tif")
    assert source.header.bands == BANDS
    assert source.header.format.endswith(", 3 channels")
    np.testing.assert_array_equal(source.read(Box(0, 0, 107, 160)), np.moveaxis(planes(), 0, 2))


def test_a_change_of_any_file_is_noticed(tmp_path: Path) -> None:
    files = write_set(tmp_path, planes())
    source = open_image(files[0])
    key = source.cache_key()
    assert key == open_image(files[0]).cache_key() is not None
    write_set(tmp_path, planes()[::-1])
    assert open_image(files[0]).cache_key() != key
    with pytest.raises(Changed):
        source.read(Box(0, 0, 9, 9))


def test_what_one_file_does_not_store_is_missing(tmp_path: Path) -> None:
    files = write_set(tmp_path, planes())
    with tifffile.TiffFile(files[2], mode="r+") as file:
        for tag in (324, 325):
            places = list(file.pages[0].tags[tag].value)  # type: ignore[union-attr]
            places[0] = 0
            file.pages[0].tags[tag].overwrite(places)  # type: ignore[union-attr]
    pixels, missing = open_image(files[0]).read_known([Box(0, 0, 60, 70)])[0]
    assert missing is not None
    inside = np.zeros((60, 70), bool)
    inside[:32, :48] = True
    np.testing.assert_array_equal(missing.any(2), inside)
    np.testing.assert_array_equal(pixels[~inside], np.moveaxis(planes(), 0, 2)[:60, :70][~inside])


def test_a_set_is_converted_with_its_names(tmp_path: Path) -> None:
    files = write_set(tmp_path / "set", planes())
    source = open_image(convert(files[0], tmp_path / "out.tif", Conversion(tile=32)))
    assert source.header.bands == BANDS
    np.testing.assert_array_equal(source.read(Box(0, 0, 107, 160)), np.moveaxis(planes(), 0, 2))


def test_whatever_the_metadata_say_is_answered(tmp_path: Path) -> None:
    """Spoilt at random: an image, none, or a line; and never more than the numbers are worth."""
    names = [f"panel_{number}.ome.tif" for number in range(3)]
    text = f"<OME {SCHEMA}>{told(((0, 0), (1, 0), (2, 0)), names)}</OME>"
    generator = np.random.default_rng(5)
    answers = set()
    for _ in range(300):
        spoilt = bytearray(text.encode())
        for place in generator.integers(0, len(spoilt), 2).tolist():
            spoilt[place] = int(generator.choice(list(b'0123456789"<>/ xZC-')))
        answers.add(ome_image(spoilt.decode(), names[0], lambda name: pytest.fail(name)) is None)
    assert answers == {True, False}
    for size in ("0", "-4", "9999999999", "x"):
        image = ome_image(text.replace('SizeC="3"', f'SizeC="{size}"'), names[0], lambda name: pytest.fail(name))
        assert image is None or image.channels == ()

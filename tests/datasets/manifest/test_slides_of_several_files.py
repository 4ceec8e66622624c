"""A slide of several files is one image, found by content; a part of it without the rest names what is missing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from slides import (
    write_dicom,
    write_dicom_slide,
    write_hamamatsu,
    write_mirax,
    write_olympus,
    write_ome_files,
    write_zarr_folder,
)

from foveate.__main__ import main
from foveate.datasets import read_manifest
from foveate.datasets.manifest.check import check_manifest
from foveate.datasets.manifest.folders import image_files
from foveate.errors import ImageError
from foveate.images import open_image
from foveate.images.formats.several import read_instance
from foveate.predict import find_rows
from foveate.types import Box

SIZE = (200, 320)
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]
PIXELS = np.stack([COLUMNS % 256, ROWS, (ROWS + COLUMNS) % 256], axis=2).astype(np.uint8)
"""(200, 320, 3) smooth enough for JPEG, and nowhere the same."""

Writer = Callable[[Path], Path]


def zarr(folder: Path) -> Path:
    return write_zarr_folder(folder / "array", PIXELS)


WRITERS: dict[str, tuple[Writer, int]] = {
    "DICOM": (lambda folder: write_dicom_slide(folder, PIXELS), 5),
    "DICOM without endings": (lambda folder: write_dicom_slide(folder, PIXELS, ending=""), 5),
    "VMS": (lambda folder: write_hamamatsu(folder, PIXELS), 5),
    "MIRAX": (write_mirax, 4),
    "Olympus": (lambda folder: write_olympus(folder, PIXELS), 2),
    "OME-TIFF": (lambda folder: write_ome_files(folder, PIXELS)[0], 3),
    "OME-TIFF with a companion": (lambda folder: write_ome_files(folder, PIXELS, companion=True)[0], 4),
    "Zarr": (zarr, 2),
}
"""What makes a slide, and of how many files."""

READ = ("DICOM", "DICOM without endings", "VMS", "OME-TIFF", "OME-TIFF with a companion", "Zarr")
"""Those of which there are pixels to be read here."""


@pytest.mark.parametrize("kind", WRITERS)
def test_a_slide_of_several_files_is_one_row(kind: str, tmp_path: Path) -> None:
    write, files = WRITERS[kind]
    named = write(tmp_path / "data" / "tumour")
    write(tmp_path / "data" / "normal")
    (tmp_path / "data" / "normal" / "notes.txt").touch()
    assert sum(path.is_file() for path in named.parent.rglob("*")) == files
    name = named.relative_to(tmp_path / "data" / "tumour").as_posix()
    assert image_files(tmp_path / "data") == [f"normal/{name}", f"tumour/{name}"]
    data = read_manifest(tmp_path / "data")
    assert [example.id for example in data.examples] == [f"normal/{name}", f"tumour/{name}"]
    assert [row.path for row in find_rows([tmp_path / "data"])] == [
        str(tmp_path / "data" / label / name) for label in ("normal", "tumour")
    ]
    passed: list[str] = []
    image_files(tmp_path / "data", passed)
    assert passed == ["notes.txt"]


@pytest.mark.parametrize("kind", READ)
def test_the_row_is_the_slide_and_not_a_part_of_it(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("zarr" if kind == "Zarr" else "openslide")
    named = WRITERS[kind][0](tmp_path / "slide")
    source = open_image(named)
    assert source.size == SIZE
    difference = source.read(Box(0, 0, *SIZE)).astype(int) - PIXELS
    assert np.abs(difference).max() <= (6 if kind == "VMS" else 0)
    if kind.startswith("OME"):
        assert source.header.format.endswith("3 channels in 3 files")
    if kind.startswith("DICOM"):
        assert source.mpp == pytest.approx(0.5)
        assert [level.size for level in source.levels] == [(200, 320), (100, 160)]
        for part in (*named.parent.iterdir(), named.parent):  # whichever is named
            assert open_image(part).size == SIZE


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["label", "overview", "thumbnail"])
def test_a_label_alone_is_no_slide(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "1.dcm"
    write_dicom(path, PIXELS, "1.2.3.9", kind)
    assert refusal(path) == (
        f"{path}: the {kind} of a DICOM slide without its levels (ImageType VOLUME), of which {tmp_path} holds none: "
        "copy all of its files"
    )
    assert image_files(tmp_path) == ["1.dcm"]


def test_a_reduced_level_is_not_taken_for_the_slide(tmp_path: Path) -> None:
    write_dicom_slide(tmp_path, PIXELS).unlink()
    assert image_files(tmp_path) == ["1.2.3.9.1.dcm"]
    assert refusal(tmp_path / "1.2.3.9.3.dcm") == (
        f"{tmp_path}/1.2.3.9.3.dcm: a DICOM slide without its finest level, of which 1.2.3.9.1.dcm is a reduced one "
        "(ImageType RESAMPLED): copy all of its files"
    )


def test_slides_in_one_folder_are_told_apart_by_their_series(tmp_path: Path) -> None:
    for series in ("1.2.3.9", "1.2.3.10"):
        write_dicom_slide(tmp_path, PIXELS, series)
    assert image_files(tmp_path) == ["1.2.3.10.2.dcm", "1.2.3.9.2.dcm"]
    with pytest.raises(ImageError, match="a folder, not an image"):
        open_image(tmp_path)


def test_dicom_of_other_kinds_is_passed_over(tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", PIXELS, "1.2.3.9")
    content = (tmp_path / "1.dcm").read_bytes()
    (tmp_path / "1.dcm").write_bytes(
        content.replace(b"1.2.840.10008.5.1.4.1.1.77.1.6", b"1.2.840.10008.5.1.4.1.1.2\0" + b"\0" * 4)
    )
    passed: list[str] = []
    assert image_files(tmp_path, passed) == []
    assert passed == ["1.dcm"]


def test_every_cut_or_changed_instance_is_answered(tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", PIXELS[:64, :64], "1.2.3.9")
    content, noise = (tmp_path / "1.dcm").read_bytes(), np.random.default_rng(3)
    for length in range(128, 900, 7):
        (tmp_path / "1.dcm").write_bytes(content[:length])
        read_instance(tmp_path / "1.dcm")
        spoilt = bytearray(content)
        for place in noise.integers(128, 900, 9).tolist():
            spoilt[place] = int(noise.integers(256))
        (tmp_path / "1.dcm").write_bytes(spoilt)
        read_instance(tmp_path / "1.dcm")
    (tmp_path / "1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(10**6))
    assert read_instance(tmp_path / "1.dcm") is None


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    mirax = write_mirax(tmp_path / "mirax")
    shutil.rmtree(mirax.with_suffix(""))
    assert refusal(mirax) == (
        f"{mirax}: a MIRAX slide without its folder slide/ (Slidedat.ini and .dat files): copy all of its files; this "
        "one has a preview alone"
    )
    olympus = write_olympus(tmp_path / "olympus", PIXELS)
    assert refusal(olympus).endswith("whose pixels lie in _slide_/ (.ets) and are not read here: export it as OME-TIFF")
    shutil.rmtree(tmp_path / "olympus" / "_slide_")
    assert "an Olympus slide without its folder _slide_/: its pixels are not read here: copy all" in refusal(olympus)
    vms = write_hamamatsu(tmp_path / "vms", PIXELS)
    (tmp_path / "vms" / "slide_1.jpg").unlink()
    assert refusal(vms).endswith(
        "a list of a Hamamatsu slide's files, of which slide_1.jpg missing: copy all of its files"
    )
    first, *_ = write_ome_files(tmp_path / "ome", PIXELS)
    (tmp_path / "ome" / "slide_c0.ome.tif").unlink()
    assert refusal(first).endswith(
        "an OME-TIFF of several files, of which slide_c0.ome.tif missing: copy all of its files"
    )
    first, *_ = write_ome_files(tmp_path / "binary", PIXELS, companion=True)
    (tmp_path / "binary" / "slide.companion.ome").unlink()
    assert "of which slide.companion.ome missing" in refusal(first)


@pytest.mark.parametrize(("kind", "lost"), [("MIRAX", "slide.mrxs"), ("Olympus", "slide.vsi")])
def test_a_folder_whose_slide_is_missing_is_a_row_that_fails(kind: str, lost: str, tmp_path: Path) -> None:
    WRITERS[kind][0](tmp_path / "a").unlink()
    (name,) = image_files(tmp_path)
    assert refusal(tmp_path / name) == (
        f"{tmp_path / name}: the folder of a slide without its file {lost}, beside it: copy all of its files"
    )


def test_an_ome_tiff_that_was_renamed_is_whole(tmp_path: Path) -> None:
    first, *_ = write_ome_files(tmp_path, PIXELS)
    text = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
    text += '<Pixels><TiffData IFD="0"><UUID FileName="old.ome.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>'
    import tifffile

    tifffile.imwrite(tmp_path / "new.ome.tif", PIXELS, description=text, photometric="rgb", metadata=None)
    assert open_image(tmp_path / "new.ome.tif").size == SIZE
    assert image_files(tmp_path) == ["new.ome.tif", first.name]


def test_verbs_say_what_a_folder_holds_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openslide")
    write_dicom_slide(tmp_path / "a" / "whole", PIXELS)
    write_mirax(tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "slide")
    for number in range(4):
        (tmp_path / "b" / f"{number}.xml").touch()
    report = check_manifest(tmp_path)
    assert report.images == 2
    (problem,) = [problem.message for problem in report.problems if problem.kind == "unreadable"]
    assert problem.startswith(f"unreadable: {tmp_path}/b/slide.mrxs: a MIRAX slide without its folder slide/ ")
    line = "4 files that are no images by their names are passed over: 0.xml, 1.xml, 2.xml, …"
    assert [hint.message for hint in report.hints if hint.kind == "manifest"] == [line]
    capsys.readouterr()
    assert main(["info", str(tmp_path), "--json"]) == 3
    out, err = capsys.readouterr()
    assert err == f"foveate: note: {tmp_path}: {line}\n"
    slide, mirax = map(json.loads, out.splitlines())
    assert (slide["size"], slide["mpp"]) == (list(SIZE), pytest.approx(0.5))
    assert "without its folder slide/" in mirax["error"]

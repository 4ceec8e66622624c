"""Manifests as people have them: read, or said, whatever the program that wrote them."""

import os
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from PIL import Image

from foveate.__main__ import main
from foveate.config.settings import DataSettings
from foveate.datasets import open_dataset
from foveate.datasets.manifest.check import check_manifest
from foveate.datasets.manifest.dataset import missing_files, read_manifest, read_table
from foveate.datasets.manifest.rows import Layout
from foveate.errors import ConfigError, DataError
from foveate.predict import find_rows

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A manifest beside six small images, slides/000.png to 005.png, none square."""
    (tmp_path / "slides").mkdir()
    for number in range(6):
        Image.fromarray(np.full((4, 6 + number), number, np.uint8)).save(tmp_path / "slides" / f"00{number}.png")

    def manifest(text: str) -> Path:
        (tmp_path / "m.csv").write_text(text)
        return tmp_path / "m.csv"

    return manifest


def rows_of(labels: list[str], more: str = "") -> str:
    lines = [f"slides/00{number}.png,{label}" for number, label in enumerate(labels)]
    return "\n".join([f"path,label{more}", *lines]) + "\n"


def hints(path: Path) -> list[str]:
    return [hint.message for hint in check_manifest(path).hints if hint.kind == "manifest"]


def test_what_programs_write_for_nothing_is_no_class(write: Write) -> None:
    path = write(rows_of(["nan", "tumour", "normal", "NA", "N/A", "nan"]))
    assert hints(path) == [
        "label 'nan' on lines 2, 7 is taken as none: if it is meant, call it otherwise",
        "label 'NA' on line 5 is taken as none: if it is meant, call it otherwise",
        "label 'N/A' on line 6 is taken as none: if it is meant, call it otherwise",
    ]
    data = read_manifest(path, require_labels=False)
    assert data.classes == ("normal", "tumour")
    assert [one.label for one in data.examples] == [None, 1, 0, None, None, None]
    message = r"4 faults: line 2: label is empty, write the image's class \(or its number\) or remove the row"
    with pytest.raises(DataError, match=message):
        read_manifest(path)


def test_nothing_in_other_columns_is_nothing_too(write: Write) -> None:
    path = write("path,label,group,split,mpp\nslides/000.png,a,nan,NA,NaN\nslides/001.png,b,nan,,0.5\n")
    data = read_manifest(path)
    assert [(one.group, one.split) for one in data.examples] == [(None, None), (None, None)]
    assert data.mpps == (None, 0.5)
    assert hints(path)[:1] == ["group 'nan' on lines 2, 3 is taken as none: if it is meant, call it otherwise"]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["0", "1", "0.0", "1.0", "0", "1"], ["'0' (2) and '0.0' (1)", "'1' (2) and '1.0' (1)"]),
        (["Tumour", "tumour", "normal", "normal", "tumour", "a_b"], ["'Tumour' (1) and 'tumour' (2)"]),
        (["a_b", "a b", "c", "c", "c", "c"], ["'a b' (1) and 'a_b' (1)"]),
        (["1", "2", "12", "21", "none", "None of these"], []),
    ],
)
def test_classes_that_may_be_one_are_pointed_at(write: Write, labels: list[str], told: list[str]) -> None:
    path = write(rows_of(labels))
    assert hints(path) == [f"labels {one} are different classes: write them alike if they are one" for one in told]
    assert read_manifest(path).notes == tuple(hints(path))


def test_an_id_is_the_one_file_that_has_it_for_its_stem(write: Write, tmp_path: Path) -> None:
    text = "path,label\n" + "".join(f"slides/00{number},{'ab'[number % 2]}\n" for number in range(6))
    path = write(text)
    data = read_manifest(path)
    assert [one.id for one in data.examples] == [f"slides/00{number}" for number in range(6)]
    assert data.open(5).size == (4, 11)
    assert [row.path for row in find_rows([path])] == [one.id for one in data.examples]
    assert check_manifest(path).problems == ()
    (tmp_path / "slides" / "003.tif").write_bytes(b"")
    assert missing_files(read_table(path)) == [str(tmp_path / "slides" / "003")]
    with pytest.raises(DataError, match=r"slides/003 \(there is 003\.png and 003\.tif\): paths are relative to"):
        read_manifest(path)


def test_an_id_with_dots_and_an_ending_of_two_parts(write: Write, tmp_path: Path) -> None:
    name = "TCGA-06-0125-01Z-00-DX1.5f3f"
    for ending in (".ome.tif", ".txt"):
        (tmp_path / f"{name}{ending}").write_bytes(b"")
    table = read_table(write(f"path,label\n{name},a\n"))
    assert table.file(name) == str(tmp_path / f"{name}.ome.tif")


def test_backslashes_are_slashes(write: Write) -> None:
    path = write("path,label\n.\\slides\\000.png,a\nslides\\001.png,b\n")
    assert [one.id for one in read_manifest(path).examples] == ["slides/000.png", "slides/001.png"]


def test_columns_with_other_names_and_images_elsewhere(write: Write, tmp_path: Path) -> None:
    path = write("case_id,slide_id,label\n" + "".join(f"P{i // 2},00{i},{i % 2}\n" for i in range(6)))
    layout = Layout.of(["slide_id=path", "case_id=group"], tmp_path / "slides")
    data = read_manifest(path, layout=layout)
    assert [one.group for one in data.examples] == ["P0", "P0", "P1", "P1", "P2", "P2"]
    assert data.files[4] == str(tmp_path / "slides" / "004.png")
    settings = DataSettings(
        manifest=str(path), columns=("slide_id=path,case_id=group",), images=str(tmp_path / "slides"), test=0.4
    )
    assert len(open_dataset(settings).examples) == 6
    words = ["data", "check", str(path), "--images", str(tmp_path / "slides")]
    assert main([*words, "--columns", "slide_id=path,case_id=group"]) == 0
    out = tmp_path / "split.csv"
    words = ["data", "split", str(path), "--images", str(tmp_path / "slides"), "--columns", "slide_id=path"]
    assert main([*words, "--out", str(out)]) == 0
    assert len(read_manifest(out)) == 6


@pytest.mark.parametrize(
    ("column", "pointed"),
    [
        ("patient", True),
        ("Patient ID", True),
        ("case_id", True),
        ("subject", True),
        ("stain", False),
        ("casework", False),
    ],
)
def test_a_column_of_patients_that_is_not_used_is_pointed_at(write: Write, column: str, pointed: bool) -> None:
    path = write(f"path,label,{column}\nslides/000.png,a,P1\nslides/001.png,b,P1\n")
    name = column.lower()
    told = f"column {name!r} is not used, and its images may come into training and test alike: to keep them together, "
    assert hints(path) == ([f"{told}add --columns {name}=group"] if pointed else [])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["slide=path"], r"has no column 'slide', its columns are case,slide_id,label, did you mean slide_id\?"),
        (["nothing=path"], r"has no column 'nothing', its columns are case,slide_id,label: name one of these"),
        ([], r"has no column 'path': .* \(or --columns slide_id=path\)"),
    ],
)
def test_columns_that_are_not_there_are_named(write: Write, columns: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_manifest(write("case,slide_id,label\nP,000,a\n"), layout=Layout.of(columns))


@pytest.mark.parametrize("pair", ["slide_id", "slide_id=paths", "=path"])
def test_a_pair_of_columns_that_is_none_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match=r"columns are named THEIRS=OURS, OURS one of path, label, .*slide_id=path"):
        Layout.of([pair])


def test_a_missing_file_says_what_is_there_instead(write: Write, tmp_path: Path) -> None:
    for name, instead in {
        "slides/000.PNG": " (there is 000.png)",
        "slides/000.jpg": " (there is 000.png)",
        "slides/006.png": "",
        "slide/000.png": f" (there is no slide in {tmp_path}; there is slides)",
        "slides/quite another.tif": "",
        "no/such/folder/x.png": f" (there is no no in {tmp_path})",
    }.items():
        report = check_manifest(write(f"path,label\nslides/005.png,a\n{name},b\n"))
        (told,) = [one.message for one in report.problems if one.kind == "missing"]
        assert told == f"missing: {tmp_path / name}{instead}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('path,label\na.png,"x\nb.png,y\n', 2),
        ('path,label\na.png,x\n"b.png,y\nc.png,z\n"d.png",w\n', 3),
        ('path,label\n"a, b.png","x ""y"""\nb.png,y\n"c.png,z\nd.png,z\n', 4),
        ('path;label\na.png;x\nb.png; "y\n' + "c.png;z\n" * 9, 3),
    ],
)
def test_an_open_quote_is_found_where_it_opens(write: Write, text: str, line: int) -> None:
    with pytest.raises(
        DataError, match=rf"m\.csv is not a CSV file from line {line} on, where a quote opens that is not"
    ):
        read_manifest(write(text), check_files=False)


def test_time_grows_no_faster_than_the_rows(tmp_path: Path) -> None:
    """Four times the rows take less than ten times as long, groups and empty files and all; quadratic is sixteen."""
    spent = []
    for number in (2_000, 8_000):
        folder = tmp_path / str(number)
        folder.mkdir()
        lines = ["path,label,group"]
        for i in range(number):
            os.close(os.open(folder / f"{i:05d}.png", os.O_CREAT))
            lines.append(f"{i:05d},{'abc'[i % 3]},p{i // 3}")
        (folder / "m.csv").write_text("\n".join(lines) + "\n")
        began = process_time()
        assert len(open_dataset(DataSettings(manifest=str(folder / "m.csv"))).examples) == number
        spent.append(process_time() - began)
    assert spent[1] < 10 * spent[0]

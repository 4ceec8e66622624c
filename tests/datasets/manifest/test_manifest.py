import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foveate.datasets import ManifestDataset, read_manifest
from foveate.datasets.manifest.dataset import missing_files, read_table, sorted_classes
from foveate.datasets.manifest.folders import IMAGE_SUFFIXES, image_files
from foveate.errors import DataError, ImageError
from foveate.images import Canvas, open_image
from foveate.types import Box

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a manifest and the images it is told to; the pixels of an image are the length of its name."""

    def do(
        text: str | bytes, images: Sequence[str] = ("a.png", "b.png", "sub/c d.png"), name: str = "labels.csv"
    ) -> Path:
        for image in images:
            file = tmp_path / image
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((3, 5), len(image), np.uint8)).save(file)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return do


def summary(data: ManifestDataset) -> list[tuple[str, str | None, str | None, str | None]]:
    return [(e.id, None if e.label is None else data.classes[e.label], e.split, e.group) for e in data.examples]


def test_a_manifest_with_every_column(write: Write) -> None:
    path = write(
        "path,label,split,group,mpp,mask,stain\n"
        'a.png,10,train,p1,"0,25",,HE\n'
        "b.png,9,val,p2,,,\n"
        "sub/c d.png,9,test,,0.5,,IHC\n"
    )
    data = read_manifest(path)
    assert data.classes == ("9", "10")
    assert summary(data) == [
        ("a.png", "10", "train", "p1"),
        ("b.png", "9", "validation", "p2"),
        ("sub/c d.png", "9", "test", None),
    ]
    assert data.mpps == (0.25, None, 0.5)
    assert read_table(path).extra == ("stain",)
    assert [row.extra for row in read_table(path).rows] == [("HE",), ("",), ("IHC",)]


def test_images_are_opened_with_their_microns_per_pixel(write: Write) -> None:
    data = read_manifest(write("path,label,mpp\nsub/c d.png,x,0.5\na.png,y,\n"))
    source = data.open(0)
    assert (source.size, source.mpp) == ((3, 5), 0.5)
    assert int(source.view((1, 1))[0, 0, 0] * 255 + 0.5) == len("sub/c d.png")
    assert data.open(1).mpp is None


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfpath,label\r\na.png,cat\r\nb.png,dog\r\n",
        b"label,path\ncat,a.png\ndog,b.png",
        b'Path , LABEL\n "a.png", "cat"\n\n  b.png ,dog \n',
        b"path;label\na.png;cat\nb.png;dog\n",
        b"path\tlabel\na.png\tcat\nb.png\tdog\n",
        b"\npath,label\n./a.png,cat\n,\nb.png,dog\n",
    ],
)
def test_dialects_of_csv_mean_the_same(write: Write, text: bytes) -> None:
    assert summary(read_manifest(write(text))) == [("a.png", "cat", None, None), ("b.png", "dog", None, None)]


def test_quoted_commas_and_letters_of_any_alphabet(write: Write) -> None:
    path = write('path,label\n"ä,b.png","Größe, klein"\nb.png,図\n', images=("ä,b.png", "b.png"))
    assert summary(read_manifest(path))[0][:2] == ("ä,b.png", "Größe, klein")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "labels.csv is empty: write a header path,label and a line per image"),
        (b"path,label\n", "labels.csv lists no image: write one a line under the header path,label"),
        (
            b"file,label\na.png,x\n",
            "labels.csv has no column 'path': its first line must name the columns, e.g. path,label, and is "
            "file,label; add it, or rename 'file' if that is it",
        ),
        (b"path,lable\na.png,x\n", "has no column 'label': .* add it, or rename 'lable' if that is it"),
        (b"a.png,cat\nb.png,dog\n", "has no column 'path': its first line must name the columns"),
        (b"path,label,path\na.png,x,b.png\n", "labels.csv has 2 columns 'path': remove or rename all but one"),
        (
            "path,label\na.png,Größe\n".encode("latin-1"),
            r"labels.csv is not UTF-8 text, at 'path,label a.png,Größe': save it as CSV UTF-8 \(in Excel",
        ),
        (b"PK\x03\x04\x14", r"labels.csv is an Excel or OpenDocument workbook, not CSV: save it as CSV UTF-8 \(in Ex"),
        (b"\xd0\xcf\x11\xe0\xa1", r"labels.csv is an old Excel workbook, not CSV: save it as CSV UTF-8 \(in Excel"),
        (b"PAR1\x15", "labels.csv is a Parquet table, not CSV: save it as CSV UTF-8"),
        (
            b'path,label\na.png,"x\nb.png,y\n',
            r"labels.csv is not a CSV file from line 2 on, where a quote opens",
        ),
        (
            b"path,label\na.png,\nb.png,x\n",
            "1 fault: line 2: label is empty, write the image's class \\(or its number\\) or remove the row$",
        ),
        (b"path,label\n,x\n", "1 fault: line 2: path is empty, name the image file$"),
        (b"path,label,split\na.png,x,tset\n", "line 2: unknown split 'tset', use train, validation or test$"),
        (b"path,label\na.png,x\n./a.png,y\n", "line 3: path 'a.png' is already on line 2, remove one of the two$"),
        (b"path,label\na.png,x,y\n", "line 2: 1 more fields than the header has columns, quote what contains"),
        (
            b"path,label,mpp\na.png,x,0\n",
            "line 2: mpp '0' is not a positive number, write microns per pixel such as 0.25",
        ),
        (b'path,label,mpp\na.png,x,"0,2,5"\n', "line 2: mpp '0,2,5' is not a positive number"),
        (b"path,label,mpp\na.png,x,inf\n", "line 2: mpp 'inf' is not a positive number"),
        (
            b"path,label,split\na.png,,oops\n,x,\nb.png,,\n",
            "labels.csv has 4 faults: line 2: label is empty, .*; line 2: unknown split 'oops', .*; line 3: path is "
            "empty, .*; and 1 more, see foveate data check$",
        ),
        (
            b"path,label\na.png,x\ngone.png,y\nalso/gone.png,y\n",
            "labels.csv: 2 files of 3 rows missing, the first is .*gone.png: paths are relative to the manifest's f",
        ),
        (b"path,label,mask\nb.png,x,\na.png,x,m.png\n", "labels.csv: 1 file of 2 rows missing, the first is .*m.png"),
    ],
)
def test_faults_are_named_with_their_line_and_remedy(write: Write, text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(write(text))
    assert "\n" not in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_masks_say_where_to_look(write: Write, tmp_path: Path) -> None:
    path = write("path,label,mask\na.png,x,m.png\nb.png,y,\n")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.kron(np.eye(2), np.ones((10, 15))).astype(np.uint8)).save(tmp_path / "m.png")
    dataset = read_manifest(path)
    assert dataset.open(0).valid((2, 2)).tolist() == [[True, False], [False, True]]
    assert dataset.open(1).valid((2, 2)) is None


def test_an_empty_mask_column_does_no_harm(write: Write) -> None:
    assert len(read_manifest(write("path,label,mask\na.png,x,\nb.png,y,\n"))) == 2


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"manifest {re.escape(str(tmp_path))}/no.csv does not exist: check the path"):
        read_manifest(tmp_path / "no.csv")


def test_files_need_not_exist_where_nobody_asks(write: Write) -> None:
    path = write("path,label\na.png,x\ngone.png,y\ns3://bucket/slide.svs,y\n/no/where.png,y\n")
    data = read_manifest(path, check_files=False)
    assert data.files[2:] == ("s3://bucket/slide.svs", "/no/where.png")
    assert missing_files(read_table(path)) == [str(path.parent / "gone.png"), "/no/where.png"]
    with pytest.raises(ImageError, match=r"gone.png"):
        data.open(1)


def test_prediction_needs_no_labels(write: Write) -> None:
    data = read_manifest(write("path\na.png\nb.png\n"), require_labels=False)
    assert summary(data) == [("a.png", None, None, None), ("b.png", None, None, None)]
    assert data.classes == ()


def test_classes_of_a_model_keep_their_order(write: Write) -> None:
    path = write("path,label\na.png,x\nb.png,y\n")
    assert [e.label for e in read_manifest(path, classes=("z", "y", "x")).examples] == [2, 1]
    with pytest.raises(DataError, match=r"1 fault: line 3 \(b.png\): label 'y' is none of the model's classes x, z"):
        read_manifest(path, classes=("x", "z"))
    assert [e.label for e in read_manifest(path, classes=("x", "z"), require_labels=False).examples] == [0, None]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "0", "9"], ("0", "9", "10")),
        (["grade 10", "grade 9", "Grade 1"], ("Grade 1", "grade 9", "grade 10")),
        (["b", "a", "B", "A"], ("A", "a", "B", "b")),
        (["80", "EMPTY", "50", "70"], ("50", "70", "80", "EMPTY")),
        (["01", "1", "001"], ("001", "01", "1")),
    ],
)
def test_classes_are_sorted_as_people_do(labels: list[str], expected: tuple[str, ...]) -> None:
    assert sorted_classes(labels) == expected
    assert sorted_classes(labels[::-1]) == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=6), max_size=6), st.randoms())
def test_the_order_of_classes_does_not_depend_on_that_of_rows(labels: list[str], random: Random) -> None:
    shuffled = random.sample(labels, len(labels))
    assert sorted_classes(shuffled) == sorted_classes(labels)
    assert sorted(sorted_classes(labels)) == sorted(set(labels))


@pytest.mark.parametrize("delimiter", ",;\t")
@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_what_excel_writes_as_unicode_text_is_read(encoding: str, delimiter: str, tmp_path: Path) -> None:
    rows = [("path", "label"), ("a.png", "Größe"), ("b.png", "normal")]
    text = "".join(f"{delimiter.join(row)}\r\n" for row in rows)
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    data = read_manifest(tmp_path / "labels.csv", check_files=False)
    assert data.classes == ("Größe", "normal")
    (tmp_path / "open.csv").write_bytes((text + f'c.png{delimiter}"x\r\n').encode(encoding))
    with pytest.raises(DataError, match=r"open.csv is not a CSV file from line 4 on, where a quote opens"):
        read_manifest(tmp_path / "open.csv")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "cat/2.jpg", "cat/deep/1.PNG", "dog/1.tif", "dog/notes.txt", "dog/.hidden.png", ".git/x.png")
    data = read_manifest(tmp_path)
    assert summary(data) == [
        ("cat/2.jpg", "cat", None, None),
        ("cat/deep/1.PNG", "cat", None, None),
        ("dog/1.tif", "dog", None, None),
    ]
    assert data.files[2] == str(tmp_path / "dog/1.tif")


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_image_found_in_a_folder_is_of_a_kind_that_can_be_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"image{suffix}"
    if suffix == ".npz":
        Canvas(np.full((1, 2, 2), 9, np.uint8), np.zeros((1, 2), np.int64), (6, 10)).save(file)
    elif suffix == ".npy":
        np.save(file, np.full((6, 10), 9, np.uint8))
    elif suffix == ".vsi":
        pytest.skip("read by nobody, and refused by name: test_slides_of_several_files")
    else:  # what names of slides promise is told by their content, like everything else
        known = suffix in Image.registered_extensions()
        Image.new("1" if suffix == ".pbm" else "L", (10, 6), 1).save(file, None if known else "TIFF")
    assert image_files(tmp_path) == [file.name]
    assert open_image(file).read(Box(0, 0, 6, 10)).shape[:2] == (6, 10)


def test_images_in_folders_are_found_whatever_the_depth_and_case(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/deep/2.png", "a/1.tif", "slide.svs", "x.zarr/0.0", ".hidden/1.png", "a/._1.tif")
    (tmp_path / "folder.png").mkdir()
    assert image_files(tmp_path) == ["a/1.tif", "a/deep/2.png", "b.JPG", "slide.svs", "x.zarr"]


def test_links_that_lead_back_up_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "data/cat/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "data/cat/up").symlink_to("..")
    (tmp_path / "data/cat/self").symlink_to(".")
    (tmp_path / "data/cat/other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/cat/loop.jpg").symlink_to("loop.jpg")
    assert image_files(tmp_path / "data") == ["cat/1.jpg", "cat/loop.jpg", "cat/other/2.jpg"]


def test_a_manifest_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(
        DataError, match=r"manifest .*loop.csv cannot be read \(.+\): check the path and the file's mode$"
    ):
        read_manifest(tmp_path / "loop.csv")


def test_a_folder_per_split_and_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "val/dog/1.jpg", "test/cat/2.jpg")
    assert summary(read_manifest(tmp_path)) == [
        ("test/cat/2.jpg", "cat", "test", None),
        ("train/cat/1.jpg", "cat", "train", None),
        ("val/dog/1.jpg", "dog", "validation", None),
    ]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "bus/1.jpg")
    assert summary(read_manifest(tmp_path)) == [("bus/1.jpg", "bus", None, None), ("train/1.jpg", "train", None, None)]


def test_a_folder_of_images_without_classes_is_for_prediction(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg")
    assert summary(read_manifest(tmp_path, require_labels=False)) == [
        ("a.jpg", None, None, None),
        ("b.jpg", None, None, None),
    ]
    with pytest.raises(
        DataError, match=r"image .*a.jpg is in no class folder: move it into one, or list it in a manifest"
    ):
        read_manifest(tmp_path)


def test_a_folder_with_a_manifest_is_that_manifest(write: Write) -> None:
    path = write("path,label\na.png,x\n", name="manifest.csv")
    assert summary(read_manifest(path.parent)) == [("a.png", "x", None, None)]


def test_folders_that_hold_nothing_or_a_mixture_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(
        DataError, match=r"holds no image: give a manifest.csv, or a folder with one folder of images per c"
    ):
        read_manifest(tmp_path)
    touch(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg")
    with pytest.raises(
        DataError, match=r"mixes folders of splits \(test, train\) with others \(cat\): make it <split>/"
    ):
        read_manifest(tmp_path)

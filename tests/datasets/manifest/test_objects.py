"""What lies where in the images of a manifest: written, read, moved and reduced."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foveate.config.settings import DataSettings
from foveate.datasets import megapixel_mnist, read_manifest
from foveate.datasets.manifest.dataset import ManifestDataset, MarkedManifest, read_table
from foveate.datasets.manifest.objects import known_objects_of, read_objects, reduced, write_objects
from foveate.datasets.manifest.write import write_manifest
from foveate.datasets.megapixel_mnist.dataset import write_canvases
from foveate.errors import DataError
from foveate.types import Box

HEADER = "path,class,top,left,height,width\n"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for name in "ab":
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / f"{name}.png")
    path = tmp_path / "manifest.csv"
    path.write_text("path,label\na.png,cat\nb.png,dog\n")
    return path


def test_a_manifest_without_the_file_knows_no_objects(manifest: Path) -> None:
    found = read_manifest(manifest)
    assert type(found) is ManifestDataset
    assert known_objects_of(found) is None


def test_objects_belong_to_the_image_of_their_path(manifest: Path) -> None:
    rows = "b.png,ear,1,2,3,4\nelsewhere.png,ear,0,0,1,1\nb.png,tail,-5,20,9,10\n"
    (manifest.parent / "objects.csv").write_text(HEADER + rows)
    found = read_manifest(manifest)
    assert isinstance(found, MarkedManifest)
    assert found.objects(0) == ()
    assert found.objects(1) == (("ear", Box(1, 2, 3, 4)), ("tail", Box(-5, 20, 9, 10)))


def test_they_go_with_a_manifest_to_another_folder_and_spare_what_is_there(manifest: Path) -> None:
    write_objects(manifest.parent, [("a.png", (("ear", Box(1, 2, 3, 4)),))])
    table = read_table(manifest)
    new = manifest.parent / "new"
    write_manifest(table, table.rows, new / "split.csv")
    moved = read_manifest(new / "split.csv")
    assert isinstance(moved, MarkedManifest)
    assert moved.examples[0].id == "../a.png"
    assert moved.objects(0) == (("ear", Box(1, 2, 3, 4)),)
    (new / "objects.csv").write_text(HEADER)
    write_manifest(table, table.rows, new / "other.csv")
    assert read_objects(new) == {}


def test_a_wrong_file_is_said_to_be_before_a_manifest_is_written(manifest: Path) -> None:
    (manifest.parent / "objects.csv").write_text(HEADER + "a.png,ear,1\n")
    table = read_table(manifest)
    with pytest.raises(DataError, match=r"objects.csv, line 2: top, left, height and width must be"):
        write_manifest(table, table.rows, manifest.parent / "new" / "split.csv")
    assert not (manifest.parent / "new").exists()


def test_canvases_on_disk_know_their_digits(tmp_path: Path) -> None:
    made = megapixel_mnist(DataSettings(canvas=(150, 220), train_images=3, test_images=2, noise=4))
    written = read_manifest(write_canvases(made, tmp_path / "digits", {}))
    assert isinstance(written, MarkedManifest)
    assert [written.objects(index) for index in range(5)] == [made.objects(index) for index in range(5)]


@given(st.tuples(st.integers(-9, 99), st.integers(-9, 99), st.integers(1, 50), st.integers(1, 50)), st.integers(1, 7))
def test_reduced_boxes_are_the_least_that_hold_every_pixel(box: tuple[int, int, int, int], factor: int) -> None:
    (name, small), *others = reduced((("sign", Box(*box)),), factor)
    assert (name, others) == ("sign", [])
    rows = {row // factor for row in range(box[0], box[0] + box[2])}
    columns = {column // factor for column in range(box[1], box[1] + box[3])}
    assert small == Box(min(rows), min(columns), len(rows), len(columns))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,class\n",
            r"objects.csv has no column 'top': its first line must be path,class,top,left,height,width, to",
        ),
        (
            HEADER + "a.png,ear,1,2,3,4\na.png,ear,1,2,0,4\n",
            r"objects.csv, line 3: top, left, height and width must be",
        ),
        (HEADER + "a.png,ear,1,2.5,3,4\n", r"at least 1, got '1', '2.5', '3', '4': correct or remove the line"),
        (HEADER + "a.png,ear,1\n", r"got '1', '', '', '': correct or remove the line"),
    ],
)
def test_a_file_that_is_wrong_is_said_to_be(manifest: Path, text: str, message: str) -> None:
    (manifest.parent / "objects.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_manifest(manifest)


def test_a_file_that_is_no_text_is_said_to_be(manifest: Path) -> None:
    (manifest.parent / "objects.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(DataError, match=r"objects.csv cannot be read as CSV \(.*\): correct it, or remove it"):
        read_manifest(manifest)

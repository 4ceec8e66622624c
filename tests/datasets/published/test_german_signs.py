import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.config.settings import DataSettings
from foveate.datasets import german_speed_limits, open_dataset
from foveate.datasets.published.german import CLASSES
from foveate.errors import DataError
from foveate.types import Box

REAL = Path(__file__).parents[4] / "shared" / "data" / "gtsdb"

LINES = """\
00000.ppm;774;411;815;446;11
00001.ppm;983;388;1024;432;40
00002.ppm;3;4;10;9;1
00002.ppm;30;4;40;9;1
00002.ppm;30;4;40;9;13
00003.ppm;3;4;10;9;5
00003.ppm;5;4;10;9;7

00004.ppm;0;0;0;0;6
00005.ppm;10;20;29;44;7
00007.ppm;1;1;2;2;0
00008.ppm;1;1;2;2;4
00009.ppm;1;1;2;2;2
00010.ppm;1;1;2;2;3
00010.ppm;1;1;2;2;4
"""
LABELS = {
    "00000": "none",  # other signs
    "00001": "none",
    "00002": "20-30",  # the same limit twice
    "00004": "none",  # the end of a limit
    "00005": "100-120",
    "00006": "none",  # no sign at all
    "00007": "20-30",
    "00008": "60-80",
    "00009": "50",
}


def write(folder: Path, lines: str = LINES, suffix: str = ".ppm", images: str = "images") -> Path:
    (folder / images).mkdir(parents=True, exist_ok=True)
    for number in range(11):
        Image.new("RGB", (9, 5), (number, 0, 0)).save(folder / images / f"{number:05}{suffix}")
    (folder / "gt.txt").write_text(lines)
    return folder


@pytest.mark.parametrize("suffix", [".ppm", ".png", ".jpg"])
@pytest.mark.parametrize("images", ["images", "."])
def test_scenes_are_labelled_by_their_only_limit(tmp_path: Path, suffix: str, images: str) -> None:
    data = german_speed_limits(write(tmp_path, suffix=suffix, images=images))
    assert data.classes == ("none", "20-30", "50", "60-80", "100-120")
    assert {e.id: data.classes[e.label] for e in data.examples if isinstance(e.label, int)} == LABELS
    assert data.left_out == 2  # 80 and 100; 60 and 70, though of one class
    assert {(e.split, e.group) for e in data.examples} == {(None, None)}
    assert data.open(5).size == (5, 9)
    assert data.files[5].endswith(f"00006{suffix}")


def test_boxes_are_rows_first_and_have_both_their_corners(tmp_path: Path) -> None:
    data = german_speed_limits(write(tmp_path))
    signs = {e.id: data.signs(i) for i, e in enumerate(data.examples)}
    assert signs["00005"] == (("100", Box(20, 10, 25, 20)),)
    assert signs["00002"] == (("30", Box(4, 3, 6, 8)), ("30", Box(4, 30, 6, 11)))
    assert signs["00001"] == signs["00006"] == ()


@pytest.mark.parametrize(
    "line", ["00001.ppm;1;2;3;4", "00001.ppm;1;2;3;4;43", "00001.ppm;9;2;3;4;1", "1;2;3;4;5;6", "a.ppm;x;2;3;4;1", "?"]
)
def test_lines_that_are_not_as_published_are_named(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"00000.ppm;774;411;815;446;11\n{line}\n")
    with pytest.raises(
        DataError, match=r"gt\.txt, line 2: not image;left;top;right;bottom;number .*: get the file aga"
    ):
        german_speed_limits(tmp_path)


def test_missing_and_double_images_are_named(tmp_path: Path) -> None:
    write(tmp_path, LINES + "00100.ppm;1;1;2;2;2\n00200.ppm;1;1;2;2;11\n")
    with pytest.raises(DataError, match=r"gt\.txt names 2 images that \S+ does not hold, the first is 00100: put the"):
        german_speed_limits(tmp_path)
    write(tmp_path, suffix=".jpg")
    with pytest.raises(DataError, match=r"images holds 00000\.jpg and 00000\.ppm: keep one of the two$"):
        german_speed_limits(tmp_path)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no gt\.txt: give the folder of the German scenes, with gt\.txt and imag"):
        german_speed_limits(tmp_path / "nowhere")
    (tmp_path / "gt.txt").write_text("")
    with pytest.raises(DataError, match=r"holds no image \(\.ppm, \.png, \.jpg, \.jpeg\): put the published images th"):
        german_speed_limits(tmp_path)
    write(tmp_path)
    (tmp_path / "gt.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(DataError, match=r"gt\.txt is not text: get it again$"):
        german_speed_limits(tmp_path)


def test_settings_open_them_and_hold_out_shares(tmp_path: Path) -> None:
    lines = "".join(f"{i:05}.ppm;1;1;2;2;2\n" for i in range(0, 11, 2))
    settings = DataSettings(source="german-speed-limits", published=str(write(tmp_path, lines)), test=0.4, validation=0)
    data = open_dataset(settings)
    assert Counter((e.split, e.label) for e in data.examples) == {
        ("train", 0): 3,
        ("train", 2): 4,
        ("test", 0): 2,
        ("test", 2): 2,
    }


@pytest.mark.skipif(not REAL.exists(), reason="the German scenes are not beside the checkout")
def test_the_published_annotations_give_the_published_labels() -> None:
    data = german_speed_limits(REAL)
    with (REAL / "labels.csv").open(newline="") as file:
        reference = {Path(row["path"]).stem: row["label"] for row in csv.DictReader(file)}
    of_class = {"none": "none", **{limit: name for name, limits in CLASSES.items() for limit in limits}}
    found = {e.id: data.classes[e.label] for e in data.examples if isinstance(e.label, int)}
    assert found == {name: of_class[label] for name, label in reference.items()}
    assert len(found) == 400
    assert data.left_out == 0
    for i, example in enumerate(data.examples):
        assert {limit for limit, _ in data.signs(i)} == {reference[example.id]} - {"none"}
    i = next(i for i, e in enumerate(data.examples) if data.signs(i))
    _, box = data.signs(i)[0]
    height, width = data.open(i).size
    assert box.bottom <= height
    assert box.right <= width
    assert np.asarray(data.open(i).read(box)).shape == (*box.size, 3)

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from foveate.config.settings import DataSettings
from foveate.datasets import open_dataset, swedish_traffic_signs
from foveate.datasets.published import swedish as swedish_signs
from foveate.datasets.published.swedish import SETS, PublishedSet, read_annotations
from foveate.errors import ConfigError, DataError
from foveate.types import Box

SET1 = (
    "1277381680Image000009.jpg:\n"
    "Image000004.jpg:MISC_SIGNS;VISIBLE, 616.957210, 718.303048, 580.957210, 679.303048, INFORMATION, PRIORITY_ROAD;"
    "VISIBLE, 176.952430, 725.056080, 139.698699, 691.424239, OTHER, OTHER;"
    "VISIBLE, 544.440211, 712.322978, 504.440211, 678.322978, OTHER, OTHER;\n"
    "misc.jpg:MISC_SIGNS;\n"
    "stray.jpg:VISIBLE, 60.5a, 30.0, 40.25b, 10.5, PROHIBITORY, 70_SIGN;\n"
    "largest.jpg:VISIBLE, 60, 30, 40, 10, PROHIBITORY, 50_SIGN;VISIBLE, 70, 30, 40, 10, PROHIBITORY, 80_SIGN;\n"
    "seen.jpg:BLURRED, 160, 130, 40, 10, PROHIBITORY, 50_SIGN;VISIBLE, 60, 30, 40, 10, PROHIBITORY, 70_SIGN;"
    "OCCLUDED, 500, 500, 0, 0, PROHIBITORY, 80_SIGN;\n"
    "blurred.jpg:BLURRED, 60, 30, 40, 10, PROHIBITORY, 50_SIGN;VISIBLE, 60, 30, 40, 10, WARNING, PEDESTRIAN_CROSSING;\n"
    "other.jpg:VISIBLE, 60, 30, 40, 10, PROHIBITORY, 110_SIGN;\n"
)
SET2 = "Image000004.jpg:VISIBLE, 60, 30, 40, 10, X, 50_SIGN;\r\n\r\n90.jpg:SIDE_ROAD, 60, 30, 40, 10, X, 70_SIGN\r\n"


def write(folder: Path, sets: dict[str, str], inner: str = ".") -> Path:
    for name, lines in sets.items():
        (folder / name / inner).mkdir(parents=True)
        (folder / name / "annotations.txt").write_bytes(lines.encode())
        for line in lines.split():
            if ".jpg:" in line:
                Image.new("RGB", (8, 6)).save(folder / name / inner / line.partition(":")[0])
    return folder


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The written annotations count as the published ones."""
    sums = [hashlib.md5(lines.encode()).hexdigest() for lines in (SET1, SET2)]
    sets = [PublishedSet(part.name, part.split, md5) for part, md5 in zip(SETS, sums, strict=True)]
    monkeypatch.setattr(swedish_signs, "SETS", tuple(sets))


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("inner", [".", "Set1Part0"])
def test_the_papers_choice_of_images_and_classes(tmp_path: Path, inner: str) -> None:
    data = swedish_traffic_signs(write(tmp_path, {"Set1": SET1, "Set2": SET2}, inner))
    assert data.classes == ("EMPTY", "50", "70", "80")
    assert [(e.id, data.classes[e.label], e.split) for e in data.examples if isinstance(e.label, int)] == [
        ("Set1/1277381680Image000009.jpg", "EMPTY", "train"),
        ("Set1/largest.jpg", "80", "train"),
        ("Set1/misc.jpg", "EMPTY", "train"),
        ("Set1/seen.jpg", "70", "train"),
        ("Set1/stray.jpg", "70", "train"),
        ("Set2/Image000004.jpg", "50", "test"),
    ]
    assert data.left_out == 4
    assert data.open(0).size == (6, 8)


@pytest.mark.usefixtures("known")
def test_boxes_are_rows_first_and_cover_the_sign(tmp_path: Path) -> None:
    data = swedish_traffic_signs(write(tmp_path, {"Set1": SET1, "Set2": SET2}))
    signs = {e.id: data.signs(i) for i, e in enumerate(data.examples)}
    assert signs["Set1/stray.jpg"] == (("70", Box(10, 40, 20, 21)),)
    assert signs["Set1/largest.jpg"] == (("50", Box(10, 40, 20, 20)), ("80", Box(10, 40, 20, 30)))
    assert [limit for limit, _ in signs["Set1/seen.jpg"]] == ["50", "70", "80"]
    assert signs["Set1/misc.jpg"] == ()


def test_the_sums_are_those_of_the_authors_script() -> None:
    assert SETS[0].md5 == "9106a905a86209c95dc9b51d12f520d6"
    assert SETS[1].md5 == "09debbc67f6cd89c1e2a2688ad1d03ca"


def test_fields_of_a_genuine_line(tmp_path: Path) -> None:
    file = tmp_path / "annotations.txt"
    file.write_text(SET1)
    line = read_annotations(file)[1]
    assert (line.image, line.label) == ("Image000004.jpg", None)
    assert [(sign.name, sign.visibility) for sign in line.signs] == [
        ("PRIORITY_ROAD", "VISIBLE"),
        ("OTHER", "VISIBLE"),
        ("OTHER", "VISIBLE"),
    ]
    assert line.signs[0].edges == (679.303048, 580.957210, 718.303048, 616.957210)


@pytest.mark.parametrize(
    ("signs", "label"),
    [
        ("VISIBLE, 9, 9, 0, 0, P, 50_SIGN;VISIBLE, 9, 9, 0, 0, P, 70_SIGN", "50"),  # alike: the first
        ("UNKNOWN, 9, 9, 0, 0, P, 50_SIGN", None),
        ("SIDE_ROAD, 99, 99, 0, 0, P, 80_SIGN;VISIBLE, 2, 2, 0, 0, P, 50_SIGN", "50"),
        ("OCCLUDED, 99, 99, 0, 0, P, 80_SIGN;SIDE_ROAD, 2, 2, 0, 0, P, 50_SIGN", None),
        ("MISC_SIGNS;VISIBLE, 9, 9, 0, 0, P, 80_SIGN;", "80"),
    ],
)
def test_the_best_visible_then_largest_limit_decides(tmp_path: Path, signs: str, label: str | None) -> None:
    file = tmp_path / "annotations.txt"
    file.write_text(f"a.jpg:{signs}\n")
    assert [line.label for line in read_annotations(file)] == [label]


def test_an_image_listed_twice_has_the_signs_of_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "annotations.txt"
    file.write_text("a.jpg:\nb.jpg:\na.jpg:VISIBLE, 9, 9, 0, 0, P, 80_SIGN;\n")
    assert [(line.image, line.label) for line in read_annotations(file)] == [("a.jpg", "80"), ("b.jpg", "EMPTY")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg:\nno colon\n", r"line 2: not image\.jpg:signs but 'no colon': get the file again$"),
        (":MISC_SIGNS\n", r"line 1: not image\.jpg:signs but ':MISC_SIGNS"),
        ("../a.jpg:\n", r"line 1: not image\.jpg:signs"),
        ("a.jpg:VISIBLE, 1, 2, 3\n", r"line 1: not VISIBILITY, right, bottom, left, top, TYPE, NAME but 'VISIBLE, 1"),
        ("a.jpg:VISIBLE, 1, 2, x, 4, P, 50_SIGN\n", r"line 1: not VISIBILITY, .*: get the file again$"),
        ("\n\n", r"annotations\.txt lists no image: get it again$"),
    ],
)
def test_lines_that_are_not_as_published_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "annotations.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_annotations(file)


def test_missing_files_are_named(tmp_path: Path, known: None) -> None:
    with pytest.raises(
        DataError, match=r"Set1/annotations\.txt does not exist: give the folder with Set1/ and Set2/ of"
    ):
        swedish_traffic_signs(tmp_path)
    write(tmp_path, {"Set1": SET1, "Set2": SET2})
    (tmp_path / "Set1" / "other.jpg").unlink()  # left out anyway
    swedish_traffic_signs(tmp_path)
    for name in ("seen", "misc"):
        (tmp_path / "Set1" / f"{name}.jpg").unlink()
    with pytest.raises(
        DataError, match=r"Set1 lacks 2 of 5 images, the first is misc\.jpg: unpack Set1Part0\.zip there"
    ):
        swedish_traffic_signs(tmp_path)
    (tmp_path / "Set2" / "annotations.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"annotations\.txt is not text: get it again$"):
        read_annotations(tmp_path / "Set2" / "annotations.txt")


def test_other_annotations_than_the_published_are_a_warning(tmp_path: Path) -> None:
    write(tmp_path, {"Set1": SET1, "Set2": SET2})
    with pytest.warns(
        UserWarning, match=r"annotations\.txt is not the published file \(its MD5 sum is \w{32}, not "
    ) as w:
        data = swedish_traffic_signs(tmp_path)
    assert len(w) == 2
    assert w[0].filename == __file__
    assert len(data) == 6


@pytest.mark.usefixtures("known")
def test_settings_open_the_two_sets_as_training_and_test(tmp_path: Path) -> None:
    many = "".join(f"{i}.jpg:VISIBLE, 9, 9, 0, 0, P, {(50, 70, 80)[i % 3]}_SIGN;\n" for i in range(30))
    write(tmp_path, {"Set1": many, "Set2": SET2})
    settings = DataSettings(source="speed-limits", published=str(tmp_path), test=0.5, validation=0.1)
    with pytest.warns(UserWarning, match="Set1/annotations.txt is not the published file"):
        data = open_dataset(settings, seed=1)
    assert Counter((e.split, e.id[:4]) for e in data.examples) == {
        ("train", "Set1"): 27,
        ("validation", "Set1"): 3,
        ("test", "Set2"): 1,
    }


@pytest.mark.parametrize("source", ["colon-cancer", "speed-limits", "german-speed-limits"])
def test_published_data_must_be_named(source: str) -> None:
    with pytest.raises(
        ConfigError, match=f"the files of {source} are not named: give --data.published PATH, "
    ) as error:
        open_dataset(DataSettings(source=source))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=f"images of {source} have one label each: leave data.multi_label out"):
        open_dataset(DataSettings(source=source, multi_label=True))  # type: ignore[arg-type]

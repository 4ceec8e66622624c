import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from archives import damage
from circuits import TILE, annotated, pack, picture, write_deep_pcb
from PIL import Image

from foveate.cache import TILES
from foveate.datasets.published.deep_pcb import DeepPCB, read_deep_pcb
from foveate.errors import DataError, ImageError
from foveate.types import Box

REAL = Path(__file__).parents[4] / "shared" / "data" / "DeepPCB.zip"
BOXES = "group1/1_not/1002.txt"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_deep_pcb(tmp_path_factory.mktemp("deep"))


@pytest.fixture
def own(written: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(written, tmp_path / "PCBData")


def splits(data: DeepPCB) -> dict[str, str | None]:
    return {pair.name: pair.split for pair in data.pairs}


def test_pairs_are_as_the_files_have_them(written: Path) -> None:
    data = read_deep_pcb(written)
    assert [pair.name for pair in data.pairs] == [f"group{g}/{g}/{g}{i:03d}" for g in range(5) for i in range(4)]
    assert data.pictures.size == TILE
    for pair in data.pairs:
        assert [(each.kind, (each.box.top, each.box.left, *each.box.size)) for each in pair.defects] == annotated(
            written, pair.name
        )
        assert [each.alone for each in pair.defects] == [True, True, False, False]
        assert pair.group == pair.name[:6]
        for what, file in (("temp", pair.template), ("test", pair.tested)):
            np.testing.assert_array_equal(data.pictures.read(file, Box(0, 0, *TILE)), picture(written, pair.name, what))
    assert {name for name, split in splits(data).items() if split == "test"} == {
        "group0/0/0001", *(f"group4/4/400{i}" for i in range(4))
    }  # fmt: skip


@pytest.mark.parametrize("grey", [False, True])
def test_parts_of_pictures_are_read(own: Path, grey: bool) -> None:
    if grey:  # neither black nor white: held as it is, not as bits
        [file] = own.glob("group0/0/0000_temp.png")
        Image.fromarray((picture(own, "group0/0/0000", "temp") // 2 + 3).astype(np.uint8)).save(file)
    pictures = read_deep_pcb(own).pictures
    before = TILES.memory
    whole = pictures.read("group0/0/0000_temp.png", Box(0, 0, *TILE))
    assert set(np.unique(whole)) == ({3, 130} if grey else {0, 255})
    assert TILES.memory - before < 400 + (TILE[0] * TILE[1] if grey else TILE[0] * 10) + 1
    for box in (Box(3, 0, 4, 76), Box(0, 7, 50, 1), Box(9, 8, 2, 8), Box(49, 63, 1, 13)):
        part = pictures.read("group0/0/0000_temp.png", box)
        np.testing.assert_array_equal(part, whole[box.top : box.bottom, box.left : box.right])
    copy = pickle.loads(pickle.dumps(pictures))
    np.testing.assert_array_equal(copy.read("group0/0/0000_temp.png", Box(0, 0, *TILE)), whole)


def test_colour_is_taken_as_grey(own: Path) -> None:
    file = own / "group0/0/0000_temp.png"
    Image.new("RGB", TILE[::-1], (200, 100, 50)).save(file)
    pixels = read_deep_pcb(own).pictures.read("group0/0/0000_temp.png", Box(0, 0, *TILE))
    assert set(np.unique(pixels)) == {124}


@pytest.mark.parametrize("name", ["trainval.txt", "test.txt"])
def test_one_list_leaves_the_others_to_the_other_split(own: Path, name: str) -> None:
    both = splits(read_deep_pcb(own))
    (own / name).unlink()
    assert splits(read_deep_pcb(own)) == both


def test_without_lists_no_pair_has_a_split(own: Path) -> None:
    for name in ("trainval.txt", "test.txt"):
        (own / name).unlink()
    assert set(splits(read_deep_pcb(own)).values()) == {None}


def test_a_picture_without_a_defect_is_a_pair(own: Path) -> None:
    (own / BOXES).write_text("\n")
    assert [pair.defects for pair in read_deep_pcb(own).pairs if pair.name == "group1/1/1002"] == [()]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("group1/1/1002_temp.png", r"lacks \S*group1/1/1002_temp\.jpg, of 20 pairs: get it again, in whole$"),
        ("group1/1/1002_test.png", r"lacks \S*group1/1/1002_test\.jpg, of 20 pairs: get it again"),
        (BOXES, r"lacks \S*group1/1_not/1002\.txt and 1 more, of 19 pairs: get it again"),
    ],
)
def test_missing_files_are_named(own: Path, name: str, message: str) -> None:
    (own / name).unlink()
    for place in (own, pack(own, own.parent.parent / f"{own.parent.name}.zip")):
        with pytest.raises(DataError, match=f"^{place} {message}"):
            read_deep_pcb(place)


def test_what_is_no_deep_pcb_is_refused(own: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "images").mkdir(parents=True)
    with pytest.raises(
        DataError, match=rf"^{empty} holds no folders of pairs of circuit boards, group\*/\*/ with pict"
    ):
        read_deep_pcb(empty)
    archive = Path(shutil.make_archive(str(tmp_path / "nothing"), "zip", empty))
    with pytest.raises(
        DataError, match=r"nothing\.zip holds no folders of pairs .*: give the folder PCBData of DeepPCB"
    ):
        read_deep_pcb(archive)
    shutil.copytree(own, tmp_path / "second" / "PCBData")
    with pytest.raises(DataError, match=rf"^{tmp_path} holds 2 folders of pairs of circuit boards"):
        read_deep_pcb(tmp_path)
    with pytest.raises(DataError, match=r"absent\.zip does not exist: give DeepPCB\.zip, or the folder it unpacks to$"):
        read_deep_pcb(tmp_path / "absent.zip")


def test_a_cut_or_spoilt_archive_is_refused(written: Path, tmp_path: Path) -> None:
    whole = pack(written, tmp_path / "whole.zip")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(
        DataError, match=r"cut\.zip is not a zip file, or is damaged \(BadZipFile .*\): get DeepPCB\.zip"
    ):
        read_deep_pcb(cut)
    damage(whole, "method")
    with pytest.raises((DataError, ImageError), match=r"whole\.zip/\S+: .*copy it again, or unpack it yourself$"):
        read_deep_pcb(whole)


@pytest.mark.parametrize(
    "line",
    [
        "1 2 3 4",
        "1 2 3 4 5 6",
        "1,2,3,4,open",
        "4 2 4 9 1",
        "1 9 3 2 1",
        "1 2 77 4 1",
        "1 2 3 51 1",
        "1 2 3 4 0",
        "1 2 3 4 7",
    ],
)
def test_a_line_that_is_no_box_is_named(own: Path, line: str) -> None:
    (own / BOXES).write_text(f"1 2 76 50 6\n\n{line}\n")
    with pytest.raises(DataError, match=rf"{BOXES}, line 3: not x1 y1 x2 y2 kind of a box in 50×76 pixels .*'{line}'"):
        read_deep_pcb(own)


def test_lists_at_fault_are_refused(own: Path) -> None:
    listing = own / "test.txt"
    lines = listing.read_text()
    listing.write_text(lines + "group9/9/9000.jpg group9/9_not/9000.txt\n")
    with pytest.raises(DataError, match=r"test\.txt names group9/9/9000, which is not there: get the data again"):
        read_deep_pcb(own)
    listing.write_text(lines + (own / "trainval.txt").read_text())
    with pytest.raises(DataError, match=r"test\.txt names group0/0/0000, as another list does: get the data again"):
        read_deep_pcb(own)
    listing.write_text("")
    with pytest.raises(DataError, match=r"PCBData has group0/0/0001, which neither list names: get the data again"):
        read_deep_pcb(own)
    listing.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"test\.txt is not text: get the data again$"):
        read_deep_pcb(own)


def test_pictures_of_another_size_or_type_are_refused_when_read(own: Path) -> None:
    Image.new("1", (75, 50)).save(own / "group1/1/1002_temp.png")
    Image.fromarray(np.zeros(TILE, np.uint16)).save(own / "group1/1/1002_test.png")
    pictures = read_deep_pcb(own).pictures
    for what, found in (("temp", "50×75 pixels of uint8"), ("test", "50×76 pixels of uint16")):
        with pytest.raises(ImageError, match=rf"1002_{what}\.png: {found}, where those of .* are 50×76 of uint8: get"):
            pictures.read(f"group1/1/1002_{what}.png", Box(0, 0, 1, 1))


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL.name} is not beside the checkout")
def test_the_published_archive() -> None:
    data = read_deep_pcb(REAL)
    assert Counter(pair.split for pair in data.pairs) == {"train": 1000, "test": 350}
    assert data.pictures.size == (640, 640)
    defects = [defect for pair in data.pairs for defect in pair.defects]
    assert Counter(defect.kind for defect in defects) == {
        "open": 1748, "short": 1355, "mousebite": 1785, "spur": 1471, "copper": 1350, "pin-hole": 1354
    }  # fmt: skip
    assert sum(not defect.alone for defect in defects) == 297
    inside, overall = [], []
    for pair in data.pairs[::97]:
        template, tested = (data.pictures.read(name, Box(0, 0, 640, 640)) for name in (pair.template, pair.tested))
        assert set(np.unique([template, tested])) == {0, 255}
        for defect in pair.defects:
            rows = slice(defect.box.top, defect.box.bottom)
            columns = slice(defect.box.left, defect.box.right)
            inside.append((template[rows, columns] != tested[rows, columns]).mean())
        overall.append((template != tested).mean())
    assert min(inside) > 0
    assert np.mean(inside) > 5 * np.mean(overall)  # read as (top, left), boxes differ no more than the rest

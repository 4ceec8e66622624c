import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from circuits import KINDS, TILE, annotated, pack, picture, write_deep_pcb
from scipy.stats import chi2

from foveate.config.settings import DataSettings
from foveate.datasets import CircuitBoards, circuit_boards, open_dataset
from foveate.datasets.manifest.objects import known_objects_of
from foveate.datasets.published import deep_pcb
from foveate.errors import ConfigError, DataError, ImageError
from foveate.explain.localisation import known_objects
from foveate.images import Source, area_average
from foveate.types import Box

FAILURE_RATE = 1e-6
"""Chance that a correct generator fails one statistical test, for a seed chosen at random; the seed is fixed."""

REAL = Path(__file__).parents[4] / "shared" / "data" / "DeepPCB.zip"
SIZE = (TILE[0] * 2 + 31, TILE[1] * 3 + 40)
"""Three rows of four tiles, the last of which are cut off."""


LISTS = ("trainval", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_deep_pcb(tmp_path_factory.mktemp("deep"))


def settings(place: Path, **changes: object) -> DataSettings:
    small = DataSettings(
        source="circuit-boards", published=str(place), board=SIZE, train_images=48, test_images=24, validation=0.25
    )
    return replace(small, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def boards(root: Path) -> CircuitBoards:
    return circuit_boards(settings(root))


def pixels(data: CircuitBoards, index: int) -> np.ndarray:
    return data.open(index).read(Box(0, 0, *data.size))[:, :, 0]


def cells(board: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Corner and pixels of every tile of a board."""
    for top in range(0, board.shape[0], TILE[0]):
        for left in range(0, board.shape[1], TILE[1]):
            yield top, left, board[top : top + TILE[0], left : left + TILE[1]]


def names(root: Path) -> list[str]:
    return sorted(str(file.relative_to(root)).partition("_temp")[0] for file in root.rglob("*_temp.*"))


def pairs_shown(root: Path, data: CircuitBoards, index: int) -> set[str]:
    """Pairs that a board shows, after a check of every pixel of it against the files, read by others than ours."""
    board, label = pixels(data, index), data.classes[data.examples[index].label]  # type: ignore[index]
    objects = data.objects(index)
    assert [kind for kind, _ in objects] == ([] if label == "none" else [label])
    shown = set()
    for top, left, cell in cells(board):
        rest = np.ones(cell.shape, bool)
        inside = [box.within(top, left, top + TILE[0], left + TILE[1]) for _, box in objects]
        for box in filter(None, inside):
            assert box == objects[0][1]  # the whole of it is in one tile, and on the board
            rest[box.top - top : box.bottom - top, box.left - left : box.right - left] = False
        fitting = [
            name
            for name in names(root)
            if np.array_equal(picture(root, name, "temp")[: cell.shape[0], : cell.shape[1]][rest], cell[rest])
        ]
        assert len(fitting) == 1
        shown.add(fitting[0])
        if not rest.all():
            tested = picture(root, fitting[0], "test")[: cell.shape[0], : cell.shape[1]]
            np.testing.assert_array_equal(cell[~rest], tested[~rest])
            box = objects[0][1]
            place = (box.top - top, box.left - left, *box.size)
            marked = annotated(root, fitting[0])
            assert (label, place) in marked[:2]  # one that meets no other
            template = picture(root, fitting[0], "temp")[: cell.shape[0], : cell.shape[1]]
            assert not np.array_equal(cell, template)
    return shown


def test_every_pixel_is_of_a_defect_free_picture_or_of_one_lone_defect(root: Path, boards: CircuitBoards) -> None:
    shown: dict[str, set[str]] = {}
    for index, example in enumerate(boards.examples):
        shown.setdefault(str(example.split), set()).update(pairs_shown(root, boards, index))
    listed = {half: {line.split(".")[0] for line in (root / f"{half}.txt").read_text().splitlines()} for half in LISTS}
    assert shown["test"] == listed["test"]
    assert shown["train"] | shown["validation"] == listed["trainval"]
    assert not shown["train"] & shown["validation"]
    groups = {split: {name.partition("/")[0] for name in found} for split, found in shown.items()}
    assert not groups["train"] & groups["validation"]
    assert Counter(map(len, groups.values())) == {3: 1, 1: 1, 2: 1}  # the lists divide group 0


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("form", ["folder", "above", "zip"])
def test_every_form_of_the_files_gives_their_pixels(tmp_path: Path, ending: str, form: str) -> None:
    own = write_deep_pcb(tmp_path / "deep", ending=ending, commas=form == "zip")
    place = {"folder": own, "above": own.parent, "zip": tmp_path / "boards.zip"}[form]
    if form == "zip":
        pack(own, place)
    data = circuit_boards(settings(place, train_images=12, test_images=12, validation=0.0))
    for index in range(0, len(data), 3):
        assert pairs_shown(own, data, index)


def test_ids_splits_and_labels(boards: CircuitBoards) -> None:
    assert boards.classes == ("none", *KINDS)
    assert not boards.multi_label
    assert Counter(example.split for example in boards.examples) == {"train": 36, "validation": 12, "test": 24}
    assert [boards.examples[i].id for i in (0, 36, 71)] == ["train-00000", "validation-00000", "test-00023"]
    assert boards.open(37).name == "validation-00001"
    for start in range(0, 72, 2):
        assert sum(boards.examples[i].label == 0 for i in (start, start + 1)) == 1
    assert {boards.examples[i].label == 0 for i in range(0, 72, 2)} == {True, False}
    for start in range(0, 72, 12):
        labels = [boards.examples[i].label for i in range(start, start + 12)]
        assert Counter(labels) == {0: 6, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1}
    orders = {tuple(boards.examples[i].label for i in range(start, start + 12)) for start in range(0, 72, 12)}
    assert len(orders) == 6


def test_a_seed_determines_every_pixel(root: Path, boards: CircuitBoards) -> None:
    again, other = circuit_boards(settings(root)), circuit_boards(settings(root, generator_seed=1))
    assert again.examples == boards.examples
    for index in range(0, 72, 7):
        np.testing.assert_array_equal(pixels(again, index), pixels(boards, index))
        assert not np.array_equal(pixels(other, index), pixels(boards, index))


def test_a_board_does_not_depend_on_how_many_there_are(root: Path, boards: CircuitBoards) -> None:
    more = circuit_boards(settings(root, train_images=100, test_images=5))
    where = {example.id: i for i, example in enumerate(more.examples)}
    same = [(i, where[example.id]) for i, example in enumerate(boards.examples) if example.id in where]
    assert len(same) == 36 + 12 + 5
    for i, j in same:
        assert (boards.examples[i], boards.layouts[i]) == (more.examples[j], more.layouts[j])


def test_places_of_defects_are_uniform_where_all_fit(root: Path) -> None:
    size = (2 * TILE[0], 3 * TILE[1])
    many = circuit_boards(settings(root, board=size, train_images=2400, test_images=0))
    found = [many.objects(i)[0][1] for i in range(len(many)) if many.objects(i)]
    assert len(found) == 1200
    counts = np.array(list(Counter((box.top // TILE[0], box.left // TILE[1]) for box in found).values()))
    assert len(counts) == 6
    assert ((counts - 200) ** 2 / 200).sum() < chi2.isf(FAILURE_RATE, 5)


def test_boards_with_and_without_a_defect_have_tiles_alike(root: Path) -> None:
    many = circuit_boards(settings(root, train_images=6000, test_images=0, validation=0.0))
    count = {True: Counter[str](), False: Counter[str]()}
    for layout in many.layouts:
        count[layout.defect is None].update({name for row in layout.tiles for name in row})
    tiles = sorted(count[True])
    table = np.array([[count[kind][name] for name in tiles] for kind in (True, False)], dtype=float)
    assert table.shape == (2, 15)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    # tiles of a board differ mostly, so that counts vary less than independent ones would
    assert ((table - expected) ** 2 / expected).sum() < chi2.isf(FAILURE_RATE, 14)


def test_reads_equal_slices_of_the_whole_and_views_its_averages(boards: CircuitBoards) -> None:
    random = np.random.default_rng(3)
    for index in (0, 1, 2, 3, 40, 60):
        whole, source = pixels(boards, index), boards.open(index)
        assert (source.size, source.channels, source.dtype) == (SIZE, 1, np.uint8)
        padded = np.pad(whole, 99)
        boxes = [Box(*random.integers(-99, 130, 2).tolist(), *random.integers(1, 99, 2).tolist()) for _ in range(40)]
        boxes += [box for _, box in boards.objects(index)]
        for box, part in zip(boxes, source.read_many(boxes), strict=True):
            top, left = box.top + 99, box.left + 99
            np.testing.assert_array_equal(part[:, :, 0], padded[top : top + box.height, left : left + box.width])
        region = (11.5, 3, 100, 250.25)
        np.testing.assert_array_equal(source.view((7, 9), region), area_average(whole[:, :, None], (7, 9), region))
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(source)).read(Box(5, 5, 90, 90)), source.read(Box(5, 5, 90, 90))
        )


def test_opening_reads_nothing_and_reading_decodes_what_is_touched_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = circuit_boards(settings(root))
    opened: list[str] = []

    def counting(place: Path, name: str) -> Source:
        opened.append(name)
        return original(place, name)

    original = deep_pcb.open_picture
    monkeypatch.setattr(deep_pcb, "open_picture", counting)
    index = next(i for i in range(len(data)) if data.objects(i))
    source = data.open(index)
    assert source.size == SIZE
    assert opened == []
    layout, (_, box) = data.layouts[index], data.objects(index)[0]
    source.read(Box(TILE[0] - 2, TILE[1] - 1, 4, 2))
    near = {layout.tiles[row][column] for row in (0, 1) for column in (0, 1)}
    assert near <= set(opened) <= near | {layout.defect.picture if layout.defect else ""}
    source.read(Box(0, 0, *SIZE))
    for other in range(len(data)):
        data.open(other).read(Box(0, 0, *SIZE))
    assert max(Counter(opened).values()) == 1  # boards share what is decoded
    source.read(box)
    assert max(Counter(opened).values()) == 1


def test_objects_are_known_to_those_who_judge_maps(boards: CircuitBoards) -> None:
    objects = known_objects_of(boards)
    assert objects is not None
    index = next(i for i in range(len(boards)) if boards.objects(i))
    assert known_objects(boards, index) == (boards.objects(index)[0][1],)


def test_settings_open_it(root: Path, boards: CircuitBoards) -> None:
    data = open_dataset(settings(root), seed=8)
    assert data.examples == boards.examples
    with pytest.raises(
        ConfigError, match=r"the files of circuit-boards are not named: give --data\.published PATH, De"
    ):
        open_dataset(DataSettings(source="circuit-boards"))
    with pytest.raises(ConfigError, match=r"boards of circuit-boards have one label each: leave data\.multi_label out"):
        open_dataset(settings(root, multi_label=True))


def test_without_lists_shares_are_held_out_by_group(tmp_path: Path) -> None:
    own = write_deep_pcb(tmp_path, groups=6, lists=False)
    data = circuit_boards(settings(own, test=0.3, validation=0.25))
    groups: dict[str, set[str]] = {}
    for example, layout in zip(data.examples, data.layouts, strict=True):
        groups.setdefault(str(example.split), set()).update(name.split("/")[0] for row in layout.tiles for name in row)
    assert {split: len(found) for split, found in groups.items()} == {"train": 3, "validation": 1, "test": 2}
    assert len(set.union(*groups.values())) == 6


def test_few_groups_are_divided_by_pairs(tmp_path: Path) -> None:
    own = write_deep_pcb(tmp_path, groups=1, pairs=30, lists=False)
    data = circuit_boards(settings(own))
    tiles: dict[str, set[str]] = {}
    for example, layout in zip(data.examples, data.layouts, strict=True):
        tiles.setdefault(str(example.split), set()).update(name for row in layout.tiles for name in row)
    assert {split: len(found) for split, found in tiles.items()} == {"train": 18, "validation": 6, "test": 6}
    assert len(set.union(*tiles.values())) == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"board": (49, 999)},
            r"a board of 49×999 pixels is smaller than a tile of 50×76, .*data\.board to at least 50 76",
        ),
        ({"train_images": 0}, "train_images must be at least 1 and test_images at least 0, got 0 and 24: correct the"),
        ({"test_images": -1}, "train_images must be at least 1 and test_images at least 0, got 48 and -1: correct the"),
        (
            {"validation": 1.0},
            r"the validation share must be at least 0 and below 1, got 1\.0: set data\.validation to",
        ),
        ({"published": "/nowhere"}, r"^/nowhere does not exist: give DeepPCB\.zip, or the folder it unpacks to$"),
    ],
)
def test_numbers_out_of_range_are_refused(root: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        circuit_boards(settings(root, **changes))


def test_a_split_that_lacks_a_kind_shows_the_others(tmp_path: Path) -> None:
    own = write_deep_pcb(tmp_path)
    kept, *others = (own / "test.txt").read_text().splitlines()  # 0001, with a mousebite and a spur by themselves
    (own / "test.txt").write_text(kept)
    (own / "trainval.txt").write_text((own / "trainval.txt").read_text() + "\n".join(others))
    data = circuit_boards(settings(own, test_images=24))
    labels = Counter(data.classes[e.label] for e in data.examples if e.split == "test")  # type: ignore[index]
    assert labels == {"none": 12, "mousebite": 6, "spur": 6}
    for index in range(48, 60):
        assert pairs_shown(own, data, index) == {"group0/0/0001"}
    (own / "group0/0_not/0001.txt").write_text("0 0 9 9 1\n8 8 20 20 2\n")
    with pytest.raises(
        DataError,
        match=r"no pair to make test boards of, of 1, has a defect whose box meets no other: give all of DeepPCB, or "
        r"set data\.test_images to 0$",
    ):
        circuit_boards(settings(own))


@pytest.mark.parametrize(("groups", "pairs"), [(1, 4), (2, 2), (3, 1)])
def test_the_smallest_sets_have_all_splits(tmp_path: Path, groups: int, pairs: int) -> None:
    data = circuit_boards(
        DataSettings(
            published=str(write_deep_pcb(tmp_path, groups, pairs, lists=False)),
            board=TILE, train_images=4, test_images=2,
        )
    )  # fmt: skip
    tiles = {example.split: set[str]() for example in data.examples}
    for example, layout in zip(data.examples, data.layouts, strict=True):
        tiles[example.split].update(name for row in layout.tiles for name in row)
    assert sorted(map(str, tiles)) == ["test", "train", "validation"]
    assert sum(map(len, tiles.values())) == len(set.union(*tiles.values()))


def test_a_broken_picture_is_one_line_when_it_is_read(tmp_path: Path) -> None:
    own = write_deep_pcb(tmp_path, groups=3, ending="jpg")
    data = circuit_boards(settings(own, validation=0.0))
    for file in own.rglob("*_temp.jpg"):
        file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ImageError, match=r"_temp\.jpg: broken image, or of a kind not supported here") as broken:
        pixels(data, 0)
    assert "\n" not in str(broken.value)


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL.name} is not beside the checkout")
def test_the_published_archive() -> None:
    data = circuit_boards(DataSettings(published=str(REAL), train_images=120, test_images=60))
    assert data.size == (2560, 2560)
    assert Counter(example.split for example in data.examples) == {"train": 108, "validation": 12, "test": 60}
    groups: dict[str, set[str]] = {}
    for index, (example, layout) in enumerate(zip(data.examples, data.layouts, strict=True)):
        groups.setdefault(str(example.split), set()).update(Path(name).parts[1] for row in layout.tiles for name in row)
        assert (example.label == 0) == (not data.objects(index))
    assert not groups["train"] & groups["validation"]
    held = {seed: _pairs_to_validate(DataSettings(published=str(REAL), generator_seed=seed)) for seed in (0, 1)}
    assert all(90 <= len(found) <= 111 for found in held.values())  # a tenth of 1,000, by whole groups
    assert held[0] != held[1]
    index = next(i for i in range(len(data)) if data.objects(i))
    board, plain = (
        data.open(index),
        replace(data, layouts=[replace(each, defect=None) for each in data.layouts]).open(index),
    )
    whole = Box(0, 0, 2560, 2560)
    rows, columns, _ = np.nonzero(board.read(whole) != plain.read(whole))
    [(_, box)] = data.objects(index)
    assert len(rows) > 0
    assert box.top <= rows.min() <= rows.max() < box.bottom
    assert box.left <= columns.min() <= columns.max() < box.right


def _pairs_to_validate(settings: DataSettings) -> set[str]:
    data = circuit_boards(settings)
    found = zip(data.examples, data.layouts, strict=True)
    return {name for example, layout in found if example.split == "validation" for row in layout.tiles for name in row}

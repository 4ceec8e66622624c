"""Circuit boards of any size, of real defect-free tiles, in half of which one real defect is set in at its place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from foveate.config.settings import DataSettings
from foveate.datasets.manifest.write import write_images
from foveate.datasets.megapixel_mnist.strokes import Uniforms
from foveate.datasets.published.deep_pcb import KINDS, Defect, Pair, Pictures, read_deep_pcb
from foveate.datasets.splits import fill_splits
from foveate.datasets.types import Example
from foveate.errors import ConfigError, DataError
from foveate.images import Inset, Mosaic
from foveate.types import Box, Size

CLASSES = ("none", *KINDS)

_FEWEST_GROUPS = 3
"""Groups of pairs that can be divided into splits; of fewer, every pair stands for itself."""

_SETTING = {
    "train": "data.validation and data.test to lower shares",
    "validation": "data.validation to another share, or to 0",
    "test": "data.test_images to 0",
}
"""Split → what to set where its pairs are too few."""


@dataclass(frozen=True)
class Layout:
    """Layout of a circuit board.

    Attributes:
        tiles: files of its defect-free tiles, row by row.
        defect: where its defect is, in pixels of the board, and the file that shows it; None where there is none.
    """

    tiles: tuple[tuple[str, ...], ...]
    defect: Inset | None


@dataclass(frozen=True)
class CircuitBoards:
    """Circuit boards: what is where on each; pixels are put together when read.

    Attributes:
        classes: "none" and the six kinds of defects.
        examples: the boards to train on, to validate and to test with, with ids such as "train-00012".
        size: (height, width) of a board.
        layouts: one per board.
        pictures: the tiles, and the pictures that defects are cut from.
        multi_label: False.
    """

    classes: tuple[str, ...]
    examples: Sequence[Example]
    size: Size
    layouts: Sequence[Layout]
    pictures: Pictures
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.examples)

    def open(self, index: int) -> Mosaic:
        """The board of example `index`: (height, width, 1) uint8; nothing is read."""
        layout, name, pictures = self.layouts[index], self.examples[index].id, self.pictures
        lot = layout.tiles, pictures.size, self.size, layout.defect
        return Mosaic(pictures.read, *lot, name=name, pictures=pictures.stamp)

    def objects(self, index: int) -> tuple[tuple[str, Box], ...]:
        """Ground truth of example `index`, to judge attention maps by: the kind of its defect and its box, if any."""
        label, defect = self.examples[index].label, self.layouts[index].defect
        return () if defect is None or not isinstance(label, int) else ((self.classes[label], defect.box),)


def circuit_boards(settings: DataSettings) -> CircuitBoards:
    """Circuit boards of DeepPCB's tiles, as an inspection task: has a board a defect, and of which kind?

    A board is made of defect-free pictures, chosen among the pairs of its split. Half of the boards have none: in the
    others one tile shows, within one box that is marked in its defective counterpart, that counterpart. A box that
    shares pixels with another is not used, so that there is one defect, whole, and nothing else. Boards with and
    without a defect have tiles alike: a board without is drawn like one with, and the defect left out. Counted from
    the first of a split, one of every two boards has none, and of every twelve one has each kind (if a pair of the
    split has it, else another). A board depends on the seed, its split, its number and the pairs of the split
    alone, not on how many boards there are.

    No pair is in two splits. Those of the published lists stay; the others, and those to validate with, are held out
    by whole groups, of as many pairs as the shares say: validation, like most of the test half, shows boards of
    another make than those trained on.

    Tang et al., "Online PCB Defect Detector On A New PCB Defect Dataset", 2019, arXiv:1902.06197.

    Arguments:
        settings: `published`, `board`, `train_images`, `test_images`, `validation`, `test` and `generator_seed` are
            used; the share `test` where the data have no lists.

    Returns:
        The data set; its examples' splits are "train", "validation" and "test".

    Raises:
        ConfigError: if `published` is not set, or several labels are wanted.
        DataError: if the files there are not as published, a board is smaller than a tile, a number is out of range,
            or the pairs are too few for the splits.
    """
    if settings.multi_label:
        raise ConfigError("boards of circuit-boards have one label each: leave data.multi_label out")
    if settings.published is None:
        raise ConfigError(
            "the files of circuit-boards are not named: give --data.published PATH, DeepPCB.zip or its folder PCBData"
        )
    train, test = settings.train_images, settings.test_images
    if train < 1 or test < 0:
        raise DataError(
            f"train_images must be at least 1 and test_images at least 0, got {train} and {test}: correct the settings "
            "under data"
        )
    data = read_deep_pcb(settings.published)
    size, tile = settings.board, data.pictures.size
    if size[0] < tile[0] or size[1] < tile[1]:
        raise DataError(
            f"a board of {size[0]}×{size[1]} pixels is smaller than a tile of {tile[0]}×{tile[1]}, in which some "
            f"defects would find no room: set data.board to at least {tile[0]} {tile[1]}"
        )
    pairs = _split(data.pairs, settings)
    held = min(max(1, round(settings.validation * train)), train - 1) if pairs["validation"] else 0
    examples: list[Example] = []
    layouts: list[Layout] = []
    for split, count in (("train", train - held), ("validation", held), ("test", test)):
        for number, (label, layout) in enumerate(_draw(pairs[split], split, count, tile, settings)):
            examples.append(Example(f"{split}-{number:05d}", label, split))
            layouts.append(layout)
    return CircuitBoards(CLASSES, tuple(examples), size, tuple(layouts), data.pictures)


def write_boards(
    data: CircuitBoards,
    folder: Path,
    recipe: Mapping[str, object],
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """PNG files of circuit boards, with a manifest and objects.csv, each file whole or not at all.

    Boards that are black and white have one bit a pixel, which is read as 0 and 255 again.

    Arguments:
        data: the boards.
        folder: where to; as `write_images`, the record is circuit-boards.json.
        recipe: what the boards were made from, in words of JSON; a folder is resumed with the same one only.
        resume: whether to keep what a stopped call has written, rather than refuse a folder that is not empty.
        progress: called with the number of images written and their total.

    Returns:
        The manifest.

    Raises:
        RunError: if the folder is in the way or was made from another recipe.
        ImageError: if a picture cannot be read.
    """

    def write(index: int, file: Path) -> None:
        pixels = data.open(index).read(Box(0, 0, *data.size))[:, :, 0]
        is_black_and_white = bool(((pixels == 0) | (pixels == 255)).all())
        Image.fromarray(pixels > 0 if is_black_and_white else pixels).save(file, format="PNG")

    names = [f"{example.id}.png" for example in data.examples]
    return write_images(data, folder, recipe, names, write, resume, progress, record="circuit-boards.json")


def _split(pairs: Sequence[Pair], settings: DataSettings) -> dict[str, list[Pair]]:
    """Pairs of every split, in the order of their names."""
    groups = {pair.group for pair in pairs if pair.split != "test"}
    examples = [
        Example(
            pair.name,
            tuple(sorted({KINDS.index(defect.kind) for defect in pair.defects if defect.alone})),
            pair.split,
            pair.group if len(groups) >= _FEWEST_GROUPS else None,
        )
        for pair in pairs
    ]
    shares = settings.validation, settings.test, settings.generator_seed
    try:
        filled = fill_splits(examples, *shares, allow_crossing=True)  # the published lists divide groups
    except DataError:  # not even one group, or pair, can be spared by every kind: they are not minded then
        filled = fill_splits([replace(example, label=()) for example in examples], *shares, allow_crossing=True)
    found: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    for pair, example in zip(pairs, filled, strict=True):
        found[example.split or "train"].append(pair)
    return found


def _draw(
    pairs: Sequence[Pair], split: str, count: int, tile: Size, settings: DataSettings
) -> Iterator[tuple[int, Layout]]:
    """Label and layout of each board of a split."""
    of_kind: dict[str, list[tuple[int, Defect]]] = {kind: [] for kind in KINDS}
    for index, pair in enumerate(pairs):
        for defect in pair.defects:
            if defect.alone:
                of_kind[defect.kind].append((index, defect))
    shown = [kind for kind, found in of_kind.items() if found]
    if count and not shown:
        raise DataError(
            f"no pair to make {split} boards of, of {len(pairs)}, has a defect whose box meets no other: give all of "
            f"DeepPCB, or set {_SETTING[split]}"
        )
    for number in range(count):
        block, place = divmod(number, 2 * len(KINDS))
        if place == 0:
            shuffle = Uniforms(settings.generator_seed, "circuit-boards", split, "kinds", block).draw(2, len(KINDS))
            kinds, without = np.argsort(shuffle[0], kind="stable").tolist(), (2 * shuffle[1]).astype(int).tolist()
        has_none, kind = without[place // 2] == place % 2, kinds[place // 2]
        uniforms = Uniforms(settings.generator_seed, "circuit-boards", split, number)
        choice = of_kind[shown[kind % len(shown)]]
        index, defect = choice[uniforms.integer(len(choice))]
        layout = _lay_out(pairs, index, defect, uniforms, tile, settings.board)
        yield (0, replace(layout, defect=None)) if has_none else (CLASSES.index(defect.kind), layout)


def _lay_out(pairs: Sequence[Pair], pair: int, defect: Defect, uniforms: Uniforms, tile: Size, board: Size) -> Layout:
    """Layout of a board that shows a defect of a pair, on any tile that shows all of its box, among others' tiles."""
    (height, width), box = tile, defect.box
    rows, columns = -(-board[0] // height), -(-board[1] // width)
    corners = [(row * height, column * width) for row in range(rows) for column in range(columns)]
    fits = [i for i, (top, left) in enumerate(corners) if top + box.bottom <= board[0] and left + box.right <= board[1]]
    chosen = fits[uniforms.integer(len(fits))]
    others = uniforms.integers(max(len(pairs) - 1, 1), len(corners))
    others = (others + (others >= pair)) % len(pairs)  # never the defect's own tile a second time, beside it
    files = [pairs[i].template for i in others.tolist()]
    files[chosen] = pairs[pair].template
    top, left = corners[chosen]
    place = Box(top + box.top, left + box.left, *box.size)
    tiles = tuple(tuple(files[row * columns : (row + 1) * columns]) for row in range(rows))
    return Layout(tiles, Inset(place, pairs[pair].tested))

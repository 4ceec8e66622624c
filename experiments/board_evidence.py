"""Does evidence find the defects of circuit boards? Beginning anywhere against beginning with the most novel cells.

Boards of 1280 × 1280 pixels are four tiles side by side. What frozen eyes see of a tile, at full resolution in cells of
32 pixels, is computed once for all boards that show it (they do not see across its edges), and kept in a file. Evidence
of "a defect or none" is then taught as `foveate train` teaches it, of the single best cell; of averages of the
backbone's maps, and of these and their maxima; with `training.find.novel` 0 and 1. Printed for each: the starts'
losses, and on validation and test boards, most of which are of another make than those trained on, the error of "defect
or none", its AUC, the share of defects that one of the ten best cells of 1,600 touches, and the error of the kind, of
six or none.

    python experiments/board_evidence.py DeepPCB.zip --cells cells.npy [--train 1000] [--starts 4] [--seed 0]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from foveate.config.settings import AttentionSettings, DataSettings, EvidenceSettings, ModelSettings
from foveate.config.training import FindSettings
from foveate.datasets import open_dataset
from foveate.datasets.published.circuit_boards import CLASSES, CircuitBoards
from foveate.models import Evidence, build_model
from foveate.models.evidence import attended, kinds_of_evidence
from foveate.networks.evidence import EvidenceHead, attention_logits
from foveate.training.bags import Bags
from foveate.training.teacher import Question, Teacher, kept_starts
from foveate.types import Box

STRIDE, BEST = 32, 10
DROPOUT, EPOCHS, MEMORY = 0.1, 40, 8 * 10**9


@dataclass(frozen=True)
class Board:
    """What a board shows: the rows of its tiles in the file of cells, its label, and its defect, if any."""

    tiles: tuple[int, ...]
    label: int
    defect: Box | None


def listed(data: CircuitBoards) -> tuple[dict[str, list[Board]], list[tuple[int, Box]]]:
    """Boards by split; and, for each tile that any of them shows, a board that shows it and where."""
    known: dict[tuple[str, int | None], int] = {}
    shown: list[tuple[int, Box]] = []
    boards: dict[str, list[Board]] = {}
    height, width = data.pictures.size
    for index, (example, layout) in enumerate(zip(data.examples, data.layouts, strict=True)):
        defect = None if layout.defect is None else layout.defect.box
        tiles = []
        for row, line in enumerate(layout.tiles):
            for column, name in enumerate(line):
                own = defect is not None and (defect.top // height, defect.left // width) == (row, column)
                key = (name, index if own else None)
                if key not in known:
                    known[key] = len(shown)
                    shown.append((index, Box(row * height, column * width, height, width)))
                tiles.append(known[key])
        assert isinstance(example.label, int)
        boards.setdefault(example.split or "", []).append(Board(tuple(tiles), example.label, defect))
    return boards, shown


def seen(model: Evidence, data: CircuitBoards, shown: Sequence[tuple[int, Box]], file: Path) -> np.ndarray:
    """(tile, row, column, D) cells in half precision, from the file if they lie there."""
    down, along = (side // STRIDE for side in data.pictures.size)
    shape = (len(shown), down, along, model.attention.cells.dimension)
    if file.is_file():
        kept: np.ndarray = np.load(file, mmap_mode="r")
        if kept.shape != shape:
            raise SystemExit(f"{file} holds cells of shape {kept.shape}, not {shape}: remove it or name another")
        return kept
    part = file.with_suffix(".part.npy")
    cells = np.lib.format.open_memmap(part, "w+", np.float16, shape)
    for number, (index, box) in enumerate(shown):
        pixels = torch.from_numpy(data.open(index).read(box).astype(np.float32) / 255).permute(2, 0, 1)
        cells[number] = model.attention.cells(pixels.expand(3, -1, -1)[None])[0].half().numpy()
        if number % 100 == 0:
            print(f"tile {number} of {len(shown)}", flush=True)
    cells.flush()
    part.replace(file)
    return cells


def bags_of(boards: Sequence[Board], cells: np.ndarray) -> Bags:
    """Cells of boards, row by row of each."""
    bags = Bags(MEMORY)
    for board in boards:
        first, second, third, fourth = (torch.from_numpy(np.array(cells[tile])) for tile in board.tiles)
        bags.add(torch.cat([torch.cat([first, second], 1), torch.cat([third, fourth], 1)]).flatten(0, 1))
    bags.labels = tuple(board.label for board in boards)
    return bags


def touches(cell: int, columns: int, defect: Box) -> bool:
    """Whether a cell of a board, whose cells are so many a row, shares pixels with its defect."""
    row, column = divmod(cell, columns)
    box = Box(row * STRIDE, column * STRIDE, STRIDE, STRIDE)
    return box.within(defect.top, defect.left, defect.bottom, defect.right) is not None


@torch.no_grad()
def judged(head: EvidenceHead, bags: Bags, boards: Sequence[Board], columns: int) -> str:
    """Error, AUC and hits of evidence that its single best cell gives."""
    evidence, hits = [], []
    for row, board in enumerate(boards):
        logits: Tensor = head(bags.batch([row])[0])[0, :, 0]
        evidence.append(float(logits.max() + head.bias.mean()))
        if board.defect is not None:
            best = logits.topk(BEST).indices.tolist()
            hits.append(any(touches(cell, columns, board.defect) for cell in best))
    truth = np.array([board.label != 0 for board in boards])
    error = float(((np.array(evidence) > 0) != truth).mean())
    return f"error {error:.3f} · AUC {roc_auc_score(truth, evidence):.3f} · hit {np.mean(hits):.3f}"


def with_kinds(teacher: Teacher, settings: ModelSettings, head: EvidenceHead, members: int, bags: Bags) -> Evidence:
    """Model that tells the kinds apart as well, by what is seen in the best cells of the boards that have one."""
    attention = replace(settings.attention, members=members)
    asked = replace(settings, attention=attention, evidence=EvidenceSettings(1.0, CLASSES[0]))
    model = build_model(asked, CLASSES, channels=3, seed=0)
    assert isinstance(model, Evidence)
    model.attention.head.load_state_dict(head.state_dict())
    teacher.teach_kinds(model, bags)
    return model.eval()


@torch.no_grad()
def kinds_error(model: Evidence, bags: Bags, boards: Sequence[Board]) -> float:
    """Share of boards whose kind of defect, or that there is none, is told wrongly."""
    head, wrong = model.attention.head, 0
    for row, board in enumerate(boards):
        cells = bags.batch([row])[0]
        logits = head(cells)
        evidence = logits[:, :, 0].max(1).values + head.bias.mean()
        kinds = model.head(attended(head, cells, attention_logits(logits, 1.0).log_softmax(1)))
        wrong += int(kinds_of_evidence(evidence, kinds, 0).argmax()) != board.label
    return wrong / len(boards)


def main() -> None:
    """Print what each kind of cells finds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", help="DeepPCB.zip or its folder PCBData")
    parser.add_argument("--cells", type=Path, required=True, help="file of the cells; made if it is missing")
    parser.add_argument("--train", type=int, default=1000, help="boards, those to validate with included")
    parser.add_argument("--test", type=int, default=400, help="boards")
    parser.add_argument("--starts", type=int, default=4, help="small networks of each kind of cells")
    parser.add_argument("--seed", type=int, default=0, help="of the starts")
    given = parser.parse_args()
    settings = DataSettings(
        source="circuit-boards",
        published=given.published,
        board=(1280, 1280),
        train_images=given.train,
        test_images=given.test,
    )
    data = open_dataset(settings, 0)
    assert isinstance(data, CircuitBoards)
    attention = AttentionSettings(
        name="timm:tf_efficientnet_lite0", weights="bundled", stride=STRIDE, maxima=True, dropout=DROPOUT
    )
    asked = ModelSettings(name="evidence", attention=attention)
    model = build_model(asked, CLASSES, channels=3, seed=0).eval()
    assert isinstance(model, Evidence)
    boards, shown = listed(data)
    cells = seen(model, data, shown, given.cells)
    print(" · ".join(f"{len(some)} {split}" for split, some in boards.items()), f"· {len(shown)} tiles")
    half = cells.shape[-1] // 2
    for name, part in (("averages", cells[..., :half]), ("averages and maxima", cells)):
        bags = {split: bags_of(some, part) for split, some in boards.items()}
        own = replace(asked, attention=replace(attention, maxima=part is cells))
        for novel in (0.0, 1.0):
            find = FindSettings(starts=given.starts, epochs=EPOCHS, novel=novel)
            teacher = Teacher(find, model, bags["train"].moments(), given.seed, CLASSES, multi_label=False)
            head, losses = teacher.taught(Question("none", top=1.0), bags["train"], given.starts)
            kept = kept_starts(losses.tolist())
            head.keep(kept)
            told = ", ".join(f"{loss:.3f}" for loss in losses.tolist())
            print(f"{name}, novel {novel:g}: {len(kept)} of {given.starts} starts kept (losses {told})", flush=True)
            whole = with_kinds(teacher, own, head, len(kept), bags["train"])
            for split in ("validation", "test"):
                figures = judged(head, bags[split], boards[split], 2 * cells.shape[2])
                print(f"    {split}: {figures} · kind {kinds_error(whole, bags[split], boards[split]):.3f}", flush=True)


if __name__ == "__main__":
    main()

"""The measurement of evidence on circuit boards: their tiles, put together, are the boards."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from circuits import TILE, write_deep_pcb

from foveate.config.settings import AttentionSettings, DataSettings, EvidenceSettings, ModelSettings
from foveate.datasets import open_dataset
from foveate.models import build_model
from foveate.networks.evidence import EvidenceHead
from foveate.types import Box

FILE = Path(__file__).parents[2] / "experiments" / "board_evidence.py"


def small(folder: Path) -> Any:
    """Boards of 2 × 2 small tiles, not square."""
    return open_dataset(
        DataSettings(
            source="circuit-boards",
            published=str(write_deep_pcb(folder)),
            board=(2 * TILE[0], 2 * TILE[1]),
            train_images=24,
            test_images=12,
        ),
        0,
    )


def test_tiles_put_together_are_the_boards(script: Any, tmp_path: Path) -> None:
    data = small(tmp_path)
    boards, shown = script.listed(data)
    assert sum(len(some) for some in boards.values()) == 36
    assert len(shown) < 4 * 36, "tiles that several boards show are there but once"
    pixels = np.stack([data.open(index).read(box) for index, box in shown]).astype(np.float16)
    number = 0
    for some in boards.values():
        bags = script.bags_of(some, pixels)
        for row, board in enumerate(some):
            whole = data.open(number).read(Box(0, 0, 2 * TILE[0], 2 * TILE[1]))
            found = bags.batch([row])[0][0].view(2 * TILE[0], 2 * TILE[1], 1)
            assert np.array_equal(found.numpy(), whole)
            assert (board.defect is None) == (board.label == 0)
            number += 1


def test_hits_and_errors_are_those_of_the_cells(script: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(script, "BEST", 1)
    head = EvidenceHead(1, 2, 1)
    with torch.no_grad():
        head.first.copy_(torch.tensor([[[1.0, -1.0]]]))
        head.second.copy_(torch.tensor([[[1.0], [-1.0]]]))
        head.first_bias.zero_()
    values = [[-1.0, 2, -3, -4, -5, -6], [-1, -2, 3, -4, -5, -6], [1, -2, -3, -4, -5, -6], [-9] * 6]
    defects = [Box(0, 40, 8, 9), Box(33, 70, 5, 5), None, None]  # cells 1 and 5 of two rows of three
    boards = [script.Board((), int(one is not None), one) for one in defects]
    bags = script.Bags(10**6)
    for value in values:
        bags.add(torch.tensor(value)[:, None])
    assert script.judged(head.eval(), bags, boards, columns=3) == "error 0.250 · AUC 1.000 · hit 0.500"
    assert script.touches(5, 3, defects[1])
    assert not script.touches(2, 3, defects[1])


def test_the_kind_is_that_of_the_best_cell_or_none(script: Any) -> None:
    """Cells of two numbers: how much speaks for a defect, and of which kind it is."""
    settings = ModelSettings(
        name="evidence",
        attention=AttentionSettings(name="timm:test_resnet", weights=None, stages=(2,), stride=8, hidden=2),
        evidence=EvidenceSettings(1.0, "none"),
    )
    model = build_model(settings, script.CLASSES, channels=3, seed=0, pretrained=False)
    head = EvidenceHead(2, 2, 1)
    with torch.no_grad():
        head.first.copy_(torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]))
        head.second.copy_(torch.tensor([[[5.0], [-5.0]]]))
        head.first_bias.zero_()
        model.attention.head = head.eval()
        model.head = torch.nn.Linear(2, len(script.CLASSES))
        model.head.weight.zero_()
        model.head.weight[:, 1] = torch.linspace(-1, 1, len(script.CLASSES))  # the last kind where it is positive
        model.head.bias.zero_()
    last = len(script.CLASSES) - 1
    values = [[[4.0, 3], [-4, -3]], [[4, -3], [-4, 3]], [[-4, 3], [-4, 3]]]
    bags = script.Bags(10**6)
    for value in values:
        bags.add(torch.tensor(value))
    boards = [script.Board((), label, None) for label in (last, 1, 0)]
    assert script.kinds_error(model.eval(), bags, boards) == 0
    boards = [script.Board((), label, None) for label in (last, last, 1)]
    assert script.kinds_error(model.eval(), bags, boards) == 2 / 3

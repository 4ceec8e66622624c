"""The journal of a prediction: what survives a stop, what is taken over, and what is not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.errors import ConfigError
from foveate.images import ArraySource
from foveate.models import DrawOptions, build_model
from foveate.models.types import Prediction, Receipt
from foveate.predict import Failure, Journal, Row, dependencies

ABOUT = {"model": "1f", "samples": 1, "method": None}
RECEIPT = Receipt(3, None, 1000, 5000, {"open": 0.1 + 0.2, "read": 1e-9}, 3 * 10**8)


def rows(*names: str) -> list[Row]:
    return [Row(name, lambda: ArraySource(np.zeros((2, 3), np.uint8))) for name in names]


def found(row: Row, share: float = 0.1 + 0.2) -> Prediction:
    shares = {"a": share, "b": 1 - share}
    return Prediction(row.path, "b", shares, 3, 1000, 0.123456789, receipt=RECEIPT)


@contextmanager
def begun(path: Path, images: list[Row], rank: int = 0, world: int = 1) -> Iterator[Journal]:
    """A journal as a process opens it that goes on with what there is."""
    journal = Journal(path, images, ABOUT)
    journal.read()
    with journal.writing(rank, world):
        yield journal


def left(path: Path, images: list[Row]) -> list[str]:
    journal = Journal(path, images, ABOUT)
    journal.read()
    return [row.path for row in journal.left()]


def test_outcomes_come_back_as_they_were_in_the_order_of_the_rows(tmp_path: Path) -> None:
    out, images = tmp_path / "p.csv", rows("a,\n.png", "b\udce9.png", "c.png", "d.png")
    told = [found(images[0]), Failure("b\udce9.png", "open", "no"), found(images[2], 0.7), found(images[3])]
    for rank in (1, 0):
        with begun(out, images, rank, 2) as journal:
            for row, outcome in list(zip(images, told, strict=True))[rank::2][::-1]:
                journal(row, outcome)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p.csv.partial-0", "p.csv.partial-1"]
    journal.read()
    assert [(row, outcome) for row, outcome, _ in journal.outcomes()] == list(zip(images, told, strict=True))
    journal.discard()
    assert list(tmp_path.iterdir()) == []


def test_whole_lines_survive_whatever_ends_the_process(tmp_path: Path) -> None:
    out, images = tmp_path / "p.csv", rows("a.png", "b.png", "c.png")
    with begun(out, images) as journal:
        for row in images:
            journal(row, found(row))
    whole = (tmp_path / "p.csv.partial").read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for length in {*range(0, len(whole) + 1, 7), *(end + i for end in ends for i in (-1, 0, 1))}:
        (tmp_path / "p.csv.partial").write_bytes(whole[:length])
        done = max(0, sum(end <= length for end in ends) - 1)  # the newline itself may be what is missing
        assert left(out, images) == [row.path for row in images[done:]]
        with begun(out, images) as journal:
            for row in journal.left():
                journal(row, found(row, 0.25))
        journal.read()
        shares = [outcome.probabilities["a"] for _, outcome, _ in journal.outcomes() if isinstance(outcome, Prediction)]
        assert shares == [0.1 + 0.2] * done + [0.25] * (3 - done)


def test_images_are_known_by_their_names_and_not_by_their_places(tmp_path: Path) -> None:
    out, images = tmp_path / "p.csv", rows("a.png", "same.png", "same.png", "b.png")
    with begun(out, images) as journal:
        journal(images[2], found(images[2], 0.75))
        journal(images[3], found(images[3]))
    assert left(out, images) == ["a.png", "same.png"]
    assert left(out, rows("b.png", "new.png", "same.png", "same.png")) == ["new.png", "same.png"]
    assert left(out, rows("b.png")) == []


def test_what_failed_is_tried_again_and_counts_if_it_fails_again(tmp_path: Path) -> None:
    out, images = tmp_path / "p.csv", rows("a.png", "b.png")
    with begun(out, images) as journal:
        for row in images:
            journal(row, Failure(row.path, "read", "the network is down"))
    assert left(out, images) == ["a.png", "b.png"]
    with begun(out, images, 1, 2) as journal:
        journal(images[0], found(images[0]))
    journal.read()
    (_, first, _), (_, second, _) = journal.outcomes()
    assert (first, second) == (found(images[0]), Failure("b.png", "read", "the network is down"))


def test_what_does_not_hold_any_more_is_left_to_do(tmp_path: Path) -> None:
    out, images, still = tmp_path / "p.csv", rows("a.png", "b.png"), ["a.png"]
    journal = Journal(out, images, ABOUT, lambda row: {"name": row.path}, lambda _, kept: kept["name"] in still)
    with journal.writing():
        for row in images:
            journal(row, found(row))
    journal.read()
    assert [row.path for row in journal.left()] == ["b.png"]
    still.append("b.png")
    journal.read()
    assert [kept for _, _, kept in journal.outcomes()] == [{"name": "a.png"}, {"name": "b.png"}]


def test_work_of_other_options_is_refused(tmp_path: Path) -> None:
    out, images = tmp_path / "p.csv", rows("a.png")
    with Journal(out, images, ABOUT | {"samples": 4}).writing(3, 8):
        pass
    with pytest.raises(ConfigError) as caught:
        left(out, images)
    assert str(caught.value) == (
        f"{out}.partial-3 is unfinished work with samples 4, and this call has samples 1: give what that call was "
        "given, or leave out --resume to begin anew"
    )


def test_files_that_are_not_of_the_journal_are_let_be(tmp_path: Path) -> None:
    out, images = tmp_path / "p.csv", rows("a.png")
    for name in ("p.csv.partial-x", "q.csv.partial", "p.csv.partial-", "xp.csv.partial-1"):
        (tmp_path / name).write_text("mine")
    journal = Journal(out, images, ABOUT)
    journal.read()
    journal.discard()
    assert len(list(tmp_path.iterdir())) == 4


def test_an_outcome_that_cannot_be_seen_from_here_is_an_error(tmp_path: Path) -> None:
    out, images = tmp_path / "p.csv", rows("a.png", "b.png")
    with begun(out, images, 0, 2) as journal:
        journal(images[0], found(images[0]))
    journal.read()
    with pytest.raises(ConfigError) as caught:
        list(journal.outcomes())
    assert str(caught.value) == (
        f"1 of 2 images are in no {out}.partial-*: --out must be on a file system that all processes share; copy those "
        "files together, and --resume"
    )


def test_all_that_decides_a_prediction_is_in_its_dependencies() -> None:
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=3, features=FeatureSettings(width=8)
    )
    model = build_model(settings, ("left", "right"), channels=3, seed=5)
    options = DrawOptions(2, None, 7)
    first = dependencies(model, options, what_if=3)
    assert first == dependencies(build_model(settings, ("left", "right"), channels=3, seed=5), options, what_if=3)
    assert json.loads(json.dumps(first)) == first
    assert dependencies(model, replace(options, method=model.method), what_if=3) == first
    changed = [replace(options, samples=3), replace(options, method="top"), replace(options, seed=8)]
    others = [dependencies(model, one, what_if=3) for one in changed]
    others += [dependencies(model, options, what_if=2)]
    others += [dependencies(build_model(settings, ("left", "top"), channels=3, seed=5), options, what_if=3)]
    others += [dependencies(build_model(replace(settings, patches=4), ("left", "right"), channels=3, seed=5), options)]
    last = list(model.state_dict().values())[-1]
    with torch.no_grad():
        last.view(-1)[-1:] += 1e-6
    others += [dependencies(model, options, what_if=3)]
    assert all(other != first for other in others)

"""A minute of fuzzing: what once failed, and some mutations of every format. `make fuzz` goes on for an hour."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz import FAILED, FORMATS, Mutation, Worker, look, mutated, write

from foveate.__main__ import main
from foveate.models import load_model

pytest.importorskip("rasterio")
pytest.importorskip("zarr")

SEEDS = range(1000, 1016)
"""Of the mutations of every format."""


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return {name: make() for name, make in FORMATS.items()}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    running = Worker(str(tmp_path_factory.mktemp("fuzz")))
    yield running
    running.close()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", FORMATS)
def test_whole_files_are_read_and_mutations_read_or_refused_in_a_line(
    name: str, worker: Worker, tmp_path: Path, contents: dict[str, bytes]
) -> None:
    whole = tmp_path / name
    write(whole, name, contents[name], None)
    load_model(whole) if name == "model" else look(whole)
    seeds = [*SEEDS, *(seed for failed, seed in FAILED if failed == name)]
    wrong = {seed: said for seed in seeds if (said := worker.ask(Mutation(name, seed)))}
    assert wrong == {}


def test_a_process_that_a_mutation_ends_is_reported_and_started_again(
    worker: Worker,
) -> None:
    """The harness itself: an unknown format ends its process."""
    assert worker.ask(Mutation("no such format", 1)) == "the process ended, exit code 1"
    assert worker.ask(Mutation("a.png", 1)) == ""


def test_mutations_are_determined_by_their_seed_and_differ() -> None:
    content = bytes(range(256)) * 4
    some = [mutated(content, np.random.default_rng(seed)) for seed in range(40)]
    assert some == [mutated(content, np.random.default_rng(seed)) for seed in range(40)]
    assert len({*some, content}) > 35


def test_info_on_a_folder_of_mutations_answers_every_one(
    tmp_path: Path, contents: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for number, name in enumerate(sorted(set(FORMATS) - {"model"})):
        path = tmp_path / f"{number}-{name}"
        Mutation(name, 2000 + number).write(tmp_path / name, contents)
        (tmp_path / name).rename(path)
        paths.append(str(path))
    assert main(["info", "--json", *paths]) in (0, 2, 3)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["path"] for one in told] == paths
    assert all("error" in one or "size" in one for one in told)

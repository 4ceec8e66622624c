"""What a comparison is made of: one file, every mistake in it one line, and what was settled kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foveate.compare import CompareSettings, load_comparison, save_comparison
from foveate.compare.plan import Part, plan, read_part, shared_out
from foveate.config.serial import from_plain
from foveate.errors import ConfigError

FILE = """
preset: smoke
base: {training: {epochs: 3}, model: {patches: 4}}
seeds: [2, 5]
folds: 3
reference: u-4
methods:
  ats-4:
  u-4: {settings: {model: {name: uniform, view: {scale: 0.5}}}, seeds: [5]}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "comparison.yaml"
    path.write_text(text)
    return path


def test_methods_change_the_base_and_may_run_fewer_seeds(tmp_path: Path) -> None:
    settings = load_comparison(written(tmp_path, FILE))
    ats, uniform = settings.resolved()
    assert (ats.name, ats.seeds, ats.settings.model.name) == ("ats-4", (2, 5), "attention-sampling")
    assert (uniform.name, uniform.seeds, uniform.settings.model.name) == ("u-4", (5,), "uniform")
    assert uniform.settings.model.view.scale == 0.5
    assert ats.settings.model.view.longest_side == 512  # of the preset
    assert ats.settings.training.epochs == uniform.settings.training.epochs == 3


def test_what_is_saved_says_the_same_without_the_preset(tmp_path: Path) -> None:
    settings = load_comparison(written(tmp_path, FILE))
    save_comparison(settings, tmp_path / "settled.yaml")
    again = load_comparison(tmp_path / "settled.yaml")
    assert again.preset is None
    assert again.resolved() == settings.resolved()
    assert (again.folds, again.reference, again.seeds) == (3, "u-4", (2, 5))
    assert set(again.methods["u-4"].settings) == {"model"}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"methods": {}}, "there is nothing to compare: give at least one method under methods"),
    (
        {"methods": {"a/b": {}}},
        "'a/b' cannot name a method, whose folder it names, too: use letters, digits, . _ and -",
    ),
    ({"methods": {"A": {}, "a": {}}}, "methods must differ in more than upper and lower case: rename one"),
    (
        {"methods": {"a": {}}, "minutes": 0},
        "minutes must be positive, got 0.0: set it to e.g. 5, or leave it out",
    ),
    (
        {"methods": {"a": {}, "b": {"as_long_as": "a"}}, "minutes": 3},
        "minutes gives all methods the same time: leave out as_long_as of b",
    ),
    ({"methods": {"a": {}}, "fold": 3}, "unknown key fold: did you mean folds?"),
    ({"methods": {"a": {"seed": [1]}}}, "unknown key methods.a.seed: did you mean methods.a.seeds?"),
    ({"methods": {"a": {}}, "folds": 1}, "folds must be at least 2, got 1: set it to 2 or more"),
    ({"methods": {"a": {}}, "reference": "b"}, "reference 'b' is none of the methods a: name one of them"),
    (
        {"methods": {"a": {}}, "seeds": [1, 1]},
        "seeds must be different numbers from 0 up, got [1, 1]: remove the others",
    ),
    (
        {"methods": {"a": {"as_long_as": "b"}, "b": {}}},
        "a is to train as long as 'b': list that method before it",
    ),
    (
        {"methods": {"a": {"seeds": [1]}, "b": {"as_long_as": "a", "seeds": [0]}}},
        "b is to train as long as a, which has no run of seed 0: give both the same seeds",
    ),
    (
        {"methods": {"a": {"settings": {"model": {"patchs": 3}}}}},
        "methods.a.settings: unknown key model.patchs: did you mean model.patches?",
    ),
    ({"methods": {"a": {}}, "base": {"sed": 1}}, "base: unknown key sed: did you mean seed?"),
    (
        {"methods": {"a": {"settings": {"data": {"noise": 3}, "seed": 2}}}},
        "a differs from the base in seed, data.noise: compare on the same images, set it under base (or seeds) for all",
    ),
    ({"methods": {"a": {}}, "cost": {"rounds": 0}}, "cost.rounds must be at least 1, got 0: set it to 1 or more"),
]


@pytest.mark.parametrize(("plain", "message"), MISTAKES, ids=[message[:30] for _, message in MISTAKES])
def test_every_mistake_is_one_line(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_plain(CompareSettings, plain).resolved()
    assert str(caught.value) == message


def test_a_file_that_is_none_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file or directory; give an existing YAML file$"):
        load_comparison(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"is not YAML \(line 2\): write `key: value` lines, nested by two spaces$"):
        load_comparison(written(tmp_path, "a: 1\n b: 2\n"))
    with pytest.raises(ConfigError, match=r"must hold `key: value` lines, methods among them"):
        load_comparison(written(tmp_path, "- a\n"))


def test_folders_have_seeds_and_folds_only_where_there_are_several() -> None:
    one = from_plain(CompareSettings, {"methods": {"a": {}, "b": {}}})
    assert [trial.name for trial in plan(one)] == ["a", "b"]
    assert [trial.name for trial in plan(replace(one, folds=2))] == ["a/fold-1", "b/fold-1", "a/fold-2", "b/fold-2"]
    several = from_plain(CompareSettings, {"methods": {"a": {}, "b": {"seeds": [7]}}, "seeds": [7, 8]})
    assert [trial.name for trial in plan(several)] == ["a/seed-7", "b/seed-7", "a/seed-8"]


@pytest.mark.parametrize("of", [1, 2, 3, 5])
def test_parts_share_out_every_run_once_and_every_method_evenly(of: int) -> None:
    methods = {"a": {}, "b": {"seeds": [0]}, "c": {"as_long_as": "a"}, "d": {}}
    settings = from_plain(CompareSettings, {"methods": methods, "seeds": [0, 1, 2], "folds": 10})
    trials = plan(settings)
    parts = [shared_out(trials, Part(number, of)) for number in range(1, of + 1)]
    assert sorted(trial.name for trial in trials) == sorted(trial.name for part in parts for trial in part)
    for method, runs in (("a", 30), ("b", 10), ("c", 30), ("d", 30)):
        counts = [sum(trial.method.name == method for trial in part) for part in parts]
        assert sum(counts) == runs
        assert max(counts) - min(counts) <= 1
    for part in parts:  # who waits for a run is where that is done
        done = {(trial.seed, trial.fold) for trial in part if trial.method.name == "a"}
        assert done == {(trial.seed, trial.fold) for trial in part if trial.method.name == "c"}


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/", "-1/2"])
def test_a_part_that_is_none(text: str) -> None:
    assert read_part("2/2") == Part(2, 2)
    with pytest.raises(ConfigError) as caught:
        read_part(text)
    assert str(caught.value) == (
        f"a part is I/K with I from 1 to K, got {text!r}: write e.g. --part 1/2, and 2/2 elsewhere"
    )


def test_figures_of_the_literature_in_an_older_file_are_refused_unless_there_are_none() -> None:
    plain = {"methods": {"a": {}}}
    assert from_plain(CompareSettings, {**plain, "reported": {}}) == from_plain(CompareSettings, plain)
    with pytest.raises(ConfigError, match=r"^reported is no longer a setting: leave it out$"):
        from_plain(CompareSettings, {**plain, "reported": {"a": {"error": 0.1}}})

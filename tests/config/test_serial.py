from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from foveate.config.serial import from_plain, to_plain
from foveate.config.settings import AttentionSettings, ModelSettings, ViewSettings
from foveate.config.training import RunSettings
from foveate.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    inner: Inner
    kind: Literal["plain", "fancy"] = "plain"
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    on: bool = False
    name: str | None = None
    number: int | float = 0
    folder: Path = Path("here")
    table: dict[str, Inner] = field(default_factory=dict)


FULL = Outer(Inner(3, 0.25), "fancy", (4, 5), (1.0, 2.5), True, "x", 2.5, Path("a/b"), {"k": Inner(1)})


def test_there_and_back() -> None:
    plain = to_plain(FULL)
    assert plain == {
        "inner": {"count": 3, "share": 0.25},
        "kind": "fancy",
        "pair": [4, 5],
        "many": [1.0, 2.5],
        "on": True,
        "name": "x",
        "number": 2.5,
        "folder": "a/b",
        "table": {"k": {"count": 1, "share": 0.5}},
    }
    assert from_plain(Outer, plain) == FULL
    assert from_plain(Outer, {"inner": {"count": 3}}) == Outer(Inner(3))


@settings(max_examples=50, deadline=None)
@given(st.builds(ModelSettings, view=st.builds(ViewSettings), attention=st.builds(AttentionSettings)))
def test_model_settings_survive_the_way_there_and_back(model: ModelSettings) -> None:
    assert from_plain(ModelSettings, to_plain(model)) == model


def test_a_number_that_yaml_reads_as_text_is_a_number() -> None:
    found = from_plain(Inner, {"count": 1, "share": "1e-5"})
    assert found.share == 1e-5
    whole = from_plain(Inner, {"count": 1, "share": 2})
    assert isinstance(whole.share, float)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"inner": {"count": 1}, "knid": "fancy"}, "unknown key run.knid: did you mean run.kind?"),
        ({"inner": {"cuont": 1}}, "unknown key run.inner.cuont: did you mean run.inner.count?"),
        ({"inner": {"zzz": 1}}, "unknown key run.inner.zzz: known keys are count, share"),
        ({"inner": {}}, "missing key run.inner.count: it has no default, set it"),
        ({"inner": 3}, "run.inner must be a mapping of keys to values, got 3"),
        ([], "run must be a mapping of keys to values, got []"),
        (
            {"inner": {"count": 1}, "kind": "fency"},
            "run.kind must be one of plain, fancy, got 'fency': did you mean fancy?",
        ),
        ({"inner": {"count": 1}, "pair": [1]}, "run.pair must have 2 values, got 1: [1]"),
        ({"inner": {"count": 1}, "pair": 7}, "run.pair must be a list, got 7"),
        ({"inner": {"count": 1}, "many": [1, "a"]}, "run.many[1] must be a number, got 'a'"),
        ({"inner": {"count": 1}, "on": 1}, "run.on must be true or false, got 1"),
        ({"inner": {"count": 1}, "name": 1}, "run.name must be text, got 1"),
        ({"inner": {"count": True}}, "run.inner.count must be an integer, got True"),
        ({"inner": {"count": 1.5}}, "run.inner.count must be an integer, got 1.5"),
        ({"inner": {"count": 1, "share": None}}, "run.inner.share must be a number, got None"),
        ({"inner": {"count": 1, "share": True}}, "run.inner.share must be a number, got True"),
        ({"inner": {"count": 1}, "table": {"k": {}}}, "missing key run.table.k.count: it has no default, set it"),
    ],
)
def test_errors_name_the_key_and_the_remedy(plain: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_plain(Outer, plain, "run")
    assert str(caught.value) == message


def test_settings_that_are_gone_are_read_at_the_value_that_did_nothing_and_else_refused() -> None:
    """Every setting that some released version wrote into its files, at its default."""
    retired = {
        "model": {"gradient": "exact"},
        "training": {
            "undrawn": 0.0,
            "workers": 3,
            "anneal": {"undrawn": {"first": None, "last": None, "hold": 0.0, "over": 0.5}},
        },
    }
    assert from_plain(RunSettings, retired) == RunSettings()
    for name, plain in (
        ("model.gradient", {"model": {"gradient": "original"}}),
        ("training.undrawn", {"training": {"undrawn": 0.3}}),
        ("training.anneal.undrawn", {"training": {"anneal": {"undrawn": {"first": 0.1}}}}),
    ):
        with pytest.raises(ConfigError) as caught:
            from_plain(RunSettings, plain)
        assert str(caught.value) == f"{name} is no longer a setting: leave it out"

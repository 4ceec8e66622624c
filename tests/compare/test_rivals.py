"""Rivals of attention sampling in one table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from foveate.compare import compare

RIVALS = ["top-k"]


def test_rivals_stand_in_one_table(
    tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    methods = {"ats-3": {}, **{name: {"settings": {"model": {"name": name}}} for name in RIVALS}}
    told = compare(settings_of(methods=methods), tmp_path, dataset=spots_of(splits=True), tell=lambda _: None)
    assert told is not None
    assert [one.name for one in told.methods] == ["ats-3", *RIVALS]
    for one in told.methods:
        assert one.cost is not None
        assert one.cost.patches_per_image == 3
        assert one.quality.n == 6

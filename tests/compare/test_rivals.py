"""Rivals of attention sampling in one table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foveate.compare import compare

RIVALS = ["top-k", "perturbed-top-k", "gmic"]


@pytest.mark.slow
def test_rivals_stand_in_one_table(
    tmp_path: Path, spots_of: Callable[..., Any], settings_of: Callable[..., Any]
) -> None:
    few: dict[str, Any] = {"perturbed": {"samples": 20}}
    methods = {"ats-3": {}, **{name: {"settings": {"model": {"name": name, **few}}} for name in RIVALS}}
    cost = {"batch": 4, "rounds": 1, "warm_up": 0, "process": False}
    settings, images = settings_of(methods=methods, cost=cost), spots_of(splits=True)
    told = compare(settings, tmp_path, dataset=images, tell=lambda _: None)
    assert told is not None
    assert [one.name for one in told.methods] == ["ats-3", *RIVALS]
    for one in told.methods:
        assert one.cost is not None
        assert one.cost.patches_per_image == 3
        assert one.quality.n == 6

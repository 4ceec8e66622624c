"""The pictures of concepts, against what theory says of their curves."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "experiments" / "concept_pictures.py"


def test_errors_fall_as_theory_says(script: Any) -> None:
    errors = script.estimator_errors("peaky", fields=4, draws=300, seed=0)
    first = errors["iid"][0]
    for n, error in zip(script.PATCHES, errors["iid"], strict=True):
        assert error * n == pytest.approx(first, rel=0.25)
    assert errors["murthy"][-1] < errors["des_raj"][-1] < errors["iid"][-1] < errors["uniform"][-1]


def test_both_pictures_are_drawn(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = tmp_path / "first.png", tmp_path / "second.png"
    monkeypatch.setattr(script, "PATCHES", (2, 5))
    monkeypatch.setattr(script, "CORRELATIONS", (0.0, 0.9))
    monkeypatch.setattr(sys, "argv", ["concept_pictures.py", *map(str, files), "--draws", "60", "--fields", "2"])
    script.main()
    assert all(file.stat().st_size > 5000 for file in files)
    last = capsys.readouterr().out.splitlines()[-1]
    without, with_much = (float(value) for value in re.findall(r": ([\d.]+)", last))
    assert without == pytest.approx(10, rel=0.3)
    assert with_much > 2 * without

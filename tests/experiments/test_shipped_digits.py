"""The digits of the shipped model: a third of them scikit-learn's, no test digit among those for training."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from foveate.datasets.megapixel_mnist.digits import load_pools

SCRIPT = Path(__file__).parents[2] / "experiments" / "shipped_digits.py"


def test_both_kinds_are_in_both_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    halves = {}
    for split, count in (("train", 6000), ("test", 1500)):
        halves[f"x_{split}"] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        halves[f"y_{split}"] = np.arange(count, dtype=np.uint8) % 10
    np.savez(tmp_path / "other.npz", **halves)
    out = tmp_path / "digits.npz"
    monkeypatch.setattr(sys, "argv", ["shipped_digits.py", "--mnist", str(tmp_path / "other.npz"), "--out", str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    shown = []
    for split, pool, bundled in zip(("train", "test"), load_pools(str(out)), load_pools("bundled"), strict=True):
        count = len(halves[f"x_{split}"])
        assert np.array_equal(pool.images[:count], halves[f"x_{split}"])
        added = pool.images[count:]
        assert len(added) % len(bundled.images) == 0
        assert np.array_equal(added[-len(bundled.images) :], bundled.images)
        assert len(added) / len(pool.images) == pytest.approx(1 / 3, abs=0.08)
        shown.append({image.tobytes() for image in added})
    assert not shown[0] & shown[1]

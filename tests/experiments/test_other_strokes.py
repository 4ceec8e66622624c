"""Strokes of other generators: on the same canvases, at the same places, different on every one."""

import sys
from dataclasses import replace

import numpy as np
import other_strokes
import pytest

from foveate.config.settings import DataSettings
from foveate.datasets import megapixel_mnist
from foveate.types import Box

SMALL = DataSettings(canvas=(300, 420), train_images=1, test_images=12, noise=9, strokes="fresh")


@pytest.mark.parametrize("kind", other_strokes.KINDS)
def test_patterns_are_strokes_and_no_two_are_alike(kind: str) -> None:
    generator = np.random.default_rng(3)
    patterns = np.stack([other_strokes.KINDS[kind](generator) for _ in range(300)])
    assert (patterns.shape, patterns.dtype) == ((300, 28, 28), np.uint8)
    lit = (patterns > 0).mean((1, 2))
    assert lit.min() > 0
    assert lit.max() < 0.5
    assert len({pattern.tobytes() for pattern in patterns}) == 300


@pytest.mark.parametrize("kind", other_strokes.KINDS)
def test_the_canvases_are_the_same_but_for_their_strokes(kind: str) -> None:
    own = megapixel_mnist(replace(SMALL, noise_over_digits=False))
    other = other_strokes.with_strokes(own, other_strokes.KINDS[kind], SMALL.noise, 5)
    assert other.examples == own.examples
    np.testing.assert_array_equal(other.positions, own.positions)
    strokes = other.stamp_index[:, 5:]
    assert len({other.stamps[i].tobytes() for i in strokes.ravel()}) == len(own) * SMALL.noise
    for index in range(len(own)):
        assert other.digits(index) == own.digits(index)
        for _, box in own.digits(index):
            np.testing.assert_array_equal(other.open(index).read(box), own.open(index).read(box))
        whole = Box(0, 0, *own.size)
        assert not np.array_equal(other.open(index).read(whole), own.open(index).read(whole))


def test_a_line_is_printed_for_every_kind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["other_strokes.py", "--images", "4", "--strokes", "own", "lines", "--under"])
    other_strokes.main()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("bundled, own strokes under the digits: error ")
    assert second.startswith("bundled, lines strokes under the digits: error ")
    assert second.endswith(" of 5 digits covered")

import hashlib

import numpy as np
import pytest
from scipy.stats import chi2

from foveate.datasets.megapixel_mnist.strokes import Uniforms, draw_strokes, draw_varied_strokes

FAILURE_RATE = 1e-6
"""Chance that a correct generator fails one of the bounds below, for a seed chosen at random; the seed is fixed."""


def test_the_stream_is_the_documented_one_for_ever() -> None:
    # 53 bits of PCG64 seeded with derive_seed; if this changes, every data set generated before is another one
    assert Uniforms(0, "train", 12).draw(3).tolist() == [0.3309134386777075, 0.018645962058297827, 0.5518384148096047]


def test_numbers_are_uniform() -> None:
    numbers = Uniforms(1).draw(100, 200)
    counts = np.histogram(numbers, bins=50, range=(0, 1))[0]
    statistic = ((counts - 400) ** 2 / 400).sum()
    assert numbers.shape == (100, 200)
    assert statistic < chi2.isf(FAILURE_RATE, 49)


@pytest.mark.parametrize("high", [1, 3, 10, 1473])
def test_integers_reach_both_ends_and_no_further(high: int) -> None:
    numbers = Uniforms(2, high).integers(high, 20_000)
    assert (numbers.min(), numbers.max()) == (0, high - 1)


def test_one_integer_at_a_time_is_the_same_stream() -> None:
    one, many = Uniforms(3), Uniforms(3).integers(1473, 40)
    assert [one.integer(1473) for _ in range(40)] == many.tolist()


def test_strokes_are_two_lines_through_corners() -> None:
    bank = draw_strokes(Uniforms(0, "train", "strokes"), 50, 28)
    assert bank.shape == (50, 28, 28)
    assert bank.dtype == np.uint8
    lit = bank > 0
    assert lit.sum((1, 2)).min() >= 28  # a stroke crosses the whole square along one axis
    assert lit.sum((1, 2)).max() <= 2 * 56  # and is drawn in half pixel steps
    corners = lit[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners[:, 0].all()  # the first stroke leaves the upper left corner
    assert corners[:, 1:3].any(0).all()  # some of the second ones leave the others
    assert bank[lit].min() >= 0.8 * 255 - 1
    assert len(np.unique(bank[lit])) > 40


def test_strokes_have_no_gaps() -> None:
    for pattern in draw_strokes(Uniforms(5), 50, 28):
        points = np.argwhere(pattern)
        near = np.abs(points[:, None] - points[None]).max(2) <= 1
        assert (near.sum(1) >= 2).all()  # itself and a neighbour


def test_banks_of_other_seeds_differ() -> None:
    assert not np.array_equal(draw_strokes(Uniforms(0, "train"), 50, 28), draw_strokes(Uniforms(0, "test"), 50, 28))


def test_varied_strokes_are_a_third_those_of_the_paper_and_the_rest_of_many_kinds() -> None:
    patterns = draw_varied_strokes(Uniforms(7), 3000, 28)
    assert (patterns.shape, patterns.dtype) == ((3000, 28, 28), np.uint8)
    ink = patterns.reshape(3000, -1)
    assert ink.max(1).min() > 0
    straight = (ink >= 204).sum(1) == (ink > 0).sum(1)  # a pen's edges are soft, most pens are dimmer
    assert abs(straight[patterns[:, [0, 0, -1, -1], [0, -1, 0, -1]].any(1)].sum() / 3000 - 1 / 3) < 0.05
    bent = ink[~straight]
    assert bent.max(1).min() < 150 < 240 < bent.max(1).max()
    lit = (bent > 0).sum(1)
    assert np.quantile(lit, 0.05) < 40 < 120 < np.quantile(lit, 0.95)


def test_a_stroke_depends_on_its_stream_alone_and_no_two_are_alike() -> None:
    for draw in (draw_strokes, draw_varied_strokes):
        one, again, other = draw(Uniforms(8), 400, 28), draw(Uniforms(8), 400, 28), draw(Uniforms(9), 400, 28)
        np.testing.assert_array_equal(one, again)
        assert len({pattern.tobytes() for pattern in (*one, *other)}) == 800


def test_the_patterns_are_these_for_ever() -> None:
    # if one of these changes, every data set of its kind generated before is another one
    made = [draw(Uniforms(0, "train", "strokes"), 50, 28).tobytes() for draw in (draw_strokes, draw_varied_strokes)]
    assert [hashlib.blake2b(one, digest_size=8).hexdigest() for one in made] == ["441b95d69bc83c51", "1b8db561ed6867f1"]

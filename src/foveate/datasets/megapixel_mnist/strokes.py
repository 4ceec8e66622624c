"""Noise strokes of Megapixel MNIST: pairs of straight pen strokes."""

import numpy as np
import numpy.typing as npt

from foveate.seeds import derive_seed


class Uniforms:
    """Random stream of independent numbers, uniform over [0, 1), that its seed determines for ever.

    NumPy promises the raw bits of a bit generator across versions, but not what its `Generator` makes of them; so
    the 53 bits of a number are taken from there.

    Arguments:
        parts: what identifies the stream; see `foveate.seeds.derive_seed`.

    Example:
        >>> Uniforms(0, "train", 12).draw(2) == Uniforms(0, "train", 12).draw(2)
        array([ True,  True])
    """

    def __init__(self, *parts: int | str) -> None:
        self._bits = np.random.PCG64(derive_seed(*parts))

    def draw(self, *shape: int) -> npt.NDArray[np.float64]:
        """The next numbers, in an array of the given shape."""
        raw = np.asarray(self._bits.random_raw(int(np.prod(shape))), dtype=np.uint64)
        return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def integers(self, high: int, *shape: int) -> npt.NDArray[np.int64]:
        """The next integers, uniform over 0 … high − 1, in an array of the given shape."""
        return np.asarray(np.floor(self.draw(*shape) * high), dtype=np.int64)

    def integer(self, high: int) -> int:
        """The next integer, uniform over 0 … high − 1."""
        return int((int(self._bits.random_raw()) >> 11) * 2.0**-53 * high)


FLIP_PROBABILITY = 0.33
"""Of each axis of the second stroke, as in the original code."""


def draw_strokes(uniforms: Uniforms, count: int, side: int) -> npt.NDArray[np.uint8]:
    """Noise patterns, a bank of them, each the union of two straight strokes through a corner.

    A stroke leaves a corner at slope tan(u·π/2.5), u uniform over [0, 1); the second of a pair is the first of a
    random other pair, upside down and left to right with probability 0.33 each. Every pixel is bright by
    U(0.8, 1). The original code flips one axis twice, so that its strokes leave the upper corners only; here either
    axis flips.

    Katharopoulos and Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models", ICML 2019, and its
    code.

    Arguments:
        uniforms: where the random numbers come from.
        count: number of patterns.
        side: height and width of a pattern, in pixels.

    Returns:
        (count, side, side) patterns; 0 is background.

    Example:
        >>> bank = draw_strokes(Uniforms(0), 50, 28)
        >>> bank.shape, int(bank[bank > 0].min()) >= 204
        ((50, 28, 28), True)
    """
    slopes = np.tan(uniforms.draw(count) * np.pi / 2.5)
    steps = np.linspace(0, side - 1, 2 * side)
    rows = np.rint(steps * np.minimum(1.0, 1.0 / np.maximum(slopes, 1e-9))[:, None]).astype(int)
    columns = np.rint(steps * np.minimum(1.0, slopes)[:, None]).astype(int)
    first = np.zeros((count, side, side), dtype=bool)
    first[np.arange(count)[:, None], rows, columns] = True
    second = first[np.argsort(uniforms.draw(count), kind="stable")]
    for axis in (1, 2):
        flipped = uniforms.draw(count) < FLIP_PROBABILITY
        second[flipped] = np.flip(second[flipped], axis)
    brightness = 0.8 + 0.2 * uniforms.draw(count, side, side)
    return ((first | second) * brightness * 255).astype(np.uint8)


STEPS, REACH = 40, 2
"""Longest pen stroke, in pixels, and how many pixels beside its middle a pen can blacken."""


def draw_varied_strokes(uniforms: Uniforms, count: int, side: int) -> npt.NDArray[np.uint8]:
    """Noise patterns of many kinds: a third of them `draw_strokes`', the others one or two strokes of a wandering pen.

    A pen goes 8 to 40 pixels, a pixel a step. Its heading turns at a rate of its own (a third of the pens: 0; else
    up to a circle of radius 10), wanders, or jumps at corners; the middle of its way lies anywhere in the middle two
    thirds of the square. It is 1 to 2.6 pixels wide with soft edges and has a brightness of U(0.5, 1), of which every
    pixel of the pattern has 80 to 100 %.

    Arguments:
        uniforms: where the random numbers come from.
        count: number of patterns.
        side: height and width of a pattern, in pixels.

    Returns:
        (count, side, side) patterns; 0 is background.

    Example:
        >>> bank = draw_varied_strokes(Uniforms(0), 50, 28)
        >>> bank.shape, bool((bank.max((1, 2)) > 0).all())
        ((50, 28, 28), True)
    """
    straight = uniforms.draw(count) < 1 / 3
    pens = uniforms.draw(11, 2, count)
    length = 8 + (STEPS - 8) * pens[0]
    rate = np.where(pens[1] < 1 / 3, 0.0, (pens[2] - 0.5) / 5)
    wander = np.where(pens[3] < 1 / 2, 0.0, 0.6 * pens[4])
    corners = np.where(pens[5] < 1 / 2, 0.0, 0.25 * pens[6])
    walk = uniforms.draw(3, STEPS, 2, count)
    turns = rate + wander * (walk[0] - 0.5) + np.where(walk[1] < corners, 2 * np.pi * (walk[2] - 0.5), 0.0)
    heading = 2 * np.pi * pens[7] + np.cumsum(turns, axis=0)
    way = np.cumsum([np.sin(heading), np.cos(heading)], axis=1)  # (row or column, step, pen, pattern)
    middle = np.take_along_axis(way, (length[None, None] / 2).astype(int), axis=1)
    centres = side * (1 / 6 + 2 / 3 * uniforms.draw(2, 1, 2, count))
    way += centres - middle
    used = np.arange(STEPS)[:, None, None] < length
    used[:, 1] &= pens[8, 1] < 1 / 2  # half the patterns have a second stroke
    used &= ~straight
    steps, pen, pattern = np.nonzero(used)
    points = way[:, steps, pen, pattern]
    width, bright = 1 + 1.6 * pens[9, pen, pattern], 0.5 + 0.5 * pens[10, pen, pattern]
    around = np.indices((2 * REACH + 1, 2 * REACH + 1)).reshape(2, 1, -1) - REACH
    pixels = np.rint(points)[..., None] + around
    apart = np.sqrt(((pixels - points[..., None]) ** 2).sum(0))
    ink = bright[:, None] * np.clip((width[:, None] + 1) / 2 - apart, 0, 1)
    seen = ((pixels >= 0) & (pixels < side)).all(0) & (ink > 0)
    row, column = pixels[:, seen].astype(np.int64)
    drawn = np.zeros(count * side * side)
    np.maximum.at(drawn, (np.broadcast_to(pattern[:, None], seen.shape)[seen] * side + row) * side + column, ink[seen])
    lit = np.flatnonzero(drawn)
    drawn[lit] *= (0.8 + 0.2 * uniforms.draw(len(lit))) * 255
    patterns = drawn.astype(np.uint8).reshape(count, side, side)
    patterns[straight] = draw_strokes(uniforms, int(straight.sum()), side)
    return patterns

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
    first = np.zeros((count, side, side), dtype=bool)
    for stroke, slope in zip(first, slopes, strict=True):
        steps = np.linspace(0, side - 1, 2 * side)
        rows = np.rint(steps * min(1.0, 1.0 / max(slope, 1e-9))).astype(int)
        columns = np.rint(steps * min(1.0, slope)).astype(int)
        stroke[rows, columns] = True
    second = first[np.argsort(uniforms.draw(count), kind="stable")]
    for axis in (1, 2):
        flipped = uniforms.draw(count) < FLIP_PROBABILITY
        second[flipped] = np.flip(second[flipped], axis)
    brightness = 0.8 + 0.2 * uniforms.draw(count, side, side)
    return ((first | second) * brightness * 255).astype(np.uint8)

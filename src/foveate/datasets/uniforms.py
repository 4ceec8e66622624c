"""Random numbers that stay the same on every machine and under every version of NumPy."""

import numpy as np
import numpy.typing as npt

from foveate.seeds import derive_seed

__all__ = ["Uniforms"]


class Uniforms:
    """A stream of independent numbers, uniform over [0, 1), that its seed determines for ever.

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

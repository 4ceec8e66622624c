"""Stain augmentation of haematoxylin-eosin slides: laboratories differ in staining."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

ABSORPTION = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density in red, green and blue of one unit of haematoxylin, of eosin and of DAB."""

UNMIXED = np.linalg.inv(np.array(ABSORPTION))
"""Units of haematoxylin, eosin and DAB in an optical density of 1 in red, in green and in blue."""

DARKEST = 1e-3
"""Intensities below are taken as this one: nothing has no optical density."""

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Stain:
    r"""Stain augmentation: the density of each stain is scaled and shifted.

    .. math:: d = -\log_{10}(x)\, M^{-1}, \qquad x' = \min(10^{-(\alpha d + \beta) M}, 1)

    where the rows of M are what haematoxylin, eosin and DAB absorb in red, green and blue.

    Source: "Quantification of histochemical staining by color deconvolution" (Ruifrok & Johnston 2001) for d and M;
    "Whole-Slide Mitosis Detection in H&E Breast Histology Using PHH3
    as a Reference to Train Distilled Stain-Invariant Convolutional Networks" (Tellez et al. 2018) and "Quantifying the
    effects of data augmentation and stain color normalization in convolutional neural networks for computational
    pathology" (Tellez et al. 2019) for scaling and shifting each stain at random.

    Attributes:
        scale: α of haematoxylin, eosin and DAB.
        shift: β of haematoxylin, eosin and DAB, in optical density.

    Example:
        >>> pixels = np.array([[0.5, 0.25, 0.5], [1.0, 1.0, 1.0]], np.float32)
        >>> Stain().apply(pixels).round(3).tolist() == pixels.tolist()
        True
        >>> Stain(scale=(2.0, 2.0, 2.0)).apply(pixels).round(4)[0].tolist()  # twice the density, the square of x
        [0.25, 0.0625, 0.25]
    """

    scale: Three = (1.0, 1.0, 1.0)
    shift: Three = (0.0, 0.0, 0.0)

    @classmethod
    def drawn(cls, uniform: Float64[np.ndarray, " 6"], strength: float) -> "Stain":
        """Scales in 1 ± strength and shifts in ± strength.

        Arguments:
            uniform: (6,) numbers in [0, 1): for the scales, then for the shifts.
            strength: σ.
        """
        around = [float(strength * (2 * x - 1)) for x in uniform]
        return cls((1 + around[0], 1 + around[1], 1 + around[2]), (around[3], around[4], around[5]))

    def apply(self, pixels: Float[np.ndarray, "*shape 3"]) -> Float32[np.ndarray, "*shape 3"]:
        """Pixels stained otherwise.

        Arguments:
            pixels: (…, 3) red, green and blue in the unit range.

        Returns:
            (…, 3) float32 in (0, 1].
        """
        absorption = np.array(ABSORPTION)
        mix = (UNMIXED * self.scale @ absorption).astype(np.float32)
        darker = (-np.log(10) * (np.array(self.shift) @ absorption)).astype(np.float32)
        logs = np.maximum(pixels, np.float32(DARKEST), dtype=np.float32).reshape(-1, 3)
        np.log(logs, out=logs)
        logs = logs @ mix
        logs += darker
        np.minimum(logs, 0, out=logs)
        result: np.ndarray = np.exp(logs, out=logs)
        return result.reshape(pixels.shape)

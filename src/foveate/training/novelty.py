"""Novelty of cells: how unlike those of background images they are, before anything has been taught."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foveate.training.bags import Bags

FITTED_CELLS = 2**20
"""Cells of background images that the normal distribution is fitted to, at most, evenly spaced."""

RIDGE = 1e-3
"""Share of the mean variance that is added to all variances."""


class Novelty:
    r"""Novelty of cells: the squared Mahalanobis distance from the cells of background images.

    .. math:: d_i = (g_i - \mu)^\top (\Sigma + \lambda I)^{-1} (g_i - \mu),
        \qquad \lambda = \rho \operatorname{tr}(\Sigma) / D

    with μ and Σ the mean and covariance of their features.

    Arguments:
        bags: cells of images.
        background: numbers of the background images.

    Source: Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization"
        (2021), section III, with one distribution for all places.

    Example:
        >>> bags = Bags(10**6)
        >>> bags.add(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]))
        >>> bags.add(torch.tensor([[0.0, 2.0], [1.5, 0.0]]))
        >>> Novelty(bags, [0]).most(bags, 1, 1)
        tensor([1])
    """

    def __init__(self, bags: Bags, background: Sequence[int]) -> None:
        step = -(-sum(bags.cells(row) for row in background) // FITTED_CELLS)
        count, total, product = 0, torch.zeros(1), torch.zeros(1, 1)
        for row in background:
            cells = self._cells(bags, row)[:: min(step, bags.cells(row))]
            count, total, product = count + len(cells), total + cells.sum(0), product + cells.T @ cells
        self.mean = total / count
        values, vectors = torch.linalg.eigh(product / count - torch.outer(self.mean, self.mean))
        values = values.clamp(min=0)
        self.whitening = vectors * (values + RIDGE * values.mean() + 1e-12).rsqrt()

    def of(self, bags: Bags, row: int) -> Float[Tensor, " cell"]:
        """Distances d of the cells of an image."""
        whitened: Tensor = (self._cells(bags, row) - self.mean) @ self.whitening
        return whitened.square().sum(1)

    def most(self, bags: Bags, row: int, count: int) -> Int[Tensor, " place"]:
        """So many cells of an image, or all that it has, the most novel first."""
        return self.of(bags, row).topk(min(count, bags.cells(row))).indices

    @staticmethod
    def _cells(bags: Bags, row: int) -> Float[Tensor, "cell feature"]:
        return bags.batch([row])[0][0].double()

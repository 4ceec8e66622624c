"""Diagnosis of an attention map, from the map alone: collapsed, stuck to the border, or uniform."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

OF_ALL = {
    "collapsed": "train with a larger training.entropy; where there is one thing to see, all is well",
    "uniform": "train longer, or with a smaller training.entropy",
}
"""Remedies where every patch is read; else as `REMEDIES` says."""

REMEDIES = {
    "collapsed": "train with a larger training.entropy or model.attention.smoothing, or with fewer model.patches if "
    "there is one thing to see",
    "border": "look for frames, labels or scan borders and mask them (a manifest's column mask), or train with "
    "augment.translate",
    "uniform": "train longer, with model.prior.contrast 2, with a smaller training.entropy, or with a finer model.view "
    "if what matters cannot be seen in it",
}
"""Remedies: finding → what to do about it."""


@dataclass(frozen=True)
class AttentionHealth:
    r"""Health of one attention map: its figures over the K cells that it may look at, and what they say.

    Attributes:
        cells: K.
        entropy: :math:`H = -\sum_i a_i \log a_i`, in nats.
        border_mass: attention of the cells at the border: those with a neighbour, up, down, left or right, that is
            outside the map or may not be looked at.
        border_cells: their number as a share of K.
        patches: patches drawn per image; 0 where all are read.
    """

    cells: int
    entropy: float
    border_mass: float
    border_cells: float
    patches: int = 0

    @property
    def effective_cells(self) -> float:
        """How many cells share the attention: exp(H), from 1 to K."""
        return math.exp(self.entropy)

    @property
    def findings(self) -> tuple[str, ...]:
        r"""What is wrong, of "collapsed", "border" and "uniform".

        .. math:: e^H < \max(1.5, N / 5), \qquad \frac{m - s}{1 - s} > \tfrac12, \qquad e^H > 0.9 K

        with N patches drawn, and m the mass and s the share of cells of the border: of what could be drawn to the
        border beyond its share, more than half is there. Maps of fewer than four cells are not judged.
        """
        if self.cells < 4:
            return ()
        found = []
        if self.effective_cells < max(1.5, self.patches / 5):
            found.append("collapsed")
        if self.border_cells < 1 and (self.border_mass - self.border_cells) / (1 - self.border_cells) > 0.5:
            found.append("border")
        if self.effective_cells > 0.9 * self.cells:
            found.append("uniform")
        return tuple(found)

    def warnings(self) -> dict[str, str]:
        """Finding → a line with its figures and a remedy.

        Example:
            >>> AttentionHealth(100, 0.0, 0.0, 0.36, 10).warnings()["collapsed"].split(":")[0]
            'attention has collapsed onto 1.0 of 100 cells, fewer than the 10 patches drawn are worth'
        """
        share = f"{self.effective_cells:.1f} of {self.cells:,} cells"
        worth = f"fewer than the {self.patches} patches drawn are worth" if self.patches else "which decides alone"
        told = {
            "collapsed": f"attention has collapsed onto {share}, {worth}",
            "border": f"attention sticks to the border: {100 * self.border_mass:.0f} % of it on the "
            f"{100 * self.border_cells:.0f} % of cells there",
            "uniform": f"attention is as good as uniform, it is spread over {share}",
        }
        remedies = REMEDIES if self.patches else REMEDIES | OF_ALL
        return {finding: f"{told[finding]}: {remedies[finding]}" for finding in self.findings}


def diagnose(
    attention: Float[Tensor, "batch row column"], cell_mask: Bool[Tensor, "batch row column"], patches: int = 0
) -> list[AttentionHealth]:
    """Diagnosis of attention maps.

    Arguments:
        attention: (B, rows, columns) probabilities that sum to 1 for each image; 0 where the mask is False.
        cell_mask: (B, rows, columns) True where the attention may look.
        patches: drawn per image; 0 where all are read.

    Returns:
        Figures of each of the B maps.

    Example:
        >>> import torch
        >>> diagnose(torch.full((1, 6, 7), 1 / 42), torch.ones(1, 6, 7, dtype=torch.bool), 3)[0].findings
        ('uniform',)
    """
    mass = attention.detach().double().masked_fill(~cell_mask, 0)
    edge = cell_mask & ~_inner(cell_mask)
    cells = cell_mask.sum((1, 2))
    entropy, border = torch.special.entr(mass).sum((1, 2)), (mass * edge).sum((1, 2))
    # in one transfer: every look at a value waits for the device
    rows = torch.stack((cells.double(), entropy, border, edge.sum((1, 2)) / cells.clamp(min=1)), 1).tolist()
    return [AttentionHealth(int(row[0]), row[1], row[2], row[3], patches) for row in rows]


def common_warnings(maps: Sequence[AttentionHealth]) -> dict[str, str]:
    """Warnings that hold for more than half of some maps.

    Arguments:
        maps: figures of each.

    Returns:
        Finding → a line: in how many maps, the warning of the one of median entropy among them, and a remedy.

    Example:
        >>> maps = [AttentionHealth(100, 4.6, 0.36, 0.36, 10)] * 3 + [AttentionHealth(100, 3.0, 0.36, 0.36, 10)]
        >>> common_warnings(maps)["uniform"].split(":")[0]
        'in 3 of 4 images attention is as good as uniform, it is spread over 99.5 of 100 cells'
    """
    told = {}
    for finding in REMEDIES:
        found = sorted((one for one in maps if finding in one.findings), key=lambda one: one.entropy)
        if 2 * len(found) > len(maps):
            told[finding] = f"in {len(found)} of {len(maps)} images {found[len(found) // 2].warnings()[finding]}"
    return told


def _inner(cell_mask: Bool[Tensor, "batch row column"]) -> Bool[Tensor, "batch row column"]:
    """Cells all four of whose neighbours may be looked at."""
    padded = torch.nn.functional.pad(cell_mask, (1, 1, 1, 1))
    up, down, left, right = padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
    return up & down & left & right

"""Iterative patch selection (IPS): every patch is looked at without gradient, the best are looked at again with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from foveate.config.settings import ModelSettings
from foveate.images import Source
from foveate.models.base import Model
from foveate.models.deep_mil import in_chunks, whole_grid
from foveate.models.receipts import Stages
from foveate.models.types import PLAIN, BuildOptions, Output, Started
from foveate.networks.cross_attention import CrossAttention, grid_positions
from foveate.sampling.geometry import Grid


@dataclass(frozen=True)
class Selected(Output):
    """Output of a model that reads all patches, and those that it chooses again: `boxes` and `features` are of these.

    Attributes:
        chosen: (B, n) cells of the map that they are of; where `read` is False any.
    """

    chosen: "Int64[Tensor, 'batch draw'] | None" = None

    @property
    def patches_read(self) -> "Int[Tensor, ' batch']":
        """(B,) patches read: all of the map, and those that were chosen once more."""
        assert self.cell_mask is not None
        again = super().patches_read
        return again + self.cell_mask.flatten(1).sum(1).to(again.device)


class Ips(Model):
    r"""IPS-M: of all patches of a grid those with the M highest scores of cross-attention, which classifies them.

    .. math:: a_k = \frac1H \sum_h \mathrm{softmax}_k\, z_{hk}, \qquad S = \mathrm{top}_M(a), \qquad
              y = \mathrm{softmax}(W \,\mathrm{cross\text{-}attention}(f_S) + b)

    Bergner, Lippert & Mahendran, "Iterative Patch Selection for High-Resolution Image Recognition" (ICLR 2023), section
    3. All patches are read, `mil.chunk` at a time, in evaluation mode and without gradient; the M that are chosen are
    read again with it. So activations and pixels are those of M patches and of a chunk, however large the image is, and
    time is that of the whole image: no view says where not to look. It draws nothing.

    The paper keeps a buffer of M patches and compares it with each chunk, by scores that are normalised over the two.
    With one head no order of patches depends on that, and the buffer ends as the M best of all. With several it does:
    a head counts for more where its scores stand out among those it is compared with, so that what is kept depends on
    the order of the chunks, and the paper's code can shuffle patches for it. Here the H numbers of every patch are
    kept instead, 4 H bytes, and the M best of all are chosen once: what that buffer would choose from a single chunk.
    So neither order nor the size of chunks changes an answer, and nothing is shuffled.

    Arguments:
        settings: resolved settings; `patches` is M, `head` the cross-attention, `mil` grid, chunks and positions. View,
            method, attention, prior and `head.pool` have no effect.
        classes, channels, options: as `Model`.

    Attributes:
        grid: the grid of patches over the image itself.
        memory: M.

    Example:
        >>> import numpy as np
        >>> from foveate.models import build_model
        >>> model = build_model(ModelSettings(name="ips", patch=(24, 30), patches=4), ("cat", "dog"), channels=3)
        >>> prediction = model.predict(np.zeros((120, 150, 3), np.uint8))
        >>> prediction.patches, len(prediction.boxes)  # 25 of the grid, and 4 of them again
        (29, 4)
    """

    grid: Grid
    wants_view = False
    unexported: ClassVar[str] = "an ips model reads its patches twice, which no graph does"

    def __init__(
        self, settings: ModelSettings, classes: Sequence[str], channels: int, options: BuildOptions = PLAIN
    ) -> None:
        super().__init__(settings, classes, channels, options)
        mil, head = settings.mil, settings.head
        self.patches, self.memory = 0, settings.patches
        self.grid = Grid(settings.patch if mil.stride is None else mil.stride)
        self.pool = CrossAttention(self.features.dimension, head.heads, head.hidden, head.dropout)
        if mil.positions:
            grid_positions(torch.zeros(1, 2), self.features.dimension)  # refuses a dimension it cannot be made for

    @property
    def reads_patches(self) -> bool:
        """True."""
        return True

    def finish(self, started: Started) -> Selected:
        """Read all, choose, read again, classify.

        Arguments:
            started: sources, and a mask at any resolution; cells whose centre it does not allow are not read. Nothing
                is drawn, however many samples are asked for.

        Returns:
            Logits; a, over the grid, without gradient; boxes and features of the patches chosen, the best first,
            positions added to their features.

        Raises:
            FoveateError: if an image has no cell to look at.
            ImageError: if a patch cannot be read.
        """
        batch, stages = started.batch, Stages()
        cells, boxes = whole_grid(self.grid, batch, self.settings.patch)
        allowed = cells.flatten(1)
        with self.evaluating():
            images = zip(batch.sources, boxes, allowed, strict=True)
            attention = torch.stack([self._attention(*image, cells.shape[2], stages) for image in images])
        chosen, read = best(attention.cpu(), allowed.cpu(), self.memory)
        own = boxes.gather(1, chosen[:, :, None].expand(-1, -1, 4))
        features = self.read_patches(batch.sources, own, read, stages).features(self.features, self.normalise)
        with stages("classify"):
            features = self._placed(features, chosen, cells.shape[2])
            nothing = torch.zeros(read.shape, device=self.device)
            pooled = self.pool(features, nothing.masked_fill(~read.to(self.device), -torch.inf))
            logits = self.head(pooled.to(self.head.weight.dtype))
        return Selected(
            logits=logits,
            attention=attention.view(cells.shape),
            boxes=own,
            features=features,
            read=read,
            cell_mask=cells.to(self.device),
            seconds=stages.seconds,
            chosen=chosen,
        )

    def _attention(
        self, source: Source, boxes: Int[Tensor, "cell 4"], allowed: Bool[Tensor, " cell"], columns: int, stages: Stages
    ) -> Float[Tensor, " cell"]:
        """Scores of all patches of an image, each head's normalised over all of them; 0 where none may be looked at."""
        step, cells = self.settings.mil.chunk, allowed.cpu().nonzero()[:, 0]
        parts = zip(in_chunks(self, source, boxes[cells], step, stages), torch.split(cells, step), strict=True)
        with torch.autocast(self.device.type, enabled=False):
            scores = [self.pool.scores(self._placed(features, part, columns)) for features, part in parts]
        shares = torch.cat(scores, 1).softmax(1).mean(0)
        return shares.new_zeros(len(allowed)).index_put((cells.to(self.device),), shares)

    def _placed(
        self, features: Float[Tensor, "*batch patch feature"], cells: Int[Tensor, "*batch patch"], columns: int
    ) -> Float[Tensor, "*batch patch feature"]:
        """Features with the positions of their cells, where they are to have them."""
        if not self.settings.mil.positions:
            return features
        places = torch.stack((cells // columns, cells % columns), -1).to(features)
        return features + grid_positions(places, features.shape[-1])


def best(
    scores: Float[Tensor, "batch cell"], allowed: Bool[Tensor, "batch cell"], most: int
) -> tuple[Int64[Tensor, "batch chosen"], Bool[Tensor, "batch chosen"]]:
    """The cells of the highest scores, the best first; of equal ones the first.

    Arguments:
        scores: (B, K) at least 0.
        allowed: (B, K) which cells there are.
        most: M.

    Returns:
        (B, n) cells, n being M or K, if there are fewer; and which of them are allowed.

    Example:
        >>> scores = torch.tensor([[0.2, 0.5, 0.2, 0.1]])
        >>> best(scores, torch.tensor([[True, True, True, False]]), 2)
        (tensor([[1, 0]]), tensor([[True, True]]))
    """
    chosen = scores.masked_fill(~allowed, -1.0).argsort(dim=1, descending=True, stable=True)[:, :most]
    return chosen, allowed.gather(1, chosen)

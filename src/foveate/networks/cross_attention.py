"""Cross-attention over patches: a learnt query looks at their features together, and what it sees is one vector."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from foveate.errors import ConfigError
from foveate.networks.cnn import glorot_


class CrossAttention(nn.Module):
    r"""Cross-attention pooling: multi-head attention of one learnt query over the patches, then a feed-forward layer.

    .. math::

        p_{hs} \propto \exp\Bigl(\tfrac{(W^Q_h q)^\top W^K_h f_s}{\sqrt{d}} + b_s\Bigr), \qquad
        c = W^O \bigl[\textstyle\sum_s p_{hs} W^V_h f_s\bigr]_h, \qquad
        u = \mathrm{norm}(q + c), \qquad y = \mathrm{norm}(u + W_2\,\mathrm{relu}(W_1 u))

    b_s is what is known of a patch beforehand, in nats: 0 where patches are simply chosen, log(a_s w_s) where they are
    drawn (`foveate.sampling.log_coefficients`), −∞ for one that does not count. Patches have no order. With constant
    scores, one head, and W^V and W^O the identity, c is the mean of the features weighted by exp b.

    Source: Bergner, Lippert & Mahendran, "Iterative Patch Selection for High-Resolution Image Recognition" (ICLR 2023),
    section 3, with one query; b is ours. Its layers begin as ours do, the query as in its code.

    Arguments:
        dimension: D, features per patch.
        heads: H; each is ⌈D / H⌉ wide.
        hidden: width of the feed-forward layer; 4 D if 0, as there.
        dropout: of p, of c and of the feed-forward layer, in training.

    Example:
        >>> pool = CrossAttention(6, heads=2)
        >>> features, gone = torch.rand(3, 4, 6), torch.tensor([0.0, 0.0, 0.0, -torch.inf]).expand(3, 4)
        >>> pool(features, gone).allclose(pool(features[:, [2, 0, 1]]), atol=1e-6)
        True
    """

    def __init__(self, dimension: int, heads: int = 8, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.width, self.dropout = heads, -(-dimension // heads), dropout
        self.query = nn.Parameter(torch.empty(dimension))
        self.queries, self.keys, self.values = (nn.Linear(dimension, heads * self.width, bias=False) for _ in range(3))
        self.out = nn.Linear(heads * self.width, dimension, bias=False)
        self.norm = nn.LayerNorm(dimension, eps=1e-6)
        self.widen, self.narrow = (
            nn.Linear(dimension, hidden or 4 * dimension),
            nn.Linear(hidden or 4 * dimension, dimension),
        )
        self.last_norm = nn.LayerNorm(dimension, eps=1e-6)
        glorot_(self)
        nn.init.uniform_(self.query, -(self.width**-0.5), self.width**-0.5)

    def scores(self, features: Float[Tensor, "*batch patch feature"]) -> Float[Tensor, "*batch head patch"]:
        """Score (…, n, D) features; returns (…, H, n) logits, each from its own patch alone."""
        features = features.to(self.query.dtype)
        query = self.queries(self.query).view(self.heads, self.width)
        keys = self.keys(features).unflatten(-1, (self.heads, self.width))
        scores: Tensor = torch.einsum("hd,...nhd->...hn", query, keys) * self.width**-0.5
        return scores

    def attended(
        self, features: Float[Tensor, "batch patch feature"], log_weight: Float[Tensor, "batch patch"] | None = None
    ) -> Float[Tensor, "batch feature"]:
        """(B, D) c: what the query sees, before it is added to the query itself.

        Arguments:
            features: (B, n, D) of patches; where log_weight is −∞ any, but finite.
            log_weight: (B, n) b, of any float dtype; None is 0.
        """
        scores = self.scores(features)
        if log_weight is not None:
            scores = scores + log_weight[:, None].to(scores.dtype)
        shares = functional.dropout(scores.softmax(2), self.dropout, self.training)
        values = self.values(features.to(self.query.dtype)).unflatten(2, (self.heads, self.width))
        seen: Tensor = self.out(torch.einsum("bhn,bnhd->bhd", shares, values).flatten(1))
        return seen

    def forward(
        self, features: Float[Tensor, "batch patch feature"], log_weight: Float[Tensor, "batch patch"] | None = None
    ) -> Float[Tensor, "batch feature"]:
        """(B, D) y: the vector that is classified, computed in the dtype of the weights; arguments as of `attended`."""
        with torch.autocast(features.device.type, enabled=False):
            seen = self.norm(self.query + self._dropped(self.attended(features, log_weight)))
            further = self.narrow(self.widen(seen).relu())
            pooled: Tensor = self.last_norm(seen + self._dropped(further))
            return pooled

    def _dropped(self, values: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch feature"]:
        return functional.dropout(values, self.dropout, self.training)


def grid_positions(cells: Float[Tensor, "*batch 2"], dimension: int) -> Float[Tensor, "*batch feature"]:
    r"""Positional encoding of the cells of a grid: sines and cosines of the row, then of the column.

    .. math:: \sin(p\,\omega_k),\ \cos(p\,\omega_k), \qquad \omega_k = 10000^{-4k/D}, \qquad k < D/4

    Vaswani et al., "Attention Is All You Need" (2017), section 3.5, for each of the two, so that a place means the same
    in images of any size; of the IPS paper one number counts the patches of an image.

    Arguments:
        cells: (…, 2) rows and columns.
        dimension: D.

    Raises:
        ConfigError: D is no multiple of 4.

    Example:
        >>> grid_positions(torch.tensor([[0.0, 0.0]]), 8)
        tensor([[0., 1., 0., 1., 0., 1., 0., 1.]])
    """
    if dimension % 4:
        raise ConfigError(
            f"model.mil.positions needs a number of features that 4 divides, got {dimension}: set it to false, or "
            "change model.features"
        )
    rates = 10000.0 ** (-torch.arange(dimension // 4, device=cells.device, dtype=cells.dtype) * 4 / dimension)
    angles = cells[..., None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-3)

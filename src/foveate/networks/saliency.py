"""Saliency maps of classes: the answer that their highest cells give, and the regions that have most of them."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from foveate.networks.evidence import cells_of_top
from foveate.types import Size


def pooled_saliency(
    logits: Float[Tensor, "batch cell map"], allowed: Bool[Tensor, "batch cell"], top: float
) -> Float[Tensor, "batch map"]:
    r"""Top-share pooling: the logit of the mean saliency of the cells where a map is highest.

    .. math:: \hat y = \frac{1}{|H^+|} \sum_{i \in H^+} \sigma(z_i), \qquad \log \frac{\hat y}{1 - \hat y}

    The sigmoid of what is returned is ŷ, and its binary cross-entropy that of the paper; sums are of logarithms, so
    that neither a saliency of nearly 0 nor of nearly 1 is rounded.

    Source: Shen et al. (GMIC, Medical Image Analysis 2021), section 2.1, which takes a share t of the cells.

    Arguments:
        logits: (B, K, M) z.
        allowed: (B, K) True where a cell may be looked at; one at least in each image.
        top: share of an image's cells; from 1 on a number of them.

    Returns:
        (B, M).

    Example:
        >>> z = torch.tensor([[[0.0], [-9.0], [2.0], [9.0]]])
        >>> pooled_saliency(z, torch.tensor([[True, True, True, False]]), top=2.0).sigmoid()
        tensor([[0.6904]])
    """
    counts = [cells_of_top(top, number) for number in allowed.sum(1).tolist()]
    most = max(counts)
    highest = logits.masked_fill(~allowed[..., None], -torch.inf).topk(most, 1).indices
    wanted = (torch.arange(most, device=logits.device) < torch.tensor(counts, device=logits.device)[:, None])[..., None]
    chosen = logits.gather(1, highest).masked_fill(~wanted, 0.0)
    present, absent = (functional.logsigmoid(sign * chosen).masked_fill(~wanted, -torch.inf) for sign in (1, -1))
    return present.logsumexp(1) - absent.logsumexp(1)


def greedy_regions(
    saliency: Float[Tensor, "row column"], allowed: Bool[Tensor, "row column"], number: int, window: Size
) -> Int64[Tensor, " region"]:
    """Regions of interest: windows of the most saliency, one after the other, each emptied when it is taken.

    Source: Shen et al. (GMIC, Medical Image Analysis 2021), algorithm 1. Their windows lie within the map wherever they
    fit; ours stand around a cell, as patches do, and may hang over.

    Arguments:
        saliency: (rows, columns), at least 0.
        allowed: (rows, columns) True for cells that may be looked at; others neither count nor are a window's middle.
        number: of windows.
        window: (height, width) in cells; an even one is taken as the next odd number.

    Returns:
        Their middle cells, row-major over the map, in order of choice, all different; fewer if there are fewer cells.

    Example:
        >>> saliency = torch.tensor([[0.0, 0.6, 0.0, 0.0, 0.9, 0.8]])
        >>> greedy_regions(saliency, torch.ones(1, 6, dtype=torch.bool), number=2, window=(1, 1))
        tensor([4, 5])
        >>> greedy_regions(saliency, torch.ones(1, 6, dtype=torch.bool), number=2, window=(1, 3))
        tensor([4, 0])
    """
    high, wide = window[0] // 2, window[1] // 2
    left, free, columns = saliency.detach().masked_fill(~allowed, 0.0).clone(), allowed.clone(), saliency.shape[1]
    found = []
    for _ in range(min(number, int(allowed.sum()))):
        kernel = (2 * high + 1, 2 * wide + 1)
        sums = functional.avg_pool2d(left[None, None], kernel, 1, (high, wide), divisor_override=1)[0, 0]
        middle = int(sums.masked_fill(~free, -torch.inf).argmax())
        found.append(middle)
        row, column = divmod(middle, columns)
        free[row, column] = False
        left[max(0, row - high) : row + high + 1, max(0, column - wide) : column + wide + 1] = 0
    return torch.tensor(found, dtype=torch.int64)

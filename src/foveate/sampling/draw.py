"""Sampling of cells from an attention map, each with the weight that says what it stands for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from foveate.errors import ArgumentError
from foveate.hooks import REGISTERED, find
from foveate.sampling.exponential_race import race_with_replacement, race_without_replacement
from foveate.sampling.gumbel import (
    METHODS,
    Distribution,
    Generators,
    drawn_from,
    independent,
    largest,
    per_image,
    refuse,
    without_replacement,
)
from foveate.sampling.weights import importance_weights, thresholds, top_weights
from foveate.types import Draw


def draw(
    log_prob: Float[Tensor, "batch cell"],
    n: int,
    method: str = "murthy",
    mask: Bool[Tensor, "mask_batch mask_cell"] | None = None,
    generator: Generators = None,
    proposal: Float[Tensor, "proposal_batch proposal_cell"] | None = None,
) -> Draw:
    r"""Sample of n cells per image, each with a weight that makes a sum over the drawn an unbiased one over all cells.

    .. math:: \mathbb{E}\Big[\sum_s a_{I_s} w_s f_{I_s}\Big] = \sum_i a_i f_i, \qquad w \text{ constant in the backward}

    ========  =====================================  =======================================================
    method    draw                                   weight of the s-th drawn cell, s = 0 … n−1
    ========  =====================================  =======================================================
    iid       n independent draws                    1 / (n a_s)
    des_raj   without replacement, in order of draw  ((1 − Σ_{j<s} a_j) / a_s + n − 1 − s) / n
    priority  the same, and κ, the (n+1)-th key      1 / q_s with q_s = 1 − exp(−a_s e^{−κ})
    murthy    the same, order forgotten              E[1/q_s | the cells drawn], never worse than the two above
    uniform   uniform over valid cells               number of valid cells / n
    top       the n most probable cells (biased!)    1 / Σ_s a_s, kept in the graph
    ========  =====================================  =======================================================

    With a proposal, cells are drawn from it and a in the weights stands for the proposal. An image with n or fewer
    valid cells is summed exactly (all methods but iid): each cell once, weight 1; slots left over are not valid.

    Randomness is made for valid cells only, image after image: padding a map with masked cells changes nothing, and
    with a generator for each image neither does the rest of the batch. A CPU generator serves any device.

    On an accelerator cells are drawn by an exponential race, of 2n + 1 random numbers in the place of one for every
    cell: the law is the same, the cells of one seed are others than on a CPU. Nothing waits for the device, and so no
    value is looked at there; `fetch` does, and refuses what is refused here on a CPU.

    Source: Katharopoulos & Fleuret, "Processing Megapixel Images with Deep Attention-Sampling Models" (2019), section 3
    (iid, des_raj); Raj, "Some Estimators in Sampling with Varying Probabilities without Replacement" (1956); Murthy,
    "Ordered and Unordered Estimators in Sampling Without Replacement" (1957); Duffield, Lund & Thorup, "Priority
    Sampling for Estimation of Arbitrary Subset Sums" (2007).

    Arguments:
        log_prob: (B, K) log attention over the cells, normalised over the valid ones; −inf is allowed.
        n: cells to draw per image.
        method: how to draw, a row of the table; or one of your own (`foveate.register`).
        mask: (B, K) True where a cell may be drawn; None allows every cell with log_prob > −inf.
        generator: a generator, one per image, or None for torch's default one.
        proposal: (B, K) log distribution to draw from instead, normalised and positive wherever the attention is.

    Returns:
        The cells drawn. Its log_prob carries the gradient of the attention; its weights are float64.

    Raises:
        FoveateError: an argument breaks a rule above; the message names the image. What only values tell is refused
            by `fetch` where log_prob is on an accelerator.

    Example:
        >>> import torch
        >>> log_prob = torch.tensor([[0.5, 0.3, 0.2, 0.0]]).log()
        >>> drawn = draw(log_prob, 2, generator=torch.Generator().manual_seed(0))
        >>> drawn.index.shape, drawn.index.max() < 3  # never the cell without attention
        (torch.Size([1, 2]), tensor(True))
        >>> (drawn.log_prob.exp() * drawn.weight).sum(1).round(decimals=6)
        tensor([1.], dtype=torch.float64)
        >>> draw(log_prob, 5).valid
        tensor([[ True,  True,  True, False, False]])
    """
    if n < 1:
        raise ArgumentError(f"n must be at least 1, got {n}: ask for one cell or more per image")
    own = REGISTERED.get(("method", method)) if method not in METHODS else None
    if own is None and ":" in method:
        own = find("method", method, "model.method")
    if own is not None:
        return _drawn_by(own, method, log_prob, n, mask, per_image(generator, len(log_prob)), proposal)
    host = on_host(log_prob)
    with torch.autocast(device_type=log_prob.device.type, enabled=False):
        source = drawn_from(log_prob, method, mask, proposal, wait=host)
        threshold = None
        if method == "iid":
            index = (independent if host else race_with_replacement)(source, n, generator)
        elif method == "top":
            index = largest(source, n)
        else:
            index, threshold = (without_replacement if host else race_without_replacement)(source, n, generator)
        drawn = _describe(log_prob, source, index, method, threshold)
    return drawn if host else replace(drawn, checks=source.checks)


def _drawn_by(
    function: Callable[..., tuple[Tensor, Tensor]],
    method: str,
    log_prob: Float[Tensor, "batch cell"],
    n: int,
    mask: Bool[Tensor, "mask_batch mask_cell"] | None,
    generators: Sequence[torch.Generator | None],
    proposal: Float[Tensor, "proposal_batch proposal_cell"] | None,
) -> Draw:
    """Draw by a function of the user's, image by image, of the valid cells alone; a few are summed exactly.

    Raises:
        ArgumentError: it gives anything but cells and weights.
    """
    source = drawn_from(log_prob, "iid", mask, proposal)
    index = torch.zeros(len(log_prob), n, dtype=torch.int64)
    weight, valid = torch.zeros(len(log_prob), n, dtype=torch.float64), torch.zeros(len(log_prob), n, dtype=torch.bool)
    for row, (values, generator) in enumerate(zip(source.log_prob.cpu(), generators, strict=True)):
        cells = (values > -math.inf).nonzero()[:, 0]
        if len(cells) <= n:
            chosen, weights = cells, torch.ones(len(cells), dtype=torch.float64)
        else:
            drawn, given = function(values[cells], n, torch.default_generator if generator is None else generator)
            drawn, weights = torch.as_tensor(drawn), torch.as_tensor(given).detach().double().cpu()
            fine = drawn.ndim == 1 and 1 <= len(drawn) <= n and weights.shape == drawn.shape
            if not fine or drawn.is_floating_point() or not (0 <= int(drawn.min()) <= int(drawn.max()) < len(cells)):
                raise ArgumentError(
                    f"method {method!r} of your own gave {tuple(drawn.shape)} cells, {tuple(weights.shape)} weights: "
                    f"let it give at most {n} numbers of the {len(cells)} cells it is told of, and as many weights"
                )
            if not bool(weights.isfinite().all()):
                raise ArgumentError(f"method {method!r} of your own gave a weight that is no finite number: look at it")
            chosen = cells[drawn.cpu()]
        index[row] = chosen[0]
        index[row, : len(chosen)], weight[row, : len(chosen)], valid[row, : len(chosen)] = chosen, weights, True
    index, weight, valid = (one.to(log_prob.device) for one in (index, weight, valid))
    log_rest = source.log_prob.scatter(1, index, -math.inf).logsumexp(1)
    log_proposal = source.log_prob.gather(1, index)
    return Draw(index, log_prob.gather(1, index), weight, valid, log_rest, None, method, log_proposal)


def on_host(values: Tensor) -> bool:
    """Whether values can be looked at without waiting for another device: those on the CPU."""
    return values.device.type == "cpu"


def fetch(drawn: Draw, names: Sequence[str] = ()) -> tuple[Int64[Tensor, "batch draw"], Bool[Tensor, "batch draw"]]:
    """Cells drawn, on the host: where to read, in one transfer with all that `draw` left unchecked.

    Arguments:
        drawn: from `draw`.
        names: ids of the images for error messages; may be empty. Fewer than rows, each stands for as many draws.

    Returns:
        index and valid of the draw, on the CPU.

    Raises:
        FoveateError: the distribution it was drawn from is none, as `draw` says.

    Example:
        >>> import torch
        >>> index, valid = fetch(draw(torch.tensor([[0.0, -torch.inf]]), 2), ["slide.svs"])
        >>> index, valid
        (tensor([[0, 0]]), tensor([[ True, False]]))
    """
    if drawn.checks is None:
        return drawn.index.cpu(), drawn.valid.cpu()
    n = drawn.index.shape[1]
    # float64 holds every number of a cell; three transfers would wait three times
    together = torch.cat((drawn.index.double(), drawn.valid.double(), drawn.checks), 1).cpu()
    refuse(together[:, 2 * n :].tolist(), names)
    return together[:, :n].long(), together[:, n : 2 * n] > 0


def weigh(
    log_prob: Float[Tensor, "batch cell"],
    index: Int[Tensor, "batch draw"],
    method: str = "murthy",
    mask: Bool[Tensor, "mask_batch mask_cell"] | None = None,
    proposal: Float[Tensor, "proposal_batch proposal_cell"] | None = None,
    threshold: Float[Tensor, " batch"] | None = None,
) -> Draw:
    """Weights of given cells, as if `draw` had drawn them in this order.

    Arguments:
        log_prob: (B, K) log attention, as for `draw`.
        index: (B, n) cells in order of draw; distinct in an image unless the method is "iid". Where an image has
            fewer than n valid cells, its slots after these are left over and must repeat one of them.
        method: how they were drawn.
        mask: (B, K) True where a cell may be drawn.
        proposal: (B, K) log distribution they were drawn from.
        threshold: (B,) κ, the (n+1)-th key `log q − log E` of the draw; "priority" needs it.

    Returns:
        The same as `draw` would return.

    Raises:
        FoveateError: the cells cannot have been drawn, or "priority" lacks its threshold.

    Example:
        >>> import torch
        >>> log_prob = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> weigh(log_prob, torch.tensor([[0, 1]]), "des_raj").weight
        tensor([[1.5000, 1.0000]], dtype=torch.float64)
    """
    with torch.autocast(device_type=log_prob.device.type, enabled=False):
        source = drawn_from(log_prob, method, mask, proposal)
        if method == "priority" and threshold is None:
            raise ArgumentError("method 'priority' weighs by its threshold: pass threshold, the (n+1)-th key")
        _check_drawable(source, index, method)
        kappa = None if threshold is None or method in ("iid", "top") else threshold.detach().double()
        return _describe(log_prob, source, index, method, kappa)


def beginning(drawn: Draw, rows: Sequence[int], n: int) -> Draw:
    """First n cells of some images of a draw by "murthy", weighed as if no more had been drawn.

    Arguments:
        drawn: cells in order of draw.
        rows: of which images.
        n: how many cells of each; no more than were drawn.

    Returns:
        A draw of so many rows, without a threshold.

    Example:
        >>> import torch
        >>> log_prob, seeded = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.Generator().manual_seed
        >>> drawn = draw(log_prob, 3, generator=seeded(0))
        >>> torch.equal(beginning(drawn, [0], 2).weight, draw(log_prob, 2, generator=seeded(0)).weight)
        True
    """
    index = torch.tensor(rows).to(drawn.index.device)
    cells, log_prob, valid, every = (
        one[index] for one in (drawn.index, drawn.log_prob, drawn.valid, drawn.log_proposal)
    )
    later = torch.cat((drawn.log_rest[index, None], every[:, n:].masked_fill(~valid[:, n:], -math.inf)), 1)
    log_rest, log_proposal, valid = later.logsumexp(1), every[:, :n], valid[:, :n]
    nodes = thresholds(log_proposal, log_rest, valid)
    weight = importance_weights("murthy", log_proposal, log_rest, None, valid.sum(1), valid, nodes)
    return Draw(cells[:, :n], log_prob[:, :n], weight, valid, log_rest, None, "murthy", log_proposal, nodes)


def _describe(
    log_prob: Float[Tensor, "batch cell"],
    source: Distribution,
    index: Int[Tensor, "batch draw"],
    method: str,
    threshold: Float[Tensor, " batch"] | None,
) -> Draw:
    valid = _valid(source, index, method)
    drawn = log_prob.gather(1, index)
    log_proposal = source.log_prob.gather(1, index)
    # Summed over what is left, never 1 − Σ of what is drawn: that cancels to nothing as attention peaks.
    log_rest = source.log_prob.scatter(1, index, -math.inf).logsumexp(1)
    nodes = thresholds(log_proposal, log_rest, valid) if method == "murthy" else None
    if method == "top":
        weight = top_weights(drawn, log_rest, valid)
    else:
        weight = importance_weights(method, log_proposal, log_rest, threshold, source.count, valid, nodes)
    return Draw(index, drawn, weight, valid, log_rest, threshold, method, log_proposal, nodes)


def _valid(source: Distribution, index: Int[Tensor, "batch draw"], method: str) -> Bool[Tensor, "batch draw"]:
    if method == "iid":
        return torch.ones_like(index, dtype=torch.bool)
    return torch.arange(index.shape[1], device=index.device) < source.count[:, None]


def _check_drawable(source: Distribution, index: Int[Tensor, "batch draw"], method: str) -> None:
    cells = source.log_prob.shape[1]
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < cells:
        raise ArgumentError(f"index must lie in 0 … {cells - 1}, got {int(index.min())} … {int(index.max())}")
    never = source.log_prob.gather(1, index) == -math.inf
    if never.any():
        image, slot = never.nonzero()[0].tolist()
        raise ArgumentError(f"cell {int(index[image, slot])} of image {image} is masked and cannot have been drawn")
    if method == "iid":
        return
    times = torch.zeros_like(source.log_prob).scatter_add(1, index, _valid(source, index, method).double())
    if (times > 1).any():
        image, cell = (times > 1).nonzero()[0].tolist()
        raise ArgumentError(f"cell {cell} of image {image} is given twice, but method {method!r} draws no cell twice")

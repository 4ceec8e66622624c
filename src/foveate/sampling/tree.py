r"""Hierarchical sampling: leaves of a tree drawn without replacement, top down, of which few nodes are ever looked at.

Attention is factorised down a tree, and a node's children are asked for only when it is reached:

.. math:: a(\text{leaf}) = \prod_l a_l(\text{child}_l \mid \text{parent}_l)

The largest Gumbel key of the leaves below a node is itself a Gumbel key, with the node's probability; and given it,
those of the node's children are independent but for their maximum. So keys are drawn from the top down, the n + 1
largest kept on every level: below any other node lies none of the n + 1 best leaves. The leaves and their keys have the
law of the n + 1 best of all, their weights are those of `foveate.sampling.draw`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from foveate.errors import ArgumentError
from foveate.sampling.estimator import coefficients
from foveate.sampling.gumbel import (
    Distribution,
    Generators,
    drawn_from,
    gumbel_keys,
    independent,
    largest,
    per_image,
    refuse,
)
from foveate.sampling.weights import importance_weights, thresholds, top_weights
from foveate.types import Draw, Thresholds

METHODS = ("iid", "des_raj", "priority", "murthy", "top")
"""Methods of drawing leaves; "uniform" would have to know how many leaves there are below every node."""


@dataclass(frozen=True)
class Children:
    """Children of some nodes, each row those of one node.

    Attributes:
        log_prob: (M, C) log probability of each child given its parent, normalised over the children there are; −inf
            where there is none. Carries the gradient of the attention.
        number: (M, C) number of each child, by which it is asked for its own; anything where there is none.
    """

    log_prob: Float[Tensor, "node child"]
    number: Int64[Tensor, "node child"]


Expand = Callable[[int, Int64[Tensor, " node"], Int64[Tensor, " node"]], Children]
"""(level, rows, numbers) → children of these nodes: of level 0, the top, or deeper; all on the CPU but log_prob."""


@dataclass(frozen=True)
class Descent:
    """Leaves drawn from a tree, and the way to them.

    Attributes:
        draw: the leaves, as `foveate.sampling.draw` would return them; `index` has their numbers.
        path: (B, n, levels) numbers of the nodes on the way to each leaf, which is the last itself; on the CPU.
        looked_at: for every level but the last, (2, M) rows and numbers of the nodes whose children were asked for; on
            the CPU. At most n + 1 of a row.
        entropy: (B,) entropy of the leaves given the nodes of the top, in nats: an estimate, unbiased as the draw's.
    """

    draw: Draw
    path: Int64[Tensor, "batch draw level"]
    looked_at: tuple[Int64[Tensor, "2 _"], ...]
    entropy: Float[Tensor, " batch"]


@dataclass(frozen=True)
class _Front:
    """Nodes of one level that are gone on with, per row the best first; those of key −inf are none, and repeat it."""

    number: Int64[Tensor, "batch node"]
    key: Float64[Tensor, "batch node"]
    log_proposal: Float64[Tensor, "batch node"]
    log_prob: Float[Tensor, "batch node"]
    path: Int64[Tensor, "batch node level"]
    regions: Int64[Tensor, "batch node parent"]


def draw_tree(
    log_prob: Float[Tensor, "batch cell"],
    children: Expand,
    levels: int,
    n: int,
    method: str = "murthy",
    mask: Bool[Tensor, "batch cell"] | None = None,
    generator: Generators = None,
) -> Descent:
    r"""Sample of n leaves per image from a tree of which no more than n + 1 nodes a level are looked at.

    Without replacement the keys of a node's children, given the node's own key G, are

    .. math:: G_c = -\log\bigl(e^{-G} + e^{-\tilde G_c} - e^{-\max_j \tilde G_j}\bigr), \qquad
              \tilde G_c = \log a(c) + \mathrm{Gumbel}

    so that the largest is G itself. In these terms, which are times of arrival, nothing cancels but the difference of
    two, which is positive and has its digits from expm1.

    The mass that is not drawn is summed over what was passed by on every level, never as 1 − Σ. With one level it is
    `draw`, to the bit on a CPU; draws are made on the CPU, whatever the device of the attention.

    "iid" draws n times from the top down. "top" goes on with the n most probable nodes of every level: the n most
    probable leaves lie elsewhere where many small ones lie together, but these are the same every time, at this cost.

    Source: Kool, van Hoof & Welling, "Ancestral Gumbel-Top-k Sampling for Sampling Without Replacement" (JMLR 2020),
    sections 3 and 4; for the weights as in `foveate.sampling.draw`.

    Arguments:
        log_prob: (B, K) log attention over the nodes of the top, normalised over the valid ones.
        children: gives the children of nodes; of nodes that have been reached alone, a level at a time.
        levels: of the tree, the top included; at least 1.
        n: leaves to draw per image.
        method: "iid", "des_raj", "priority", "murthy" or "top", as in the table of `foveate.sampling.draw`.
        mask: (B, K) True where a node of the top may be drawn.
        generator: a generator, one per image, or None for torch's default one. What is drawn for an image depends on
            its own alone.

    Returns:
        The leaves drawn, with the same weights, expectation and gradient as if they were drawn from the product.

    Raises:
        FoveateError: n or levels is below 1, the method has no draw of this kind, or what `children` gives of some node
            is no distribution.

    Example:
        >>> import torch
        >>> halves = torch.full((1, 2), 0.5).log()
        >>> def thirds(level, rows, numbers):
        ...     number = 3 * numbers[:, None] + torch.arange(3)
        ...     return Children(torch.full(number.shape, 1 / 3).log(), number)
        >>> found = draw_tree(halves, thirds, 3, 4, generator=torch.Generator().manual_seed(0))
        >>> found.draw.index  # 4 of the 18 leaves
        tensor([[10, 15,  5, 11]])
        >>> found.draw.log_prob.exp()[0, 0]
        tensor(0.0556)
        >>> [len(nodes[0]) for nodes in found.looked_at]  # of 2 and 6
        [2, 5]
    """
    if n < 1 or levels < 1:
        raise ArgumentError(f"n and levels must be at least 1, got {n} and {levels}: ask for one leaf or more")
    if method not in METHODS:
        raise ArgumentError(f"method {method!r} draws no leaves of a tree: choose one of {', '.join(METHODS)}")
    generators = per_image(generator, len(log_prob))
    with torch.autocast(device_type=log_prob.device.type, enabled=False):
        beam = n if method in ("iid", "top") else n + 1
        front, rest = _top(log_prob, method, mask, beam if levels > 1 else n, beam, generators)
        looked_at, entropies = [], []
        for level in range(levels - 1):
            asked, where = _reached(front)
            looked_at.append(asked)
            kids = children(level, asked[0], asked[1])
            probability = kids.log_prob.exp()
            entropies.append(torch.special.entr(torch.where(probability > 0, probability, 1.0)).sum(1))
            kept = n if level == levels - 2 else beam
            front, passed = _gone_on_with(front, kids, where, method, kept, beam, generators)
            rest = torch.logaddexp(rest, passed)
        drawn = _described(front, rest, method, n)
        share = coefficients(drawn).to(log_prob.dtype)
        regions = front.regions[:, :n].to(log_prob.device)
        entropy = log_prob.new_zeros(len(log_prob))
        for level, of_nodes in enumerate(entropies):
            entropy = entropy + (share * of_nodes[regions[:, :, level]]).sum(1)
    return Descent(drawn, front.path[:, :n], tuple(looked_at), entropy)


def conditional_keys(
    keys: Float64[Tensor, "*batch child"], parent: Float64[Tensor, "*batch"]
) -> Float64[Tensor, "*batch child"]:
    """Gumbel keys conditioned on their maximum: what keys of children become, their parent's own key being known.

    Arguments:
        keys: (…, C) unconditioned; −inf where there is no child, of which there must be one.
        parent: (…) key of the parent.

    Returns:
        (…, C) keys, the largest of which is the parent's.

    Example:
        >>> import torch
        >>> keys = torch.tensor([0.0, 1.0, -torch.inf], dtype=torch.float64)
        >>> conditional_keys(keys, torch.tensor(-2.0, dtype=torch.float64))
        tensor([-2.0821, -2.0000,    -inf], dtype=torch.float64)
    """
    later = torch.expm1(keys - keys.amax(-1, keepdim=True)).neg().log() - keys
    return -torch.logaddexp(-parent[..., None], later)


def _top(
    log_prob: Float[Tensor, "batch cell"],
    method: str,
    mask: Bool[Tensor, "batch cell"] | None,
    kept: int,
    beam: int,
    generators: Sequence[torch.Generator | None],
) -> tuple[_Front, Float64[Tensor, " batch"]]:
    """The nodes of the top that are gone on with, of which `kept` count as such, and the mass of the others."""
    allowed = None if mask is None else mask.cpu()
    source = drawn_from(log_prob.detach().cpu(), method, allowed, None)
    if method == "iid":
        index = independent(source, beam, generators)
        key = torch.zeros(index.shape, dtype=torch.float64)
    elif method == "top":
        index = largest(source, beam)
        key = source.log_prob.gather(1, index).masked_fill(torch.arange(beam) >= source.count[:, None], -math.inf)
    else:
        keys = gumbel_keys(source.log_prob, source.count.tolist(), generators)
        key, index = _best(keys, beam)
    index = index.where(key > -math.inf, index[:, :1])
    rest = source.log_prob.scatter(1, index[:, :kept], -math.inf).logsumexp(1)
    own = log_prob.gather(1, index.to(log_prob.device))
    nothing = index.new_zeros((*index.shape, 0))
    return _Front(index, key, source.log_prob.gather(1, index), own, index[:, :, None], nothing), rest


def _reached(front: _Front) -> tuple[Int64[Tensor, "2 node"], Int64[Tensor, "batch parent"]]:
    """Rows and numbers of the nodes of a front, each once; and where each of the front is among them, or 0."""
    there = front.key > -math.inf
    rows = torch.arange(len(there))[:, None].expand_as(there)[there]
    asked, which = torch.unique(torch.stack((rows, front.number[there])), dim=1, return_inverse=True)
    where = torch.zeros_like(front.number)
    where[there] = which
    return asked, where


def _gone_on_with(
    front: _Front,
    kids: Children,
    where: Int64[Tensor, "batch parent"],
    method: str,
    kept: int,
    beam: int,
    generators: Sequence[torch.Generator | None],
) -> tuple[_Front, Float64[Tensor, " batch"]]:
    """The children that are gone on with, of which `kept` count as such, and the mass of the others."""
    source = drawn_from(kids.log_prob.detach().cpu(), method, None, None, wait=False)
    refuse(source.checks.tolist(), what="region")
    there, slots, width = front.key > -math.inf, front.key.shape[1], kids.number.shape[1]
    log_proposal = front.log_proposal[:, :, None] + source.log_prob[where]
    log_proposal = log_proposal.masked_fill(~there[:, :, None], -math.inf)
    if method == "iid":
        every = Distribution(*(one[where.flatten()] for one in (source.log_prob, source.count, source.checks)))
        child = independent(every, 1, [one for one in generators for _ in range(slots)]).view_as(where)
        # of slots with the same node the first alone stands for it
        first = torch.where(where[:, :, None] == where[:, None, :], torch.arange(slots), slots).amin(2)
        key, place, counted = front.key, torch.arange(slots) * width + child, first * width + child
        mass = log_proposal.masked_fill((first != torch.arange(slots))[:, :, None], -math.inf).flatten(1)
    else:
        mass = log_proposal.flatten(1)
        keys = mass
        if method != "top":
            counts = (mass > -math.inf).sum(1).tolist()
            keys = gumbel_keys(mass, counts, generators).view_as(log_proposal)
            keys = conditional_keys(keys, front.key).masked_fill(log_proposal == -math.inf, -math.inf).flatten(1)
        key, place = _best(keys, beam)
        counted = place = place.where(key > -math.inf, place[:, :1])
    passed = mass.scatter(1, counted[:, :kept], -math.inf).logsumexp(1)
    slot, child = place // width, place % width
    region = where.gather(1, slot)
    number = kids.number[region, child]
    device = front.log_prob.device
    log_prob = kids.log_prob[region.to(device), child.to(device)] + front.log_prob.gather(1, slot.to(device))
    chosen = _Front(
        number,
        key,
        log_proposal.flatten(1).gather(1, place),
        log_prob,
        torch.cat((_of(front.path, slot), number[:, :, None]), 2),
        torch.cat((_of(front.regions, slot), region[:, :, None]), 2),
    )
    return chosen, passed


def _of(values: Int64[Tensor, "batch node level"], slot: Int64[Tensor, "batch child"]) -> Int64[Tensor, "..."]:
    return values.gather(1, slot[:, :, None].expand(-1, -1, values.shape[2]))


def _best(
    keys: Float64[Tensor, "batch cell"], n: int
) -> tuple[Float64[Tensor, "batch best"], Int64[Tensor, "batch best"]]:
    """The n largest keys of each row and their places, −inf and place 0 where there are fewer; of equals the first."""
    best = keys.sort(dim=1, descending=True, stable=True)
    missing = (0, max(0, n - keys.shape[1]))
    value = torch.nn.functional.pad(best.values[:, :n], missing, value=-math.inf)
    return value, torch.nn.functional.pad(best.indices[:, :n], missing)


def _described(front: _Front, log_rest: Float64[Tensor, " batch"], method: str, n: int) -> Draw:
    """The draw of the first n of a front, on the device of its attention."""
    key, log_proposal, log_prob = front.key[:, :n], front.log_proposal[:, :n], front.log_prob[:, :n]
    valid, device = key > -math.inf, log_prob.device
    threshold = None if method in ("iid", "top") else front.key[:, n]
    nodes = thresholds(log_proposal, log_rest, valid) if method == "murthy" else None
    log_rest, valid, log_proposal = (one.to(device) for one in (log_rest, valid, log_proposal))
    if threshold is not None:
        threshold = threshold.to(device)
    if nodes is not None:
        nodes = Thresholds(*(one.to(device) for one in (nodes.probability, nodes.inverse, nodes.log_scale)))
    if method == "top":
        weight = top_weights(log_prob, log_rest, valid)
    else:
        weight = importance_weights(method, log_proposal, log_rest, threshold, valid.sum(1), valid, nodes)
    index = front.number[:, :n].to(device)
    return Draw(index, log_prob, weight, valid, log_rest, threshold, method, log_proposal, nodes)

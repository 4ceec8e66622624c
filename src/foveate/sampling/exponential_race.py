r"""Exponential race: draws with and without replacement for accelerators, from 2n + 1 random numbers an image.

A cell of mass q that starts a clock of rate q arrives at a time E/q, and its Gumbel key log q − log E is minus the
logarithm of that time: so the n largest keys are the first n arrivals, and the threshold κ is minus the log time of the
next. Keys need a random number for every cell; a race needs two for every arrival, how long it takes and who it is,

.. math:: T_{s+1} = T_s + E_s / m_s, \qquad P(i_{s+1} = i) = q_i / m_s, \qquad m_s = 1 - q_{i_1} - \dots - q_{i_s}

for clocks forget. Random numbers are made on the CPU by each image's own generator and sent at once, however many the
cells; the rest is done for all images together, and nothing of it waits for the device. On a CPU keys are as fast. The
law is that of keys, but the cells of one seed are others: a CPU and an accelerator draw differently.

Source: Efraimidis & Spirakis, "Weighted Random Sampling with a Reservoir" (2006), for the clocks; Devroye, "Non-Uniform
Random Variate Generation" (1986), chapter III.2, for the inversion.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from foveate.sampling.gumbel import SMALLEST, Distribution, Generators, per_image


def race_without_replacement(
    source: Distribution, n: int, generator: Generators
) -> tuple[Int[Tensor, "batch draw"], Float64[Tensor, " batch"]]:
    """Sample without replacement: the first n to arrive, in order, and the log time of the next.

    The same as `foveate.sampling.gumbel.without_replacement` in law: arguments, results and errors are its own. What is
    left is normalised anew in logarithms after every arrival, so that a cell which holds all but 1e-15 of the mass, or
    one of e^−800, does no harm; a cell of less than 1e-16 of what is left does not arrive before a larger one.

    Example:
        >>> import torch
        >>> from foveate.sampling.gumbel import drawn_from
        >>> source = drawn_from(torch.tensor([[0.5, 0.3, 0.2]]).log(), "murthy", None, None)
        >>> index, kappa = race_without_replacement(source, 3, torch.Generator().manual_seed(0))
        >>> sorted(index[0].tolist()), kappa
        ([0, 1, 2], tensor([-inf], dtype=torch.float64))
    """
    left = source.log_prob.clone()
    numbers = _uniform(generator, len(left), 2 * n + 1, left.device)
    log_wait = numbers[:, : n + 1].clamp(min=SMALLEST).neg().log1p().neg().log()
    log_time = torch.full_like(left[:, 0], -math.inf)
    arrived = []
    for s in range(n + 1):
        winner, log_mass = _invert(left, numbers[:, n + 1 + s : n + 2 + s])
        log_time = torch.logaddexp(log_time, log_wait[:, s] - log_mass)
        if s < n:
            arrived.append(winner)
            left.scatter_(1, winner, -math.inf)
    index = torch.cat(arrived, 1)
    there = torch.arange(n, device=left.device) < source.count[:, None]
    return index.where(there, index[:, :1]), torch.where(source.count > n, -log_time, -math.inf)


def race_with_replacement(source: Distribution, n: int, generator: Generators) -> Int[Tensor, "batch draw"]:
    """Sample with replacement: n independent cells, by inverting the distribution function of all images at once.

    The same as `foveate.sampling.gumbel.independent` in law: arguments, results and errors are its own.

    Example:
        >>> import torch
        >>> from foveate.sampling.gumbel import drawn_from
        >>> source = drawn_from(torch.tensor([[0.5, 0.5, 0.0]]).log(), "iid", None, None)
        >>> race_with_replacement(source, 100, torch.Generator().manual_seed(0)).unique()
        tensor([0, 1])
    """
    return _invert(source.log_prob, _uniform(generator, len(source.log_prob), n, source.log_prob.device))[0]


def _invert(
    log_mass: Float64[Tensor, "batch cell"], uniform: Float64[Tensor, "batch number"]
) -> tuple[Int[Tensor, "batch number"], Float64[Tensor, " batch"]]:
    """Inverse of the distribution function of what is left, at uniform numbers; and the log mass of what is left.

    Where nothing is left, or what is left is NaN, the numbers of cells mean nothing, but are numbers of cells.
    """
    largest, likeliest = log_mass.max(1, keepdim=True)
    mass = (log_mass - largest).exp()
    below = mass.cumsum(1)
    # 1 − u is never 0: the first cell that reaches a positive goal has mass itself, and the last reaches every goal …
    found = torch.searchsorted(below, (1 - uniform) * below[:, -1:]).clamp(max=log_mass.shape[1] - 1)
    # … but for the rounding of sums in parallel, which may fall from one cell to the next by a last digit.
    found = found.where(mass.gather(1, found) > 0, likeliest)
    return found, (largest + below[:, -1:].log())[:, 0]


def _uniform(generator: Generators, images: int, numbers: int, device: torch.device) -> Float64[Tensor, "batch number"]:
    """Uniform numbers in [0, 1), each image's from its own generator, sent to a device at once."""
    rows: Sequence[Tensor] = [
        torch.rand(numbers, dtype=torch.float64, device=device if one is None else one.device, generator=one)
        for one in per_image(generator, images)
    ]
    table = torch.stack(list(rows))
    if device.type == "cuda" and table.device.type == "cpu":
        table = table.pin_memory()
    return table.to(device, non_blocking=True)

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

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from foveate.sampling.gumbel import Distribution, Generators, per_image

LARGEST = 1 - 2.0**-53
"""The largest float64 below 1."""


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
    waits, *goals = torch.split(1 - numbers, [n + 1, *[1] * n], 1)
    arrived, log_masses = [], []
    for goal in goals:
        winner, log_mass = _invert(left, goal)
        left.scatter_(1, winner, -math.inf)
        arrived.append(winner)
        log_masses.append(log_mass)
    index, log_mass = torch.cat(arrived, 1), torch.cat((*log_masses, left.logsumexp(1, keepdim=True)), 1)
    # −log u is an exponential wait; that of a u of 1 would be 0, and an infinite key
    kappa = -(waits.clamp(max=LARGEST).log().neg().log() - log_mass).logsumexp(1)
    there = torch.arange(n, device=left.device) < source.count[:, None]
    return index.where(there, index[:, :1]), torch.where(source.count > n, kappa, -math.inf)


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
    return _invert(source.log_prob, 1 - _uniform(generator, len(source.log_prob), n, source.log_prob.device))[0]


def _invert(
    log_mass: Float64[Tensor, "batch cell"], uniform: Float64[Tensor, "batch number"]
) -> tuple[Int[Tensor, "batch number"], Float64[Tensor, "batch 1"]]:
    """Inverse of the distribution function of what is left, at numbers in (0, 1]; and the log mass of what is left.

    Where nothing is left, or what is left is NaN, the numbers of cells mean nothing, but are numbers of cells.
    """
    largest, likeliest = log_mass.max(1, keepdim=True)
    mass = (log_mass - largest).exp_()
    below = mass.cumsum(1)
    whole = below[:, -1:]
    # the first cell that reaches a positive goal has mass itself, and the last reaches every goal …
    found = torch.searchsorted(below, uniform * whole).clamp_(max=log_mass.shape[1] - 1)
    # … but for the rounding of sums in parallel, which may fall from one cell to the next by a last digit.
    found = found.where(mass.gather(1, found) > 0, likeliest)
    return found, largest + whole.log()


def _uniform(generator: Generators, images: int, numbers: int, device: torch.device) -> Float64[Tensor, "batch number"]:
    """Uniform numbers in [0, 1), each image's from its own generator, sent to a device at once."""
    rows = [
        torch.rand(numbers, dtype=torch.float64, device=device if one is None else one.device, generator=one)
        for one in per_image(generator, images)
    ]
    table = torch.stack(rows)
    if device.type == "cuda" and table.device.type == "cpu":
        table = table.pin_memory()
    return table.to(device, non_blocking=True)

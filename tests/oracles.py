"""Slow and exact: the maths of sampling by enumeration of every draw, in float64 and without any code of foveate."""

import itertools
import math

import torch
from torch import Tensor


def ordered_draws(prob: Tensor, n: int, replacement: bool = False) -> tuple[Tensor, Tensor]:
    """Every ordered draw of n of K cells (M, n) and its probability (M,)."""
    cells = range(len(prob))
    orders = list(itertools.product(cells, repeat=n) if replacement else itertools.permutations(cells, n))
    return torch.tensor(orders), torch.tensor(
        [_order_probability(prob.tolist(), order, replacement) for order in orders], dtype=torch.float64
    )


def _order_probability(prob: list[float], order: tuple[int, ...], replacement: bool) -> float:
    result = 1.0
    for position, cell in enumerate(order):
        gone = () if replacement else order[:position]
        result *= prob[cell] / math.fsum(p for i, p in enumerate(prob) if i not in gone)
    return result


def full_expectation(logits: Tensor, features: Tensor) -> Tensor:
    """Σ softmax(logits)_i f_i over all K cells."""
    return logits.softmax(0) @ features


def set_probability(drawn: list[float], rest: float) -> float:
    """P(S) of drawing a set, summed over all its orders by recursion over its subsets; `rest` is the mass left."""
    n, total = len(drawn), {0: rest + math.fsum(drawn)}
    reached = {0: 1.0}
    for subset in range(1, 1 << n):
        inside = [s for s in range(n) if subset >> s & 1]
        total[subset] = rest + math.fsum(drawn[s] for s in range(n) if not subset >> s & 1)
        before = [subset & ~(1 << s) for s in inside]
        reached[subset] = math.fsum(
            reached[earlier] * drawn[s] / total[earlier] for s, earlier in zip(inside, before, strict=True)
        )
    return reached[(1 << n) - 1]


def murthy_weights(drawn: list[float], rest: float) -> list[float]:
    """P(S∖s without s) / P(S) for every s."""
    whole = set_probability(drawn, rest)
    return [set_probability(drawn[:s] + drawn[s + 1 :], rest) / whole for s in range(len(drawn))]


def pair_ratios(drawn: list[float], rest: float) -> Tensor:
    """R_st = P(S∖{s,t} without s and t) / P(S∖s without s), 1 on the diagonal."""
    n = len(drawn)
    ratios = torch.ones(n, n, dtype=torch.float64)
    for s, t in itertools.permutations(range(n), 2):
        without = [mass for i, mass in enumerate(drawn) if i not in (s, t)]
        ratios[s, t] = set_probability(without, rest) / set_probability(drawn[:s] + drawn[s + 1 :], rest)
    return ratios


def des_raj_weights(drawn: list[float], rest: float) -> list[float]:
    """(mass left before the s-th draw / a_s + n − 1 − s) / n."""
    n = len(drawn)
    return [(math.fsum([rest, *drawn[s:]]) / drawn[s] + n - 1 - s) / n for s in range(n)]


def threshold_draws(prob: Tensor, n: int, nodes: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    """Every set of n of K cells with every threshold κ of a fine grid: (M, n) cells, (M,) κ, (M,) probability.

    The largest key of the cells not drawn, of mass c, has the density c e^−κ exp(−c e^−κ); the others lie above it.
    """
    index, kappas, probabilities = [], [], []
    for cells in itertools.combinations(range(len(prob)), n):
        chosen = torch.tensor(cells)
        rest = math.fsum(p for i, p in enumerate(prob.tolist()) if i not in cells)
        x = torch.linspace(-42.0, 6.0, nodes, dtype=torch.float64)
        kappa = math.log(rest) - x
        above = -torch.expm1(-prob[chosen][:, None] * (-kappa).exp())
        density = (x - x.exp()).exp() * above.prod(0)
        index.append(chosen.expand(nodes, n))
        kappas.append(kappa)
        probabilities.append(density * (x[1] - x[0]))
    return torch.cat(index), torch.cat(kappas), torch.cat(probabilities)


def every_draw(logits: Tensor, n: int, method: str, proposal: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Index (M, n), probability (M,) and threshold (M,) of every draw that can happen, by a method's name."""
    source = logits.detach().softmax(0)
    if proposal is not None:
        source = proposal.exp()
    if method == "uniform":
        source = torch.full_like(source, 1 / len(source))
    if method == "priority" and n < len(source):
        index, threshold, probability = threshold_draws(source, n)
        return index, probability, threshold
    index, probability = ordered_draws(source, n if method == "iid" else min(n, len(source)), method == "iid")
    left_over = index[:, :1].expand(-1, n - index.shape[1])
    return torch.cat((index, left_over), 1), probability, torch.zeros_like(probability)


def original_attention_gradient(attention: list[float], features: Tensor, direction: Tensor) -> list[float]:
    """The attention gradient of the paper's released code, as it stands there; cells in order drawn.

    dL/da_k = (1/N) <G, F_k p_k / a_k + Σ_{j<k} f_j − k f_k>, p_k = 1 − Σ_{j<k} a_j, F_k = Σ_{j<k} a_j f_j + p_k f_k.
    """
    n, result = len(attention), []
    for k in range(n):
        left = 1 - math.fsum(attention[:k])
        value = left * features[k]
        for j in range(k):
            value = value + attention[j] * features[j]
        slope = value * left / attention[k] - k * features[k]
        for j in range(k):
            slope = slope + features[j]
        result.append(float(slope @ direction) / n)
    return result

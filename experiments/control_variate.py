"""What a control variate saves in draws, on made-up attention and features.

Features of every cell are vectors of norm 16 without a common part; what is foretold of them, g, is the best guess from
something whose correlation with them is ρ, so that it leaves 1 − ρ² of their variance; "noise" is as large as the
features and has nothing to do with them. For each attention (flat, peaky) and number of draws: the mean squared error
of Φ̂ without g and with it, from the same draws, and how many draws it takes without g to be as exact. Then a linear g
is learnt from few numbers of a cell, which cannot foretell all, by `control_loss` and by the plain mean of squares over
the drawn cells: what noise is left, by either.

    python experiments/control_variate.py [--cells 1000] [--patches 5 10 20] [--method murthy] [--fields 20]
"""

import argparse
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from foveate.networks import ForetoldFeatures
from foveate.sampling import ControlVariate, control_loss, draw, expectation
from foveate.types import Draw

WIDTH = 16
"""Features of a cell."""

NORM = 16.0
"""Their length."""

SEEN = 6
"""Numbers that the view gives of a cell, where g is learnt."""

STEEPNESS = {"flat": 0.5, "peaky": 3.0}
"""Kind of attention → standard deviation of its logits."""

CORRELATIONS = (0.0, 0.5, 0.9, 0.99)
"""Of what is foretold with what is."""

LESSONS = 10
"""Draws of every field that g learns from."""

STEP = 1.25
"""Ratio of the numbers of draws at which the error without g is measured."""


def attention_and_features(
    kind: str, fields: int, cells: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Log attention (F, K), features (F, K, D), and noise of the features' kind."""
    log_prob = (STEEPNESS[kind] * torch.randn(fields, cells, generator=generator)).log_softmax(1)
    features, noise = (
        NORM * torch.nn.functional.normalize(torch.randn(fields, cells, WIDTH, generator=generator), dim=2)
        for _ in range(2)
    )
    return log_prob, features, noise


def foretold(features: Tensor, noise: Tensor, correlation: float) -> Tensor:
    """The best guess of features from something that correlates with them so much."""
    return correlation * (correlation * features + math.sqrt(1 - correlation**2) * noise)


def squared_errors(
    log_prob: Tensor,
    features: Tensor,
    controls: Sequence[Tensor | None],
    patches: int,
    draws: int,
    method: str,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared error of Φ̂ by field and control (fields, controls), from the same draws for all."""
    rows = []
    for one in range(len(log_prob)):  # field by field: the nodes of Murthy's weights take memory
        field, values = log_prob[one : one + 1], features[one]
        found = draw(field.expand(draws, -1), patches, method, generator=generator)
        read, whole = values[found.index], field[0].exp() @ values
        estimates = (
            expectation(found, read, None, None if control is None else ControlVariate(field, control[one : one + 1]))
            for control in controls
        )
        rows.append(torch.stack([(estimate - whole).square().sum(1).mean() for estimate in estimates]))
    return torch.stack(rows)


def draws_for(error: float, curve: Sequence[tuple[int, float]]) -> float:
    """Draws at which the error falls to this one, between the measured ones in logarithms."""
    for (few, above), (many, below) in pairwise(curve):
        if below <= error:
            if above <= error or below <= 0:
                return few if above <= error else many
            part = math.log(above / error) / math.log(above / below)
            return few * (many / few) ** part
    return math.inf


def plain_curve(
    log_prob: Tensor, features: Tensor, least: int, draws: int, method: str, generator: torch.Generator
) -> list[tuple[int, float]]:
    """Number of draws → mean squared error without a control variate, up to nearly all cells."""
    cells, curve, number = log_prob.shape[1], [], float(least)
    while number < cells:
        patches = round(number)
        repeats = max(20, min(draws, draws * 20 // patches))
        errors = squared_errors(log_prob, features, [None], patches, repeats, method, generator)
        curve.append((patches, float(errors.mean())))
        number = max(number * STEP, number + 1)
    return curve


def saved(arguments: argparse.Namespace) -> None:
    """Print the table of errors and of draws saved."""
    columns = f"{'error without':>14}{'with':>9}{'ratio ± s.e.':>16}  draws without"
    print(f"{'attention':10}{'draws':>6}  {'foretold':9}{columns}")
    for kind in STEEPNESS:
        generator = torch.Generator().manual_seed(arguments.seed)
        log_prob, features, noise = attention_and_features(kind, arguments.fields, arguments.cells, generator)
        least = min(arguments.patches)
        curve = plain_curve(log_prob, features, max(1, least // 2), arguments.draws, arguments.method, generator)
        controls = {f"ρ = {one:g}": foretold(features, noise, one) for one in CORRELATIONS} | {"noise": noise}
        for patches in arguments.patches:
            given = [None, *controls.values()]
            errors = squared_errors(log_prob, features, given, patches, arguments.draws, arguments.method, generator)
            mean = errors.mean(0).tolist()
            spread = (
                (errors[:, 1:] - errors[:, :1] * errors.mean(0)[1:] / mean[0]).std(0) / len(errors) ** 0.5 / mean[0]
            )
            for name, error, deviation in zip(controls, mean[1:], spread.tolist(), strict=True):
                ratio = f"{error / mean[0]:.3f} ± {deviation:.3f}"
                print(
                    f"{kind:10}{patches:6}  {name:9}{mean[0]:14.3f}{error:9.3f}{ratio:>16}"
                    f"  {draws_for(error, curve):.1f}"
                )


def mean_of_squares(found: Draw, read: Tensor, control: ControlVariate) -> Tensor:
    """The plain squared error over the drawn cells, to compare with."""
    drawn = control.values.gather(1, found.index[:, :, None].expand(-1, -1, read.shape[2]))
    return (read - drawn).square().sum(2).mean()


def learnt(arguments: argparse.Namespace) -> None:
    """Print what noise is left by a linear g, learnt by either loss."""
    print(
        f"\n{'attention':10}{'draws':>6}  error with g / without: learnt by control_loss, by the plain mean of squares"
    )
    losses: tuple[Callable[[Draw, Tensor, ControlVariate], Tensor], ...] = (control_loss, mean_of_squares)
    for kind in STEEPNESS:
        generator = torch.Generator().manual_seed(arguments.seed)
        log_prob, features, _ = attention_and_features(kind, arguments.fields, arguments.cells, generator)
        seen = torch.randn(arguments.fields, arguments.cells, SEEN, generator=generator)
        # attention and features are both told by what is seen, and features not by a line alone
        log_prob = (STEEPNESS[kind] * seen[:, :, 0]).log_softmax(1)
        turn = torch.randn(2, SEEN, WIDTH, generator=generator)
        told = seen @ turn[0] + (seen.square() - 1) @ turn[1]
        features = NORM * torch.nn.functional.normalize(told + features / NORM, dim=2)
        for patches in arguments.patches:
            taught = [draw(log_prob, patches, arguments.method, generator=generator) for _ in range(LESSONS)]
            controls = [None, *(learn(loss, taught, log_prob, seen, features) for loss in losses)]
            errors = squared_errors(log_prob, features, controls, patches, arguments.draws, arguments.method, generator)
            plain, *rest = errors.mean(0).tolist()
            print(f"{kind:10}{patches:6}  {rest[0] / plain:.3f}  {rest[1] / plain:.3f}")


def learn(
    loss: Callable[[Draw, Tensor, ControlVariate], Tensor],
    draws: Sequence[Draw],
    log_prob: Tensor,
    seen: Tensor,
    features: Tensor,
) -> Tensor:
    """What a linear g foretells that has learnt from some draws of every field."""
    network = ForetoldFeatures(SEEN, WIDTH)
    optimiser = torch.optim.LBFGS(network.parameters(), max_iter=25, line_search_fn="strong_wolfe")
    read = [features.gather(1, one.index[:, :, None].expand(-1, -1, WIDTH)) for one in draws]

    def closure() -> Tensor:
        optimiser.zero_grad()
        control = ControlVariate(log_prob, network(seen))
        total = torch.stack([loss(one, values, control) for one, values in zip(draws, read, strict=True)]).mean()
        total.backward()
        return total

    optimiser.step(closure)
    return network(seen).detach()


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--patches", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--method", default="murthy", help="of drawing, any that is unbiased")
    parser.add_argument("--fields", type=int, default=20, help="made-up images")
    parser.add_argument("--draws", type=int, default=200, help="of each of them, per number of patches")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    saved(arguments)
    learnt(arguments)


if __name__ == "__main__":
    main()

"""The measurement of what a control variate saves, against what theory says of it."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

FILE = Path(__file__).parents[2] / "experiments" / "control_variate.py"


def test_what_is_foretold_correlates_as_it_says_and_leaves_as_much_as_it_must(script: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    _, features, noise = script.attention_and_features("flat", 2, 4000, generator)
    torch.testing.assert_close(features.norm(dim=2), torch.full((2, 4000), 16.0))
    for correlation in (0.0, 0.5, 0.9, 0.99):
        values = script.foretold(features, noise, correlation)
        product = (values * features).sum() / (values.norm() * features.norm()).clamp(min=1e-9)
        assert float(product) == pytest.approx(correlation, abs=0.01)
        left = (features - values).square().mean() / features.square().mean()
        assert float(left) == pytest.approx(1 - correlation**2, abs=0.01)


def test_errors_of_independent_draws_are_those_of_theory(script: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    log_prob, features, _ = script.attention_and_features("peaky", 3, 30, generator)
    controls = [None, 0.5 * features, features]
    found = script.squared_errors(log_prob, features, controls, 4, 4000, "iid", generator)
    whole = torch.einsum("bk,bkd->bd", log_prob.exp(), features)
    variance = (16.0**2 - whole.square().sum(1)) / 4
    # 4,000 squares, whose deviation is less than twice their mean: 13 % are four standard errors, wrong once in 5,000
    torch.testing.assert_close(found[:, 0], variance, rtol=0.13, atol=0)
    torch.testing.assert_close(found[:, 1], found[:, 0] / 4)
    assert float(found[:, 2].max()) < 1e-6 * float(variance.min())


def test_draws_lie_between_the_measured_ones(script: Any) -> None:
    curve = [(2, 8.0), (4, 4.0), (8, 2.0), (16, 0.0)]
    found = [script.draws_for(error, curve) for error in (9.0, 8.0, 4.0, 2.0 * 2**0.5, 1.0)]
    assert found == pytest.approx([2, 2, 4, 4 * 2**0.5, 16])
    assert script.draws_for(1.0, curve[:3]) == float("inf")


def test_both_tables_are_printed(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    small = argparse.Namespace(cells=40, patches=[3, 6], method="murthy", fields=3, draws=20, seed=0)
    script.saved(small)
    script.learnt(small)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 2 * 5 + 2 + 2 * 2
    none = [line for line in lines if "ρ = 0 " in line]
    assert len(none) == 4
    assert all("1.000 ± 0.000" in line for line in none)

"""A temperature against brute force, and reliability of models whose truth is known."""

import numpy as np
import pytest
import torch

from foveate.errors import DataError
from foveate.evaluation.calibration import at_temperature, fit_temperature, reliability
from foveate.models.losses import cross_entropies
from foveate.models.probabilities import probabilities


def drawn(n: int, classes: int, sharpness: float, several: bool = False, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Labels of a true distribution, and what a model says whose logits are `sharpness` times as large."""
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(size=(n, classes)) * 1.5)
    true = probabilities(logits, several).numpy()
    uniform = random.random((n, classes if several else 1))
    labels = (uniform < true).astype(np.int64) if several else (uniform > true.cumsum(1)).sum(1)
    return labels, probabilities(logits * sharpness, several).numpy()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_what_sharpened(several: bool, sharpness: float) -> None:
    labels, values = drawn(8000, 3, sharpness, several)
    assert fit_temperature(labels, values) == pytest.approx(sharpness, rel=0.08)


@pytest.mark.parametrize("several", [False, True])
def test_no_other_temperature_explains_more(several: bool) -> None:
    labels, values = drawn(60, 4, 3.0, several, seed=3)
    count = 2 if several else 4

    def loss(temperature: float) -> float:
        scaled = torch.from_numpy(at_temperature(values, temperature, several))
        hot = labels if several else np.eye(4)[labels]
        target = torch.from_numpy((hot * (240 if several else 60) + 1) / ((240 if several else 60) + count))
        each = target * scaled.log() + ((1 - target) * (1 - scaled).log() if several else 0)
        return float(-each.sum())

    best = fit_temperature(labels, values)
    assert all(loss(best) <= loss(best * factor) + 1e-9 for factor in (0.5, 0.99, 1.01, 2.0))


def test_the_order_of_classes_never_changes_and_the_model_says_the_same() -> None:
    _, values = drawn(200, 5, 2.0)
    logits = torch.from_numpy(values).log()
    for temperature in (0.1, 1.0, 30.0):
        scaled = at_temperature(values, temperature, several=False)
        assert np.array_equal(np.argsort(scaled, 1), np.argsort(values, 1))
        assert scaled == pytest.approx(probabilities(logits / temperature).numpy(), abs=1e-12)


def test_a_handful_without_error_is_no_reason_for_certainty() -> None:
    labels, values = np.array([0, 1, 0, 1]), np.array([[0.7, 0.3], [0.3, 0.7]] * 2)
    temperature = fit_temperature(labels, values)
    assert at_temperature(values, temperature, several=False).max() < 0.9
    with pytest.raises(DataError, match="there is no image to fit a temperature to"):
        fit_temperature(labels[:0], values[:0])


def test_the_calibration_error_is_that_of_its_table_and_chance_explains_that_of_a_calibrated_model() -> None:
    held = []
    for seed in range(20):
        labels, values = drawn(150, 3, 1.0, seed=seed)
        found = reliability(labels, values, [None] * 150, seed=seed)
        told = sum(row.n * abs(row.share - row.confidence) for row in found.bins) / 150
        assert found.error == pytest.approx(told, abs=1e-12)
        assert sum(row.n for row in found.bins) == 150
        assert len(found.bins) == 10
        held.append(found.error <= found.by_chance)
    assert sum(held) >= 16  # of 20 at 0.95 each; fewer have a chance of 0.0003
    labels, values = drawn(150, 3, 5.0)
    sure = reliability(labels, values, [None] * 150)
    assert sure.interval[0] > sure.by_chance
    scaled = at_temperature(values, fit_temperature(labels, values), several=False)
    after = reliability(labels, scaled, [None] * 150)
    assert after.error < sure.error / 2
    gain = [
        float(cross_entropies(torch.from_numpy(one).log(), torch.from_numpy(labels)).mean()) for one in (scaled, values)
    ]
    assert gain[0] < gain[1]


def test_images_of_one_group_are_drawn_together() -> None:
    labels, values = drawn(120, 2, 3.0)
    alone = reliability(labels, values, [None] * 120)
    together = reliability(np.repeat(labels, 6)[:120], np.repeat(values, 6, 0)[:120], [f"{i // 6}" for i in range(120)])
    assert together.interval[1] - together.interval[0] > alone.interval[1] - alone.interval[0]

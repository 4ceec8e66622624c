"""Cross-attention over the patches drawn: what it estimates, by enumeration, and what cannot work with it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracles import ordered_draws
from squares import unchecked
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.heads import HeadSettings
from foveate.config.settings import AttentionSettings, FeatureSettings, ViewSettings
from foveate.errors import ConfigError
from foveate.images import ArraySource
from foveate.models import Model, make_batch
from foveate.models.heads import grade_order, pooled
from foveate.networks.cross_attention import CrossAttention
from foveate.sampling import draw, expectation, log_coefficients, weigh
from foveate.types import Draw

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]

__all__ = ["unchecked"]

CROSS = HeadSettings(pool="cross-attention", heads=4)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_head(dimension: int, constant: bool = False) -> CrossAttention:
    """Of identity values, whose `attended` is a weighted mean of the features; with scores of any size, or constant."""
    pool = CrossAttention(dimension, heads=1).double()
    generator = torch.Generator().manual_seed(5)
    for parameter in pool.parameters():
        nn.init.normal_(parameter, generator=generator)
    with torch.no_grad():
        pool.values.weight.copy_(torch.eye(dimension))
        pool.out.weight.copy_(torch.eye(dimension))
        if constant:
            pool.query.zero_()
    return pool


def drawn_by(method: Any, n: int, log_prob: Tensor, features: Tensor) -> tuple[Draw, Tensor]:
    drawn = draw(log_prob, n, method, generator=torch.Generator().manual_seed(0))
    return drawn, features.gather(1, drawn.index[:, :, None].expand(-1, -1, features.shape[2]))


@pytest.mark.parametrize("method", ["iid", "des_raj", "murthy", "uniform", "top"])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_constant_scores_leave_the_importance_weighted_mean(method: Any, n: int) -> None:
    """n of 6 cells, and all of them."""
    logits = random(4, 6) * (0 if method == "uniform" else 2)
    drawn, read = drawn_by(method, n, logits.log_softmax(1), random(4, 6, 3, seed=1))
    seen = one_head(3, constant=True).attended(read, log_coefficients(drawn))
    torch.testing.assert_close(seen, expectation(drawn, read), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["priority", "uniform"])
def test_where_weights_do_not_sum_to_one_the_mean_is_over_their_sum(method: Any) -> None:
    drawn, read = drawn_by(method, 3, (2 * random(4, 6)).log_softmax(1), random(4, 6, 3, seed=1))
    whole = expectation(drawn, torch.ones_like(read))
    assert (whole - 1).abs().max() > 0.01
    seen = one_head(3, constant=True).attended(read, log_coefficients(drawn))
    torch.testing.assert_close(seen, expectation(drawn, read) / whole, rtol=0, atol=1e-10)


def test_both_sums_of_the_ratio_are_unbiased_and_the_ratio_is_exact_where_all_is_drawn() -> None:
    """Every ordered draw of 2 of 5 cells, by their probabilities; then all 5."""
    pool, features = one_head(3), random(5, 3, seed=1)
    log_prob = random(5, seed=2).log_softmax(0)
    scores = pool.scores(features)[0]
    tilted = (log_prob + scores).exp()
    wanted = (tilted @ features) / tilted.sum()

    orders, probability = ordered_draws(log_prob.exp(), 2)
    many = log_prob.expand(len(orders), -1)
    drawn = weigh(many, orders, "murthy")
    share = (log_coefficients(drawn) + scores[orders]).exp()
    above, below = torch.einsum("mn,mnd->md", share, features[orders]), share.sum(1)
    torch.testing.assert_close(probability @ above, tilted @ features, rtol=0, atol=1e-10)
    torch.testing.assert_close(probability @ below, tilted.sum(), rtol=0, atol=1e-10)
    ratio = pool.attended(features[orders], log_coefficients(drawn))
    torch.testing.assert_close(ratio, above / below[:, None], rtol=0, atol=1e-10)
    assert (probability @ ratio - wanted).abs().max() > 1e-3  # as told, the ratio is biased

    whole = draw(log_prob[None], 5, "murthy")
    seen = pool.attended(features[whole.index[0]][None], log_coefficients(whole))
    torch.testing.assert_close(seen[0], wanted, rtol=0, atol=1e-10)


def test_attention_is_taught_to_go_where_patches_differ_from_the_rest() -> None:
    r"""∂c/∂z = Σ_s p_s (f_s − c) ∂log a_s/∂z, with the weights w constant."""
    pool, features = one_head(3), random(1, 5, 3, seed=1)
    logits = random(1, 5, seed=2).requires_grad_(True)
    drawn = draw(logits.log_softmax(1), 3, "murthy", generator=torch.Generator().manual_seed(0))
    read = features[:, drawn.index[0]]
    seen = pool.attended(read, log_coefficients(drawn))
    direction = random(3, seed=3)
    (found,) = torch.autograd.grad(seen[0] @ direction, logits)
    with torch.no_grad():
        shares = (log_coefficients(drawn) + pool.scores(read)[:, 0]).softmax(1)[0]
        worth = shares * ((read[0] - seen[0]) @ direction)
        attention = logits[0].softmax(0)
        expected = torch.zeros(5, dtype=torch.float64)
        for cell, value in zip(drawn.index[0], worth, strict=True):
            expected += value * (torch.eye(5, dtype=torch.float64)[cell] - attention)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-10)


def test_slots_left_over_have_no_weight_whatever_is_in_them() -> None:
    pool, log_prob, features = one_head(3), random(1, 4).log_softmax(1), random(1, 6, 3, seed=1)
    drawn = draw(log_prob, 6, "murthy")
    assert drawn.valid.sum() == 4
    elsewhere = features.masked_fill(~drawn.valid[:, :, None], 1e3)
    torch.testing.assert_close(pooled(pool, drawn, elsewhere), pooled(pool, drawn, features), rtol=0, atol=0)
    assert log_coefficients(drawn)[0, 4:].tolist() == [-math.inf] * 2


@pytest.mark.parametrize("name", ["attention-sampling", "uniform", "zoom", "top-k"])
def test_a_model_classifies_what_cross_attention_sees(name: str, make_model: Models, make_source: Sources) -> None:
    """Also averaged over samples, and with slots left over: an image of fewer cells than patches, but of zoom."""
    model: Any = make_model(name, head=CROSS, patches=5).eval()
    batch = make_batch([make_source((160, 100)), make_source((15, 9), seed=1)], model.view, [1, 2])
    output = model(batch, samples=3)
    assert output.draw.valid[:3].all()
    assert bool(output.draw.valid[3:].all()) == (name == "zoom")
    each = model.head(model.pool(output.features, log_coefficients(output.draw))).softmax(1)
    torch.testing.assert_close(output.logits.softmax(1), each.view(2, 3, 3).mean(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["attention-sampling", "zoom"])
def test_attention_learns_through_it(name: str, make_model: Models, make_source: Sources) -> None:
    model: Any = make_model(name, head=CROSS).train()
    batch = make_batch([make_source((160, 100)), make_source((90, 210), seed=1)], model.view, [1, 2])
    model(batch).logits.square().sum().backward()
    for key, parameter in model.named_parameters():
        if "attention.layers" in key or "further" in key or key.startswith("pool."):
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    assert model.attention.layers[0].weight.grad.abs().max() > 0
    assert model.pool.query.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "cnn"},
            r"model.head.pool cross-attention pools patches that are drawn, and the model cnn draws none: set it to m",
        ),
        (
            {"name": "deep-mil"},
            r"model.head.pool cross-attention pools patches that are drawn, and the model deep-mil draws none: set it ",
        ),
        (
            {"patches": 1},
            r"cross-attention over 1 patch teaches attention nothing: set model.patches to 2 or more, or ",
        ),
        (
            {"control": True, "attention": AttentionSettings(name="timm:test_resnet", stages=(2, 3), stride=6)},
            r"model.control belongs to a mean of patches, got model.head.pool cross-attention: set one to false, or ",
        ),
        (
            {"head": HeadSettings("cross-attention", heads=0)},
            r"model.head.heads must be at least 1 and model.head.hidden at least 0, got 0 and 0: leave them out",
        ),
        (
            {"head": HeadSettings("cross-attention", dropout=1.0)},
            r"model.head.dropout must be in \[0, 1\), got 1.0: set it to e.g. 0.1",
        ),
    ],
)
def test_what_cannot_work_with_it_is_refused(changes: dict[str, Any], message: str, make_model: Models) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}"):
        make_model(**({"head": CROSS} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"extras": {"multi_label": True}},
            r"model.head.kind ordinal needs one grade an image, but an image has several labels: set it to classes",
        ),
        (
            {"name": "evidence", "attention": AttentionSettings(name="timm:test_resnet", stages=(2, 3), stride=6)},
            r"model.head.kind ordinal needs one grade an image, but the model evidence has no head: set it to classes",
        ),
        (
            {"head": HeadSettings(kind="ordinal", order=("cat", "owl"))},
            r"model.head.order must name each of the classes cat, dog, owl once, and needs model.head.kind ordinal, ",
        ),
        ({"head": HeadSettings(order=("cat", "owl", "dog"))}, r"model.head.order must name each of the classes cat, d"),
    ],
)
def test_grades_that_make_no_sense_are_refused(changes: dict[str, Any], message: str, make_model: Models) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}"):
        make_model(**({"head": HeadSettings(kind="ordinal")} | changes))


def test_of_grades_no_answer_is_settled(make_model: Models, make_source: Sources) -> None:
    model = make_model(head=HeadSettings(kind="ordinal"))
    message = "max_patches needs logits that are linear, and model.head.kind is ordinal: leave max_patches out"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        model.predict(make_source((60, 90)), max_patches=10)


@pytest.mark.parametrize("name", ["attention-sampling", "cnn", "deep-mil", "ips"])
def test_grades_have_probabilities_of_classes_and_an_order(name: str, make_model: Models, make_source: Sources) -> None:
    model = make_model(name, head=HeadSettings(kind="ordinal", order=("owl", "cat", "dog")))
    prediction = model.predict(make_source((60, 90)), samples=2)
    assert list(prediction.probabilities) == ["cat", "dog", "owl"]
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert grade_order(model) == (2, 0, 1)
    assert grade_order(make_model(name)) == ()


def test_patches_are_not_drawn_until_an_answer_is_settled(make_model: Models, make_source: Sources) -> None:
    model = make_model(head=CROSS)
    message = "max_patches needs the variance of a mean, and model.head.pool is cross-attention: leave max_patches out"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        model.predict(make_source((60, 90)), max_patches=10)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_it_learns_the_colour_of_a_square(make_model: Models) -> None:
    """Of 12 images with a red or a blue square, some of whose patches are looked at: one answer for all errs on 6."""
    model = make_model(head=HeadSettings("cross-attention", heads=2), patches=6, patch=(21, 23), channels=3)
    sources = []
    for number in range(12):
        random_ = np.random.default_rng(number)
        pixels = random_.integers(0, 60, (40, 64, 3), dtype=np.uint8)
        top, left = random_.integers(0, 24), random_.integers(0, 48)
        pixels[top : top + 16, left : left + 16, 2 * (number % 2)] = 250
        sources.append(ArraySource(pixels, name=str(number)))
    labels = torch.arange(12) % 2
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(40):
        output = model.train()(make_batch(sources, model.view, range(100 * step, 100 * step + 12)))
        optimizer.zero_grad()
        functional.cross_entropy(output.logits, labels).backward()
        optimizer.step()
    with model.evaluating():
        output = model(make_batch(sources, model.view, range(12)), samples=4)
    assert torch.equal(output.logits.argmax(1), labels)


@pytest.mark.usefixtures("unchecked")
def test_it_learns_grades(make_model: Models) -> None:
    """Of 12 images from red by purple to blue: one answer for all errs on 8."""
    changes: dict[str, Any] = {"features": FeatureSettings(width=16), "view": ViewSettings(scale=1.0)}
    model = make_model("cnn", head=HeadSettings(kind="ordinal"), channels=3, **changes)
    sources = []
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 40, (30, 45, 3), dtype=np.uint8)
        pixels[..., 0] += np.uint8(100 * (number % 3))
        pixels[..., 2] += np.uint8(100 * (2 - number % 3))
        sources.append(ArraySource(pixels, name=str(number)))
    labels, batch = torch.arange(12) % 3, make_batch(sources, model.view, [0] * 12)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(model.train()(batch).logits, labels).backward()
        optimizer.step()
    with model.evaluating():
        assert torch.equal(model(batch).logits.argmax(1), labels)

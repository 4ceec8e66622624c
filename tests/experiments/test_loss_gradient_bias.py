"""The measurement of the bias, against biases known by enumeration of every draw."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import ordered_draws
from torch import Tensor

from foveate.sampling import weigh

FILE = Path(__file__).parents[2] / "experiments" / "loss_gradient_bias.py"
CELLS, DRAWN = 5, 3


def outcomes(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Four vectors that a random gradient may be, their probabilities, and a gradient to compare their mean with."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    probability = torch.rand(4, generator=generator, dtype=torch.float64)
    return values, probability / probability.sum(), torch.tensor([0.5, -1.0, 0.3], dtype=torch.float64)


def test_the_squared_bias_and_the_noise_are_unbiased_by_enumeration(script: Any) -> None:
    values, probability, truth = outcomes()
    mean = probability @ values
    squared, noise = 0.0, 0.0
    for chosen in itertools.product(range(4), repeat=3):  # three blocks of one draw each
        chance = math.prod(probability[list(chosen)].tolist())
        found = script.agreement(truth, values[list(chosen)], 1)
        squared += chance * found.squared
        noise += chance * found.noise**2
    length = truth.square().sum()
    assert squared == pytest.approx(float((mean - truth).square().sum() / length), abs=1e-12)
    variance = probability @ (values - mean).square().sum(1)
    assert noise == pytest.approx(float(variance / length), abs=1e-12)


def test_errors_are_those_of_the_jackknife(script: Any) -> None:
    truth = outcomes()[2]
    means = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.1 + truth

    def by_hand(blocks: Tensor) -> tuple[float, float]:
        pairs = list(itertools.permutations(blocks, 2))
        squared = sum(float((a - truth) @ (b - truth)) for a, b in pairs) / len(pairs) / float(truth @ truth)
        length = math.sqrt(sum(float(a @ b) for a, b in pairs) / len(pairs) * float(truth @ truth))
        return squared, float(blocks.mean(0) @ truth) / length

    found = script.agreement(truth, means, 10)
    assert (found.squared, found.cosine) == pytest.approx(by_hand(means), abs=1e-12)
    without = [by_hand(torch.cat([means[:k], means[k + 1 :]])) for k in range(6)]
    for number, error in enumerate((found.squared_error, found.cosine_error)):
        each = [one[number] for one in without]
        centre = sum(each) / 6
        assert error == pytest.approx(math.sqrt(5 / 6 * sum((one - centre) ** 2 for one in each)), abs=1e-12)
    assert found.bias() == pytest.approx(math.sqrt(max(0.0, found.squared)))
    assert found.bias(-1e9) == 0


@pytest.fixture(scope="module")
def toy(script: Any) -> Any:
    """Two images of five cells, attention of moderate sharpness, features of some length: biases easily told."""
    generator = torch.Generator().manual_seed(3)
    log_prob = (1.5 * torch.randn(2, CELLS, generator=generator, dtype=torch.float64)).log_softmax(1)
    features = 3 * torch.randn(2, CELLS, 4, generator=generator, dtype=torch.float64)
    head = torch.nn.Linear(4, 3, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.randn(3, 4, generator=generator, dtype=torch.float64))
        head.bias.zero_()
    return script.Whole(log_prob, features, head, torch.tensor([0, 2]))


@pytest.fixture(scope="module")
def pulled(toy: Any) -> Any:
    """By logits of the attention, and by features: the parameters of a model that is nothing but these."""

    def pull(slopes: list[list[Tensor]]) -> dict[str, Tensor]:
        by_log_prob = torch.stack([one[0] for one in slopes])
        by_logits = by_log_prob - toy.log_prob.exp() * by_log_prob.sum(2, keepdim=True)
        return {"attention": by_logits.flatten(1), "features": torch.stack([one[1].flatten() for one in slopes])}

    return pull


def enumerated(script: Any, toy: Any, pulled: Any, name: str) -> dict[str, Tensor]:
    """The mean gradient over all draws, image by image: their draws are independent, and the loss is their mean."""
    method, estimator = script.ESTIMATORS[name]
    total: list[Tensor] = []
    for image in range(2):
        index, probability = ordered_draws(toy.log_prob[image].exp(), DRAWN, method == "iid")
        log_prob, features = (one.clone().requires_grad_() for one in (toy.log_prob, toy.features))
        drawn = weigh(log_prob[image].expand(len(index), -1), index, method)
        logits = toy.head(estimator(drawn, features[image][index]))
        losses = -logits.log_softmax(1)[:, toy.labels[image]]
        found = torch.autograd.grad(probability @ losses / 2, [log_prob, features])
        total = [one + other for one, other in zip(total, found, strict=True)] if total else list(found)
    return {part: one[0] for part, one in pulled([total]).items()}


def test_measured_biases_are_those_of_the_enumeration(script: Any, toy: Any, pulled: Any) -> None:
    """20 squared biases and cosines; one 5 standard errors (of 16 blocks) off by chance: about once in 300."""
    truth = {part: one[0] for part, one in pulled([toy.exact()]).items()}
    rows = script.compare_gradients(toy, pulled, [DRAWN], draws=8000, blocks=16)
    assert len(rows) == 2 * len(script.ESTIMATORS)
    biases = {}
    for row in rows:
        mean, exact = enumerated(script, toy, pulled, row["estimator"])[row["part"]], truth[row["part"]]
        squared = float((mean - exact).square().sum() / exact.square().sum())
        cosine = float(torch.cosine_similarity(mean, exact, dim=0))
        biases[row["estimator"], row["part"]] = math.sqrt(squared)
        print(f"{row['estimator']:18}{row['part']:10} {math.sqrt(squared):.4f} {row['bias']:.4f}, cosine {cosine:.4f}")
        assert abs(row["squared"] - squared) <= 5 * row["squared_error"]
        assert abs(row["cosine"] - cosine) <= 5 * row["cosine_error"]
    assert min(biases.values()) > 0.01, "else nothing would be shown"
    assert biases["original", "attention"] > 2 * biases["des_raj", "attention"]


def test_with_every_cell_drawn_there_is_no_bias(script: Any, toy: Any, pulled: Any) -> None:
    for row in script.compare_gradients(toy, pulled, [CELLS], draws=30, blocks=3):
        if row["estimator"] != "iid":
            assert abs(row["squared"]) < 1e-20
            assert row["cosine"] == pytest.approx(1.0)


def test_a_model_is_measured_and_the_table_kept(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["--canvas", "130", "--images", "2", "--patches", "4", "--draws", "12", "--blocks", "3"]
    monkeypatch.setattr("sys.argv", ["loss_gradient_bias.py", *words, "--out", str(tmp_path / "bias.json")])
    script.main()
    plain = json.loads((tmp_path / "bias.json").read_text())
    assert len(plain["rows"]) == 4 * len(script.ESTIMATORS)
    assert {row["part"] for row in plain["rows"]} == {"attention", "features", "head", "all"}
    assert all(math.isfinite(row["squared"]) for row in plain["rows"])
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(plain["rows"])


def test_what_is_pulled_back_is_the_gradient_by_the_models_parameters(script: Any) -> None:
    from dataclasses import replace

    from foveate.config.files import preset
    from foveate.config.settings import DataSettings
    from foveate.datasets import megapixel_mnist
    from foveate.models import build_model, make_batch

    data = megapixel_mnist(DataSettings(canvas=(130, 150), train_images=1, test_images=2, noise=2))
    model = build_model(preset("megapixel-mnist").model, data.classes, 1).double()
    batch = make_batch([data.open(1), data.open(2)], model.view, [0, 0], labels=[3, 4])
    batch = replace(batch, views=batch.views.double())
    puller = script.Puller(model, batch)
    found = puller([puller.whole.exact()])
    features = model.features(puller.patches).unflatten(0, puller.log_prob.shape)
    phi = (puller.log_prob.exp()[:, :, None] * features).sum(1)
    loss = torch.nn.functional.cross_entropy(model.head(phi), torch.tensor([3, 4]))
    parameters = [*model.attention.parameters(), *model.features.parameters(), *model.head.parameters()]
    expected = torch.cat([one.flatten() for one in torch.autograd.grad(loss, parameters)])
    torch.testing.assert_close(found["all"][0], expected, rtol=1e-9, atol=1e-12)

"""Explanations of numbers: patches and bias add up to the number, in its unit; and what page, record and index say."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import sharp, small_settings

from foveate.config.heads import HeadSettings
from foveate.explain import Explainer, explain
from foveate.images import ArraySource
from foveate.models import DrawOptions, Model, build_model
from foveate.networks.number import NumberHead


def model_of(name: str, pool: Any = "mean") -> Model:
    model = sharp(build_model(small_settings(name, head=HeadSettings(kind="number", pool=pool, heads=2)), (), 3)).eval()
    assert isinstance(model.head, NumberHead)
    model.head.measure([980.0, 1040.0, 1010.0])
    return model


def image(name: str = "a.png") -> ArraySource:
    return ArraySource(np.random.default_rng(3).integers(0, 255, (96, 130, 3), dtype=np.uint8), name=name)


@pytest.mark.parametrize("name", ["attention-sampling", "uniform", "deep-mil", "zoom", "multi-scale"])
def test_bias_and_contributions_are_the_number_in_its_unit(name: str) -> None:
    """With the mean of the training labels, 1010, in the bias; and each contribution is σ a w W f."""
    model = model_of(name)
    look = model.look(image(), DrawOptions(samples=2))
    seen = explain(model, look)
    assert seen.bias is not None
    assert seen.rest is not None
    head = model.head
    assert float(seen.bias[0]) == pytest.approx(1010 + 600**0.5 * float(head.bias.detach()), abs=1e-6)
    for draw, number in enumerate(seen.logits[:, 0]):
        parts = [patch.contributions[0] for patch in seen.patches if patch.draw == draw]
        assert seen.bias[0] + sum(parts) + seen.rest[draw, 0] == pytest.approx(number, abs=1e-9)
    assert seen.probabilities.tolist() == seen.logits.tolist()
    assert seen.prediction.value == pytest.approx(seen.logits.mean(), abs=1e-2)  # the network computes in float32
    assert (seen.classes, seen.answers, seen.shown_class, seen.right) == (("number",), ("number",), 0, None)


def test_where_no_sum_is_left_a_patch_adds_what_the_number_would_lose() -> None:
    model: Any = model_of("attention-sampling", "cross-attention")
    look = model.look(image())
    seen = explain(model, look)
    assert (seen.bias, seen.rest) == (None, None)
    assert seen.note.endswith("what the number would lose without it, and all of these together are not the number.")
    from foveate.sampling import log_coefficients

    weight = log_coefficients(look.output.draw)
    weight[:, 0] = -torch.inf
    with torch.no_grad():
        without = float(model.answers(model.head(model.pool(look.output.features, weight))))
    assert seen.patches[0].contributions[0] == pytest.approx(seen.logits[0, 0] - without, abs=1e-2)


@pytest.mark.parametrize("name", ["attention-sampling", "cnn"])
def test_pages_speak_of_a_number_and_of_no_class(name: str, tmp_path: Path) -> None:
    model, options = model_of(name), DrawOptions(samples=2)
    explainer = Explainer(model, tmp_path, options, what_if=2)
    look = model.look(image(), options)
    explainer("a.png", look, truth=("12,5",))
    index = explainer.finish()
    assert index is not None
    page = (tmp_path / "a" / "explanation.html").read_text()
    text = " ".join(re.sub(r"<(script|style)[^>]*>.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL).split())
    follows = "a.png" if name == "cnn" else "Skip to the patches"  # which it has none of
    assert f"a.png: {look.prediction.predicted} {follows}" in text
    assert "In truth it is 12,5" in text
    for word in ("class", "classes", "probabilities", "logit", "nats", "Wrong", "Right"):
        assert re.search(rf"\b{word}\b", text) is None, word
    listed = " ".join(re.sub(r"<(script|style)[^>]*>.*?</\1>|<[^>]+>", " ", index.read_text(), flags=re.DOTALL).split())
    assert f"a.png {look.prediction.predicted} 12,5" in listed
    assert "probability" not in listed
    assert "wrongly" not in listed
    record = json.loads((tmp_path / "a" / "explanation.json").read_text())
    assert (record["number"], record["truth"]) == (look.prediction.value, ["12,5"])
    assert [list(one) for one in record["draws"]] == [["number"]] * len(record["draws"])

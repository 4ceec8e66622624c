from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foveate.errors import ConfigError
from foveate.images import ArraySource
from foveate.models import Model, load_model, make_batch, save_model
from foveate.models.probabilities import average_samples, name_predicted

Sources = Callable[..., ArraySource]
Models = Callable[..., Model]
NAMES = ["attention-sampling", "uniform", "cnn", "deep-mil", "ips"]


def leaning(model: Model, logits: tuple[float, ...]) -> Model:
    """A model that says the same of every image."""
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor(logits))
    return model


def test_only_the_model_knows_what_logits_mean(make_model: Models) -> None:
    logits = torch.tensor([[0.3, -2.0, 5.0], [0.0, 0.0, 0.0]])
    assert torch.equal(make_model().probabilities(logits), logits.softmax(1))
    assert torch.equal(make_model(extras={"multi_label": True}).probabilities(logits), logits.sigmoid())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("logits", "predicted"),
    [((1.0, -1.0, 0.0), "cat|owl"), ((-0.1, -3.0, -1.0), ""), ((2.0, 3.0, 0.5), "cat|dog|owl")],
)
def test_a_prediction_names_all_that_are_likelier_than_not(
    name: str, logits: tuple[float, ...], predicted: str, make_model: Models
) -> None:
    model = leaning(make_model(name, channels=1, extras={"multi_label": True}), logits)
    prediction = model.predict(np.zeros((50, 60), np.uint8), samples=2)
    assert prediction.predicted == predicted
    assert list(prediction.probabilities) == ["cat", "dog", "owl"]
    assert list(prediction.probabilities.values()) == pytest.approx(torch.tensor(logits).sigmoid().tolist(), abs=1e-6)
    single = leaning(make_model(name, channels=1), logits).predict(np.zeros((50, 60), np.uint8))
    assert single.predicted == ("cat", "dog", "owl")[int(np.argmax(logits))]
    assert sum(single.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("multi_label", [True, False])
def test_samples_average_probabilities(multi_label: bool) -> None:
    """Also of logits that float32 exponentials cannot hold."""
    logits = torch.tensor([[0.5, -3.0], [2.0, 1.0], [-0.5, 0.1], [300.0, -300.0], [298.0, -301.0], [299.0, -299.0]])
    one_each = logits.sigmoid() if multi_label else logits.softmax(1)
    averaged = average_samples(logits, 3, multi_label)
    found = averaged.sigmoid() if multi_label else averaged.softmax(1)
    torch.testing.assert_close(found, one_each.view(2, 3, 2).mean(1), rtol=1e-5, atol=0)
    assert averaged.isfinite().all()
    assert average_samples(logits, 1, multi_label) is logits


def test_one_half_counts_and_the_order_is_that_of_the_classes() -> None:
    assert name_predicted(("b", "a"), (0.5, 0.9), multi_label=True) == "b|a"
    assert name_predicted(("b", "a"), (0.4, 0.4)) == "b"


def test_labels_of_a_batch(make_source: Sources) -> None:
    sources = [make_source((20, 30)), make_source((24, 30)), make_source((22, 20))]
    one = make_batch(sources, None, [0, 0, 0], labels=[2, None, 0])
    assert one.labels.dtype == torch.int64
    assert one.labels.tolist() == [2, -1, 0]
    several = make_batch(sources, None, [0, 0, 0], labels=[(0, 2), (), None], multi_label_classes=3)
    assert several.labels.dtype == torch.float32
    assert several.labels.tolist() == [[1, 0, 1], [0, 0, 0], [-1, -1, -1]]
    with pytest.raises(ValueError, match=r"^with several labels each image has a tuple of class indices, got 1$"):
        make_batch(sources, None, [0, 0, 0], labels=[1, 2, 0], multi_label_classes=3)


def test_it_is_kept_with_the_model(tmp_path: Path, make_model: Models) -> None:
    model = make_model(extras={"multi_label": True}, classes=("cat",))
    again = load_model(save_model(model, tmp_path))
    assert again.multi_label
    assert "any number of these classes: cat" in (tmp_path / "README.md").read_text()
    assert not load_model(save_model(make_model(), tmp_path)).multi_label
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('  "multi_label": false,\n', ""))  # as before there was one
    assert "multi_label" in config
    assert not load_model(tmp_path).multi_label


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((), "a model needs at least one class, all with different names, got []"),
        (("a", "a"), "a model needs at least one class, all with different names, got ['a', 'a']"),
        (
            ("a|b", "c"),
            "names of several labels must not contain |, which stands between them, got ['a|b', 'c']: rename them",
        ),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(
    classes: tuple[str, ...], message: str, make_model: Models
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_model(classes=classes, extras={"multi_label": True})
    assert str(caught.value) == message

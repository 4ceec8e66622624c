"""A run that finds first: its evidence is a model at once, and what comes later has to be better."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from foveate.config.settings import DataSettings, FeatureSettings
from foveate.config.training import FindSettings, RunSettings, TrainingSettings
from foveate.datasets import read_manifest
from foveate.datasets.types import ImageDataset
from foveate.errors import ConfigError
from foveate.models import Evidence, Model, load_model
from foveate.models.sampling import AttentionSampling
from foveate.training import find as finding
from foveate.training import loop
from foveate.training.loop import train
from foveate.training.progress import SilentProgress
from foveate.training.run_folder import read_metrics

try:
    import timm
except Exception as error:  # a torchvision that does not match torch raises RuntimeError
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

from seeing import make_marks, noted_looks, seeing_settings, write_marks

pytestmark = pytest.mark.usefixtures("unchecked")

CLOCKS = ("seconds", "patches_per_second", "training_seconds", "receipt")
FROZEN = FeatureSettings(width=6, frozen=True, project=5, dropout=0.2)


class Heard(SilentProgress):
    """Remembers the lines it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return read_manifest(write_marks(tmp_path_factory.mktemp("photographs"), make_marks(16, 6)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a backbone, which stand for pretrained ones."""
    path = tmp_path_factory.mktemp("weights") / "backbone.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    return str(path)


@pytest.fixture
def settings(weights: str) -> RunSettings:
    find = FindSettings(
        starts=2,
        novel=0.0,
        epochs=2,
        least_steps=50,
        batch=16,
        learning_rate=1e-2,
        tops=(2.0,),
        linear=False,
        share=0.0,
    )
    return RunSettings(
        data=DataSettings(cache="memory"),
        model=seeing_settings("attention-sampling", {"weights": weights}, features=FROZEN),
        training=TrainingSettings(epochs=2, batch=6, watch=1, log_every=1, learning_rate=1e-5, find=find),
        seed=3,
    )


def timeless(run: Path) -> list[dict[str, Any]]:
    records = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in record.items() if key not in CLOCKS} for record in records]


def assert_same_runs(first: Path, second: Path, tensors_of: Callable[[Path], dict[str, np.ndarray]]) -> None:
    one, other = tensors_of(first), tensors_of(second)
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name
    assert timeless(first) == timeless(second)
    for name in ("find/model.safetensors", "find/find.json", "model/model.safetensors", "model/config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_what_was_seen_in_finding_is_not_seen_again(
    settings: RunSettings, dataset: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = noted_looks(monkeypatch)
    train(settings, tmp_path, dataset=dataset, progress=SilentProgress())
    assert len(looks) == len(dataset) == 22


@pytest.mark.slow
def test_a_run_that_stopped_when_it_had_found_goes_on_as_if_it_had_not(
    settings: RunSettings, dataset: ImageDataset, tensors_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    whole = train(settings, tmp_path / "whole", dataset=dataset, progress=heard)
    result = train(settings, tmp_path / "parts", dataset=dataset, progress=SilentProgress(), stage="find")
    assert (result.steps, result.epochs) == (0, 0)
    assert heard.lines[0] == "images: 16 to train on (none 8, spot 8), 6 to validate (none 4, spot 2)"
    found, alone = heard.lines[-2:]
    assert found.startswith("found: evidence against 'none', the mean of 2 cells · ")
    assert alone == f"evidence alone · validation error {result.validation_error:.3f}"
    model = load_model(tmp_path / "parts")
    assert isinstance(model, Evidence)
    answers = [model.predict(dataset.open(index)) for index in range(16, 22)]
    wrong = sum(one.predicted != dataset.classes[dataset.examples[16 + i].label] for i, one in enumerate(answers))
    assert wrong / 6 == pytest.approx(result.validation_error)
    assert wrong <= 1
    told = json.loads((tmp_path / "parts" / "find" / "find.json").read_text())
    assert (told["background"], told["top"], len(told["start_losses"])) == ("none", 2.0, 2)
    assert load_model(tmp_path / "parts" / "find").state_dict().keys() == model.state_dict().keys()

    def never(*_: Any) -> None:
        raise AssertionError("it has been found already")

    monkeypatch.setattr(finding, "find", never)
    resumed = train(settings, tmp_path / "parts", dataset=dataset, progress=SilentProgress(), resume=True)
    assert resumed.steps == whole.steps == 6
    assert_same_runs(tmp_path / "whole", tmp_path / "parts", tensors_of)
    # At this rate attention sampling has learnt nothing: the evidence is better, and stays.
    assert isinstance(load_model(tmp_path / "whole"), Evidence)
    assert whole.validation_error == result.validation_error
    epochs = read_metrics(tmp_path / "whole" / "metrics.jsonl", "epoch")
    assert [one["best"] for one in epochs] == [False, False]
    # What the frozen network says of a patch is kept: the second epoch reads less.
    read = [one["receipt"]["bytes_read"] for one in epochs]
    assert read[1] < read[0]


def test_a_search_that_was_killed_starts_afresh_and_a_better_model_takes_the_place_of_evidence(
    settings: RunSettings, dataset: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, training=replace(settings.training, epochs=1))
    evaluate = loop.evaluate_any

    def judged(model: Model, *given: Any, **options: Any) -> Any:
        error = 0.5 if isinstance(model, Evidence) else 0.25
        result = evaluate(model, *given, **options)
        sure = np.eye(2)[result.labels]  # in the right answer, or in the wrong one: six images are judged by their loss
        return replace(result, error=error, loss=error, probabilities=abs(sure - error))

    monkeypatch.setattr(loop, "evaluate_any", judged)
    with monkeypatch.context() as patch:
        patch.setattr(finding, "save_model", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            train(settings, tmp_path / "run", dataset=dataset, progress=SilentProgress())
    assert not (tmp_path / "run" / "model").exists()
    heard = Heard()
    result = train(settings, tmp_path / "run", dataset=dataset, progress=heard, resume=True)
    assert any(line.startswith("found: ") for line in heard.lines)
    assert result.validation_error == 0.25
    model = load_model(tmp_path / "run")
    assert isinstance(model, AttentionSampling)
    found = load_model(tmp_path / "run" / "find")
    assert isinstance(found, Evidence)
    assert model.settings.evidence == found.settings.evidence
    assert model.settings.attention == found.settings.attention
    for name, one in found.attention.cells.state_dict().items():
        assert torch.equal(one, model.attention.cells.state_dict()[name]), name
    assert torch.equal(found.attention.head.mean, model.attention.head.mean)
    projection = model.features.projection
    assert projection is not None
    assert bool((projection.mean != 0).any()), "measured on the patches of the training images"


def test_evidence_is_a_model_of_its_own(settings: RunSettings, dataset: ImageDataset, tmp_path: Path) -> None:
    alone = replace(settings, model=replace(settings.model, name="evidence"))
    result = train(alone, tmp_path / "run", dataset=dataset, progress=SilentProgress())
    assert result.steps == 0
    assert isinstance(load_model(tmp_path / "run"), Evidence)
    again = train(alone, tmp_path / "run", dataset=dataset, progress=SilentProgress(), resume=True)
    assert again.validation_error == result.validation_error


def test_a_feature_network_of_ones_own_stays(settings: RunSettings, dataset: ImageDataset, tmp_path: Path) -> None:
    own = nn.Conv2d(3, 7, 5)
    before = own.weight.detach().clone()
    find = replace(settings.training.find, least_steps=2)
    settings = replace(
        settings,
        model=replace(settings.model, features=FeatureSettings(frozen=True)),
        training=replace(settings.training, find=find, max_steps=1, watch=0),
    )
    train(settings, tmp_path / "run", dataset=dataset, progress=SilentProgress(), features=own)
    assert torch.equal(own.weight, before)
    state = nn.Module.state_dict(own)
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "run" / "state" / "state.safetensors")
    assert torch.equal(saved["model.features.layers.network.weight"], state["weight"])


def test_nothing_is_kept_of_features_that_are_trained(
    settings: RunSettings, dataset: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(AttentionSampling, "keep_features", lambda _, kept: given.append(kept))
    find = replace(settings.training.find, least_steps=2)
    short = replace(settings.training, find=find, max_steps=1, watch=0)
    run = replace(settings, model=replace(settings.model, features=replace(FROZEN, frozen=False)), training=short)
    train(run, tmp_path / "run", dataset=dataset, progress=SilentProgress())
    assert given == [], "another test shows that something is where they are frozen"


def test_a_run_without_a_backbone_has_nothing_to_find(
    settings: RunSettings, dataset: ImageDataset, tmp_path: Path
) -> None:
    plain = replace(settings, model=seeing_settings("attention-sampling", {"name": "convolutional"}))
    with pytest.raises(ConfigError) as caught:
        train(plain, tmp_path / "run", dataset=dataset, progress=SilentProgress(), stage="find")
    assert str(caught.value) == (
        "the stage find needs a model whose attention has a backbone, got model.name attention-sampling, "
        "model.attention.name convolutional and training.find.starts 2: set model.attention.name to e.g. "
        "timm:tf_efficientnet_lite0, or leave the stage out"
    )
    assert not (tmp_path / "run").exists()

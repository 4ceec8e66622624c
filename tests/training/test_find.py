"""Evidence is found from labels alone: where it is, how it is asked for, and which starts are kept."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from foveate.config.settings import DataSettings, InputSettings
from foveate.config.training import FindSettings, RunSettings, TrainingSettings
from foveate.errors import ConfigError, FoveateError
from foveate.evaluation.evaluate import evaluate
from foveate.images import Source
from foveate.images.tensors import make_view
from foveate.models import Evidence, Model
from foveate.models.losses import cross_entropies
from foveate.networks.evidence import ALL_CELLS, EvidenceHead, pooled_evidence
from foveate.pipeline.loader import LoadOptions, split_indices
from foveate.training.bags import Bags
from foveate.training.build import background_of
from foveate.training.find import Found, _judged, find, finds, found_line, questions
from foveate.training.shortlist import Shortlist
from foveate.training.teacher import TEMPERATURES, Question, Teacher, kept_starts, one_cycle

try:
    import timm  # noqa: F401
except Exception as error:  # a torchvision that does not match torch raises RuntimeError
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

from seeing import SIDE, Marks, make_marks, seeing_model, seeing_settings

pytestmark = pytest.mark.usefixtures("unchecked")

FIND = FindSettings(
    starts=2, epochs=2, least_steps=60, batch=16, learning_rate=1e-2, tops=(2.0,), linear=False, kind_steps=60
)


def settings_of(background: str | None = "auto", seed: int = 0, **changes: Any) -> RunSettings:
    data = DataSettings(cache="memory", background=background)
    find = replace(FIND, **changes)
    return RunSettings(data=data, model=seeing_settings(), training=TrainingSettings(batch=16, find=find), seed=seed)


def search(dataset: Marks, settings: RunSettings | None = None, model: Model | None = None) -> Found:
    model = model or seeing_model(classes=dataset.classes, multi_label=dataset.multi_label)
    splits = (split_indices(dataset, name) for name in ("train", "validation"))
    return find(settings or settings_of(), model, dataset, *splits, LoadOptions(16))


def error_of(found: Found, dataset: Marks) -> float:
    return evaluate(found.model, dataset, split_indices(dataset, "validation")).error


def mass_and_area(found: Found, dataset: Marks, index: int) -> tuple[float, float]:
    """Share of the attention, and of the cells, whose centres are within 8 pixels of a photograph's square."""
    _, (top, left) = dataset.shown(index)
    attention = found.model.look(dataset.open(index)).output.attention[0]
    rows, columns = (12 * torch.arange(side) + 6 for side in attention.shape)
    down, along = (
        (centres > start - 8) & (centres < start + SIDE + 8)
        for centres, start in zip((rows, columns), (top, left), strict=True)
    )
    where = down[:, None] & along
    return float(attention[where].sum()), float(where.float().mean())


def test_a_square_is_found_and_a_seed_settles_it() -> None:
    dataset = make_marks(24, 12)
    found, again = (search(dataset) for _ in range(2))
    other = search(make_marks(4, 0), settings_of(seed=1, least_steps=2))
    assert error_of(found, dataset) <= 0.1
    assert found.question == Question("none", 2.0)
    assert found.losses == {}
    shown = [index for index in split_indices(dataset, "validation") if dataset.examples[index].label]
    masses = [mass_and_area(found, dataset, index) for index in shown]
    assert sum(mass for mass, _ in masses) > 0.6 * len(shown)
    assert sum(mass for mass, _ in masses) > 5 * sum(area for _, area in masses)
    state = found.model.state_dict()
    assert all(torch.equal(one, again.model.state_dict()[name]) for name, one in state.items())
    assert (again.starts, again.kept) == (found.starts, found.kept)
    assert not torch.equal(other.model.attention.head.first, found.model.attention.head.first)
    assert not found.model.training


def test_what_is_found_sees_by_the_eyes_of_the_model() -> None:
    dataset, model = make_marks(8, 0), seeing_model(seed=7)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    found = search(dataset, settings_of(least_steps=2), model)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    cells = {name: one for name, one in before.items() if name.startswith("attention.cells.")}
    assert cells
    assert all(torch.equal(one, found.model.state_dict()[name]) for name, one in cells.items())
    views = [make_view(dataset.open(index), model.settings.view) for index in range(8)]
    seen = torch.cat([found.model.cells_of(view).flatten(0, 1) for view in views]).double()
    head = found.model.attention.head
    torch.testing.assert_close(head.mean.double(), seen.mean(0), rtol=1e-4, atol=1e-5)
    deviation = seen.std(0, correction=0)
    torch.testing.assert_close(head.deviation.double(), deviation.where(deviation > 1e-6, 1.0), rtol=1e-3, atol=1e-5)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("classes", "labels", "background", "most"),
    [
        (("none", "red", "blue"), None, "none", 0.1),
        (("red", "grey", "blue"), None, None, 0.25),
        (("red", "blue"), [(), (0,), (1,), (0, 1)], None, 0.2),
    ],
    ids=["background and two kinds", "three classes", "several labels"],
)
def test_kinds_are_told_apart(classes: tuple[str, ...], labels: Any, background: str | None, most: float) -> None:
    dataset = make_marks(30, 18, classes, labels)
    steps = 60 if background else 120
    found = search(dataset, settings_of(least_steps=steps))
    assert found.question.background == background
    assert error_of(found, dataset) <= most
    assert found.model.attention.head.first.shape[0] == len(found.kept) == found.model.settings.attention.members
    assert found.model.settings.evidence.background == background
    assert found.model.multi_label is (labels is not None)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("classes", [("spot-a", "plain"), ("plain", "spot-a")])
def test_of_two_unnamed_classes_the_one_that_shows_nothing_is_found_out(classes: tuple[str, ...]) -> None:
    dataset = make_marks(16, 30, classes)
    found = search(dataset, settings_of(least_steps=40))
    assert found.question.background == "plain"
    assert set(found.losses) == {Question(name, 2.0) for name in classes}
    assert min(found.losses.values()) == found.losses[found.question]
    assert found_line(found).startswith("found: evidence against 'plain', the mean of 2 cells · 2 of 2 starts kept")


def test_of_several_numbers_of_cells_that_is_taken_whose_loss_is_lowest() -> None:
    dataset = make_marks(12, 4)
    found = search(dataset, settings_of(tops=(0.5, 2.0, 7.0), least_steps=12))
    assert [one.top for one in found.losses] == [0.5, 2.0, 7.0]
    assert found.losses[found.question] == min(found.losses.values()) < max(found.losses.values())
    assert found.model.settings.evidence.top == found.question.top
    told = found.plain()
    assert told["top"] == found.question.top
    assert told["kept_starts"] == list(found.kept)
    assert told["questions"] == [
        {"background": "none", "top": one.top, "loss": loss} for one, loss in found.losses.items()
    ]


@dataclass
class Judge:
    """Says of images not trained on how many there are; knows what it was asked, and how often each was to begin."""

    asked: list[tuple[Question, tuple[Any, ...], tuple[Any, ...]]]
    starts: list[int] = field(default_factory=list)
    settings: FindSettings = field(default_factory=lambda: FindSettings(starts=4))

    def loss(self, question: Question, seen: Bags, held: Bags, starts: int) -> float:
        self.asked.append((question, seen.labels, held.labels))
        self.starts.append(starts)
        return question.top + held.labels[0]


def bags_of(count: int, first: int = 0) -> Bags:
    bags = Bags(10**6)
    for _ in range(count):
        bags.add(torch.zeros(2, 1))
    bags.labels = tuple(range(first, first + count))
    return bags


def test_validation_images_judge_where_they_are_enough_and_else_folds_of_the_others() -> None:
    one, other = Question("none", 3.0), Question("none", 0.5)
    judge: Any = Judge([])
    assert _judged(judge, [one, other], bags_of(7), bags_of(30, 100)) == {one: 103.0, other: 100.5}
    assert judge.asked == [(asked, tuple(range(7)), tuple(range(100, 130))) for asked in (one, other)]
    assert judge.starts == [4, 4]
    judge.asked.clear()
    found = _judged(judge, [one], bags_of(7), bags_of(29, 100))
    assert judge.starts[2:] == [2, 2, 2]
    assert [held for _, _, held in judge.asked] == [(0, 3, 6), (1, 4), (2, 5)]
    assert all(sorted(seen + held) == list(range(7)) for _, seen, held in judge.asked)
    assert found == {one: pytest.approx((3 * 3.0 + 2 * 4.0 + 2 * 5.0) / 7)}
    judge.asked.clear()
    _judged(judge, [one], bags_of(2), bags_of(0))
    assert [held for _, _, held in judge.asked] == [(0,), (1,)]


def test_a_single_image_leaves_nothing_to_judge_by() -> None:
    dataset = replace(make_marks(2, 0), examples=make_marks(2, 0).examples[:1])
    found = search(dataset, settings_of(tops=(3.0, 0.1), least_steps=3))
    assert found.question == Question("none", 3.0)
    assert found.losses == {}


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([0.43, 0.23, 0.24, 0.22], (1, 2, 3)),
        ([0.69, 0.02], (1,)),
        ([0.1], (0,)),
        ([0.8, 0.7, 0.9], (1,)),  # none has learnt anything: the best of them
        ([0.5, 0.5 + 0.19 * (math.log(2) - 0.5), 0.5 + 0.21 * (math.log(2) - 0.5)], (0, 1)),
    ],
)
def test_starts_that_failed_show_it_in_their_loss(losses: list[float], kept: tuple[int, ...]) -> None:
    assert kept_starts(losses) == kept


def test_failed_starts_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[EvidenceHead] = []
    teach = Teacher._teach

    def spoilt(self: Teacher, question: Question, bags: Bags, starts: int) -> tuple[EvidenceHead, torch.Tensor]:
        head, _ = teach(self, question, bags, starts)
        taught.append(head)
        return head, torch.tensor([0.3, 0.6, 0.31])

    monkeypatch.setattr(Teacher, "_teach", spoilt)
    found = search(make_marks(8, 0), settings_of(starts=3, least_steps=3))
    assert found.kept == (0, 2)
    assert found.starts == pytest.approx((0.3, 0.6, 0.31))
    head = found.model.attention.head
    assert found.model.settings.attention.members == 2
    for name in ("first", "first_bias", "second", "bias"):
        assert torch.equal(getattr(head, name), getattr(taught[0], name)[[0, 2]])
    assert " 2 of 3 starts kept (loss 0.300)" in found_line(found)


def teacher_of(classes: tuple[str, ...], multi_label: bool = False) -> Teacher:
    model = seeing_model(classes=classes, multi_label=multi_label)
    assert isinstance(model, Evidence)
    moments = torch.tensor([[0.1, -0.2, 0.0], [1.0, 2.0, 0.5]])
    return Teacher(FIND, model, moments, 0, classes, multi_label)


def cells_of(labels: tuple[Any, ...]) -> Bags:
    generator, bags = torch.Generator().manual_seed(3), Bags(10**6)
    for count in range(5, 5 + len(labels)):
        bags.add(torch.randn(count, 3, generator=generator))
    bags.labels = labels
    return bags


@pytest.mark.one_in(3)
@pytest.mark.parametrize("top", [1.0, 3.0, 0.4])
@pytest.mark.parametrize(
    ("classes", "labels", "background"),
    [
        (("a", "b"), (0, 1, 1, 0), "b"),
        (("a", "b", "c"), (0, 2, 1, 0), "c"),
        (("a", "b", "c"), (0, 2, 1, 0), None),
        (("a", "b"), ((), (0,), (0, 1), (1,)), None),
    ],
)
def test_what_is_minimised_is_the_loss_of_pooled_evidence(
    top: float, classes: tuple[str, ...], labels: tuple[Any, ...], background: str | None
) -> None:
    several = isinstance(labels[0], tuple)
    teacher, bags, question = teacher_of(classes, several), cells_of(labels), Question(background, top)
    asked = 1 if background else len(classes)
    head = EvidenceHead(3, 5, asked, members=2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        head.bias.copy_(torch.randn(2, asked, generator=torch.Generator().manual_seed(2)))
    rows = [2, 0, 3]
    targets = teacher.targets(question, [labels[row] for row in rows])
    found = teacher._losses(head, Shortlist(head, bags, top, torch.device("cpu")), rows, True, targets)
    cells, allowed = bags.batch(rows)
    for member in range(2):
        pooled = pooled_evidence(head.each(cells)[member], allowed, top) + head.bias[member]
        if background is not None:
            truth = torch.tensor([float(labels[row] != classes.index(background)) for row in rows])
            wanted = functional.binary_cross_entropy_with_logits(pooled[:, 0], truth)
        elif several:
            truth = torch.tensor([[float(label in labels[row]) for label in range(len(classes))] for row in rows])
            wanted = cross_entropies(pooled, truth).mean()
        else:
            wanted = functional.cross_entropy(pooled, torch.tensor([labels[row] for row in rows]))
        torch.testing.assert_close(found[member], wanted, rtol=1e-5, atol=1e-6)
        both = (found[member], wanted)
        gradients = [torch.autograd.grad(loss, list(head.parameters()), retain_graph=True) for loss in both]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "labels", "background"),
    [
        (("a", "b"), (0, 1, 1, 0, 1, 0, 0), "b"),
        (("a", "b", "c"), (0, 2, 1, 0, 2, 1, 0), None),
        (("a", "b"), ((), (0,), (0, 1), (1,), (0,), (), (1,)), None),
    ],
)
def test_where_all_cells_answer_it_is_the_logistic_model_of_their_mean(
    classes: tuple[str, ...], labels: tuple[Any, ...], background: str | None
) -> None:
    several = isinstance(labels[0], tuple)
    teacher, bags, question = teacher_of(classes, several), cells_of(labels), Question(background, ALL_CELLS)
    head, losses = teacher.taught(question, bags, starts=4)
    assert losses.shape == (1,)
    own = [head.standardised(bags.batch([row])[0]).mean(1)[0] for row in range(len(labels))]
    means = StandardScaler().fit_transform(torch.stack(own).numpy())
    if several:
        truth = np.array([[label in one for label in range(len(classes))] for one in labels])
        # Ours is the mean of the classes' losses, sklearn's the sum.
        fits = [LogisticRegression(C=1 / len(classes), tol=1e-8).fit(means, column) for column in truth.T]
        wanted = np.stack([fit.decision_function(means) for fit in fits], 1)
    elif background is not None:
        truth = np.array(labels) != classes.index(background)
        wanted = LogisticRegression(tol=1e-8).fit(means, truth).decision_function(means)[:, None]
    else:
        wanted = LogisticRegression(tol=1e-8).fit(means, np.array(labels)).decision_function(means)
    with torch.no_grad():
        found = torch.cat([bags.pooled(head, [row], question.top, teacher.device) for row in range(len(labels))])
    differences = (found.numpy() - wanted) - (found.numpy() - wanted).mean(1, keepdims=True) * (background is None)
    assert np.abs(differences).max() < 1e-3
    torch.testing.assert_close(losses[0], teacher._loss(found, teacher.targets(question, labels)).mean())


def test_all_cells_are_asked_last_and_only_where_the_hidden_layer_has_room() -> None:
    dataset = make_marks(2, 0, ("a", "b"))
    assert questions(settings_of(linear=True), dataset)[2:] == [Question("a", ALL_CELLS)]
    assert len(questions(settings_of(linear=True, tops=()), dataset)) == 2, "k is settled"
    many = make_marks(2, 0, tuple("abcdefghijklmnopqrstuvwxyz"))
    wide = settings_of(linear=True)
    narrow = replace(wide, model=replace(wide.model, attention=replace(wide.model.attention, hidden=51)))
    enough = replace(wide, model=replace(wide.model, attention=replace(wide.model.attention, hidden=52)))
    assert [len(questions(one, many)) for one in (narrow, enough)] == [1, 2]


def test_confidence_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, bags = teacher_of(("a", "b")), cells_of((0, 1, 1, 0, 1))
    head = EvidenceHead(3, 5, 1, 3, generator=torch.Generator().manual_seed(1)).eval()
    with torch.no_grad():
        head.second.mul_(30)
    monkeypatch.setattr(teacher, "_teach", lambda *_: (head, torch.tensor([0.1, 0.6, 0.12])))
    question = Question("a", 2.0)
    pooled = []
    for row in range(5):
        cells, allowed = bags.batch([row])
        logits = head.each(cells)[[0, 2]].mean(0)
        pooled.append(pooled_evidence(logits, allowed, 2.0) + head.bias[[0, 2]].mean(0))
    evidence, truth = torch.cat(pooled)[:, 0].detach(), torch.tensor([0.0, 1, 1, 0, 1])
    losses = [functional.binary_cross_entropy_with_logits(evidence / hot, truth).item() for hot in TEMPERATURES]
    assert teacher.loss(question, bags, bags, 2) == pytest.approx(min(losses))
    assert min(losses) < losses[TEMPERATURES.index(1.0)]
    assert head.first.shape[0] == 3, "what was taught stays as it was"


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [one_cycle(step / 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == rates[100] == 1
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] < 1e-5


@pytest.mark.parametrize(
    ("classes", "labels", "background", "asked"),
    [
        (("none", "x", "y"), None, "auto", ["none"]),
        (("x", "none"), None, None, [None]),
        (("x", "none"), None, "x", ["x"]),
        (("x", "y"), None, "auto", ["x", "y"]),
        (("x", "y", "z"), None, "auto", [None]),
        (("x", "none"), [(0,), ()], "auto", [None]),
        (("x", "none"), [(0,), ()], "none", [None]),
    ],
)
def test_what_is_asked(classes: tuple[str, ...], labels: Any, background: str | None, asked: list[str | None]) -> None:
    dataset = make_marks(2, 0, classes, labels)
    for tops, wanted in (((2.0, 0.1), (2.0, 0.1)), ((), (3.0,))):
        settings = settings_of(background, tops=tops)
        found = questions(settings, dataset)
        assert found == [Question(name, top) for name in asked for top in wanted]
    assert background_of(settings, dataset) in (asked[0], None)


def test_a_run_finds_where_its_attention_has_a_backbone() -> None:
    settings = settings_of()
    assert finds(settings)
    assert finds(replace(settings, model=seeing_settings("attention-sampling")))
    assert finds(replace(settings, model=seeing_settings("top-k")))
    assert finds(replace(settings, model=seeing_settings("perturbed-top-k")))
    assert not finds(replace(settings, model=seeing_settings("uniform")))
    assert not finds(replace(settings, model=seeing_settings("attention-sampling", {"name": "convolutional"})))
    assert not finds(settings_of(starts=0))


def test_a_background_that_is_no_class_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        search(make_marks(4, 0), settings_of(background="sky"))
    assert str(caught.value) == (
        "model.evidence.background is 'sky', but the classes are none, spot: set data.background to null, or to the "
        "class of images that show nothing"
    )


def test_an_image_that_is_masked_altogether_is_refused_by_name() -> None:
    class Dark(Marks):
        def open(self, index: int) -> Source:
            source = super().open(index)
            if index == 2:
                source.guide = lambda size, region=None: torch.full(size, -torch.inf).numpy()  # type: ignore  # noqa: ARG005
            return source

    plain = make_marks(4, 0)
    model = seeing_model(input=InputSettings())
    with pytest.raises(FoveateError, match=r"^002\.png: there is nothing to look at"):
        search(Dark(plain.examples, plain.classes), settings_of(), model)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"starts": -1}, "training.find.starts must be at least 0, got -1"),
        ({"epochs": 0}, "training.find.epochs must be at least 1, got 0"),
        ({"batch": 0}, "training.find.batch must be at least 1, got 0"),
        ({"tops": (3.0, 0.0)}, "training.find.learning_rate and tops must be positive, got 0.002 and [3.0, 0.0]"),
        ({"learning_rate": 0.0}, "training.find.learning_rate and tops must be positive, got 0.0 and [3.0, 0.1]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FindSettings(**given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)

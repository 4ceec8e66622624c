"""Find first: evidence in the cells of frozen views, taught from image labels before anything is drawn or read.

Several small networks begin differently and are trained at once on what the eyes see of the views, which is computed
once; those that have failed show it in their loss, and are left out.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from foveate.atomic import replace_file
from foveate.config.heads import HeadSettings
from foveate.config.settings import EvidenceSettings
from foveate.config.training import RunSettings
from foveate.datasets.types import ImageDataset
from foveate.errors import ArgumentTypeError, ConfigError
from foveate.models import AttentionSampling, Evidence, Model, build_model, load_model, save_model
from foveate.networks import count_cells
from foveate.networks.evidence import ALL_CELLS, EvidenceNetwork, has_backbone
from foveate.pipeline.distributed import agreed
from foveate.pipeline.loader import Loader, LoadOptions, readable, shares
from foveate.seeds import derive_seed
from foveate.training.bags import Bags
from foveate.training.build import background_of
from foveate.training.teacher import Question, Teacher, kept_starts
from foveate.types import Label

if TYPE_CHECKING:
    from accelerate import Accelerator

ENOUGH = 30
"""Validation images that are enough to choose by; with fewer, it is cross-validation of the training images."""

FOLDS = 3
"""Folds of that cross-validation."""

JUDGING_STARTS = 2
"""Starts of every fold and question of it."""


Stage = Literal["find", "all"]
"""How far a run goes: until evidence has been found, or to its end."""

FOUND = "find"
"""Folder of a run's evidence, a model of its own."""


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        model: of evidence, in evaluation mode.
        question: the one that was chosen.
        losses: question → its loss on images that were not trained on, in nats; empty where there was no choice.
        starts: training losses of the starts of that question, in nats.
        kept: which of the starts the model has.
    """

    model: Evidence
    question: Question
    losses: dict[Question, float]
    starts: tuple[float, ...]
    kept: tuple[int, ...]

    def plain(self) -> dict[str, object]:
        """As find.json holds it."""
        told = [{"background": one.background, "top": one.top, "loss": loss} for one, loss in self.losses.items()]
        chosen = {"background": self.question.background, "top": self.question.top}
        return {**chosen, "questions": told, "start_losses": list(self.starts), "kept_starts": list(self.kept)}


def finds(settings: RunSettings) -> bool:
    """Whether a run teaches evidence before anything else."""
    named = settings.model.name in (
        *("attention-sampling", "evidence", "multi-scale", "zoom"),
        *("top-k", "perturbed-top-k"),
    )
    of_classes = not settings.model.head.numeric
    return named and of_classes and has_backbone(settings.model.attention) and settings.training.find.starts > 0


def check_stage(settings: RunSettings, stage: Stage) -> None:
    """Stage check: refuse to end a run when evidence has been found where none is looked for.

    Raises:
        ConfigError: nothing is.
    """
    if not isinstance(settings, RunSettings):
        raise ArgumentTypeError(
            f"settings must be RunSettings, got {type(settings).__name__}: preset('manifest', **{{'data.manifest': …}})"
        )
    if stage == "find" and not finds(settings):
        raise ConfigError(
            f"the stage find needs a model whose attention has a backbone, got model.name {settings.model.name}, "
            f"model.attention.name {settings.model.attention.name} and training.find.starts "
            f"{settings.training.find.starts}: set model.attention.name to e.g. timm:tf_efficientnet_lite0, or leave "
            "the stage out"
        )


def questions(settings: RunSettings, dataset: ImageDataset) -> list[Question]:
    """Questions to try: every k, and all cells, against the background class; or either of two, if none is known."""
    background = background_of(settings, dataset)
    either = settings.data.background == "auto" and len(dataset.classes) == 2 and not dataset.multi_label
    backgrounds = dataset.classes if background is None and either else (background,)
    search = settings.training.find
    tops = search.tops or (settings.model.evidence.top,)
    asked = [Question(name, top) for name in backgrounds for top in tops]
    linear = Question(backgrounds[0], ALL_CELLS)
    room = 2 * linear.logits(dataset.classes) <= settings.model.attention.hidden
    return [*asked, linear] if search.tops and search.linear and room else asked


def find(
    settings: RunSettings,
    model: Model,
    dataset: ImageDataset,
    training: Sequence[int],
    validation: Sequence[int],
    loading: LoadOptions,
) -> Found:
    """Find evidence: in which cells of the view there is something that tells the classes apart.

    Arguments:
        settings: of the run.
        model: whose attention has a backbone, on its device; it is not changed.
        dataset: the images.
        training: numbers of the examples to teach by, sorted by id.
        validation: numbers of those to choose by.
        loading: how images come.

    Source: none; docs/method.md, "Find first".
    """
    asked = questions(settings, dataset)
    eyes = _evidence_model(settings, model, asked[0], members=1)
    seen = _collect(eyes, dataset, training, settings, loading)
    held = _collect(eyes, dataset, validation, settings, loading)
    moments = seen.moments()
    teacher = Teacher(settings.training.find, eyes, moments, settings.seed, dataset.classes, dataset.multi_label)
    losses = _judged(teacher, asked, seen, held) if len(asked) > 1 and len(seen) > 1 else {}
    question = min(losses, key=lambda one: losses[one]) if losses else asked[0]
    head, starts = teacher.taught(question, seen, settings.training.find.starts)
    kept = kept_starts(starts.tolist(), teacher.chance(question))
    head.keep(kept)
    result = _evidence_model(settings, model, question, len(kept))
    result.attention.head.load_state_dict(head.state_dict())
    teacher.teach_kinds(result, seen)
    return Found(result.eval(), question, losses, tuple(starts.tolist()), kept)


def find_or_load(
    settings: RunSettings,
    model: Model,
    dataset: ImageDataset,
    training: Sequence[int],
    validation: Sequence[int],
    folder: Path,
    fresh: bool,
    accelerator: "Accelerator",
    say: Callable[[str], None],
    loading: LoadOptions,
) -> Evidence:
    """Evidence of a run: found by its first process and kept in a folder, or what lies there since it was begun.

    Arguments:
        settings: as for `find`.
        model: likewise.
        dataset: likewise.
        training: likewise.
        validation: likewise.
        folder: a model folder, with what else is known of the search in find.json.
        fresh: whether the run begins.
        accelerator: of this process.
        say: told the result.
        loading: as for `find`; what is kept of the images there, training finds again.

    Returns:
        The model of evidence on the device, the same in every process.
    """

    def look() -> None:
        found = find(settings, model.to(accelerator.device), dataset, training, validation, loading)
        say(found_line(found))
        save_model(found.model, folder, {"found": found.plain()})
        replace_file(folder / "find.json", (json.dumps(found.plain(), indent=2) + "\n").encode())

    if fresh:
        agreed(accelerator, look)
    result = agreed(accelerator, partial(load_model, folder, allow_code=settings.model.own_code))
    assert isinstance(result, Evidence)
    return result.to(accelerator.device)


def found_line(found: Found) -> str:
    """Line that says what was found and how it was asked for."""
    asked = "evidence of every class"
    if found.question.background is not None:
        asked = f"evidence against {found.question.background!r}"
    top = found.question.top
    cells = "all cells" if found.question.linear else f"{top:g} cells" if top >= 1 else f"{top:.0%} of the cells"
    starts = f"{len(found.kept)} of {len(found.starts)} starts kept (loss {min(found.starts):.3f})"
    return f"found: {asked}, the mean of {cells} · {starts}"


def _judged(teacher: Teacher, asked: Sequence[Question], seen: Bags, held: Bags) -> dict[Question, float]:
    """Loss of every question on images that were not trained on."""
    starts = teacher.settings.starts
    if len(held) >= ENOUGH:
        splits = [(seen, held)]
    else:
        starts = min(starts, JUDGING_STARTS)
        folds = torch.arange(len(seen)) % FOLDS
        splits = [(seen.part(folds != fold), seen.part(folds == fold)) for fold in range(min(FOLDS, len(seen)))]
    losses = {}
    for question in asked:
        each = [teacher.loss(question, rest, out, starts) * len(out) for rest, out in splits]
        losses[question] = sum(each) / sum(len(out) for _, out in splits)
    return losses


def _collect(
    model: Evidence, dataset: ImageDataset, indices: Sequence[int], settings: RunSettings, loading: LoadOptions
) -> Bags:
    loader = Loader.of(model, dataset, settings.seed, loading=loading)
    bags = Bags(round(1e9 * settings.data.memory_gigabytes))
    labels: list[Label] = []
    plan = shares(indices, loading.batch)
    for share, batch in zip(plan, loader.evaluation(plan), strict=True):
        if not len(batch):
            continue
        mask = model.grid.cell_mask(batch.mask, batch.view_sizes)
        assert batch.cells is not None
        for row, place in enumerate(batch.places or range(len(batch))):
            index = share.indices[place]
            counted = readable(
                partial(count_cells, mask[row : row + 1], batch.ids[row : row + 1]), index, loading.failed
            )
            label = dataset.examples[index].label
            if counted is not None and label is not None:  # not of an image that is masked altogether
                bags.add(batch.cells[row][mask[row]])
                labels.append(label)
    bags.labels = tuple(labels)
    return bags


def _evidence_model(settings: RunSettings, model: Model, question: Question, members: int) -> Evidence:
    """Model of evidence with the eyes of another."""
    asked = replace(
        model.settings,
        name="evidence",
        attention=replace(model.settings.attention, frozen=True, members=members),
        evidence=EvidenceSettings(question.top, question.background),
        head=HeadSettings(),
    )
    seed = derive_seed(settings.seed, "find")
    result = build_model(asked, model.classes, model.channels, seed, multi_label=model.multi_label, pretrained=False)
    assert isinstance(result, Evidence)
    assert isinstance(model.attention, EvidenceNetwork)
    result.attention.cells.load_state_dict(model.attention.cells.state_dict())
    if result.normalise is not None and model.normalise is not None:
        result.normalise.load_state_dict(model.normalise.state_dict())
    return result.to(model.device).eval()


def with_evidence(model: Model, found: Evidence, settings: RunSettings, features: nn.Module | None = None) -> Model:
    """Model that begins with the attention that was found, and keeps its answer; its other networks are those it has.

    Arguments:
        model: attention sampling, zoom, or evidence, as it was built from its settings.
        found: evidence.
        settings: of the run.
        features: the feature network of the caller's own that the model was built with, if it was.
    """
    if isinstance(model, Evidence):
        return found
    own, share = model.settings.attention, settings.training.find.share
    begun = replace(
        model.settings,
        attention=replace(found.settings.attention, frozen=own.frozen),
        evidence=replace(found.settings.evidence, share=share),
    )
    kind = (begun, model.classes, model.channels, derive_seed(settings.seed, "model"))
    result = build_model(*kind, multi_label=model.multi_label, features=features, pretrained=False)
    assert isinstance(result, AttentionSampling)
    # attention of every level, if there are several, begins with what was found in the view
    begins = tuple(f"{name}.head." for name in result.attention_names)
    tensors = {name: one for name, one in model.state_dict().items() if not name.startswith(begins)}
    heads = {begin + name: one for begin in begins for name, one in found.attention.head.state_dict().items()}
    first = {name: one for name, one in result.state_dict().items() if name.startswith("first.")}
    result.load_state_dict(tensors | heads | first)
    if share:
        result.first.take(found)
    return result.to(model.device)

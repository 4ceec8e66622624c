"""Calibration verb, `foveate calibrate RUN`: temperature, thresholds, costs and abstention, kept with the model."""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.cli.parser import add_abstain, add_layout, add_loading, add_model, check_looking
from foveate.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy import float64, int64
    from numpy.typing import NDArray

    from foveate.evaluation.calibration import Reliability
    from foveate.models import Decision, Model

SUMMARY = "make a model's probabilities mean what they say, and decide by thresholds, costs or not at all"

FEW = 100
"""Images fewer than which are said to be few."""

EPILOG = """\
examples:
  foveate calibrate runs/mine                               a temperature, by the run's validation images
  foveate calibrate runs/cv                                 of a cross-validation, by its held-out predictions
  foveate calibrate runs/mine --sensitivity 0.95            and the threshold that finds 95 of 100 positives
  foveate calibrate runs/mine --cost none:sign=5            or: calling a sign none costs 5, other errors 1
  foveate calibrate runs/mine --abstain 0.9                 and decide "unsure" where it is less than that sure
  foveate calibrate runs/mine --data other.csv --out here   by other images, into a model folder of its own

A temperature changes no order of the classes. Thresholds, costs and abstention make the column "decision" of foveate
predict; "predicted" stays the most probable class. All of it is kept in the model folder, with what it gave on the
images it was chosen by in calibration.json beside it, and is made anew by each call. Of --data with splits the
validation images are taken, of --data without all; test images should judge what was chosen (foveate evaluate).
"""


@dataclass(frozen=True)
class _Answers:
    """What a model without temperature says of n labelled images."""

    labels: "NDArray[int64]"
    probabilities: "NDArray[float64]"
    groups: tuple[str | None, ...]
    source: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the verb takes."""
    add_model(parser, "model")
    parser.add_argument("--data", metavar="MANIFEST", help="labelled images; the run's validation images if left out")
    parser.add_argument("--sensitivity", type=float, metavar="S", help="threshold: find this share of the positives")
    parser.add_argument(
        "--specificity", type=float, metavar="S", help="threshold: leave this share of the others alone"
    )
    parser.add_argument(
        "--positive",
        metavar="CLASS[,CLASS]",
        help="what a threshold is about (default: all but the background, or the second of two classes)",
    )
    parser.add_argument(
        "--cost", action="append", default=[], metavar="SAID:TRUE=C", help="what a wrong decision costs (default: 1)"
    )
    add_abstain(parser)
    parser.add_argument("--samples", type=int, default=1, metavar="K", help="average K draws per image (default: 1)")
    parser.add_argument("--seed", type=int, help="seed of the draws (default: the run's)")
    add_loading(parser)
    add_layout(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="model folder to write (default: the model's own)")


def run(namespace: argparse.Namespace) -> int:
    """Fit, choose, say what it gives on the images it was chosen by, and keep it with the model."""
    check_looking(namespace)
    if len([one for one in (namespace.sensitivity, namespace.specificity, namespace.cost or None) if one]) > 1:
        raise ConfigError("--sensitivity, --specificity and --cost decide the same thing: give one of them")
    from foveate.atomic import replace_file
    from foveate.evaluation.calibration import at_temperature, fit_temperature, reliability
    from foveate.evaluation.decisions import judge_decisions
    from foveate.models import Decision, Ensemble, load_model, save_model
    from foveate.models.losses import mean_loss
    from foveate.models.store import SHIPPED, find_model, saved_card

    found = find_model(namespace.model)
    folds = not (found / "config.json").is_file()
    own = found.is_relative_to(SHIPPED) or not Path(namespace.model).expanduser().is_dir()
    out: Path = namespace.out or (found / "model" if folds else found)
    if own and namespace.out is None:
        raise ConfigError(f"{namespace.model} is no folder of yours, it is left as it is: add --out DIR for a copy")
    model = load_model(namespace.model, allow_code=namespace.allow_code)
    for one in (model, *(model.models if isinstance(model, Ensemble) and folds else ())):
        one.decision = Decision()
    answers = _answers(namespace, model)
    labels, several = answers.labels, answers.labels.ndim == 2
    temperature = fit_temperature(labels, answers.probabilities)
    values = at_temperature(answers.probabilities, temperature, several)
    rule, chosen = _rule(namespace, model, answers, values, temperature)
    model.decision = rule
    before, after = (reliability(labels, one, answers.groups) for one in (answers.probabilities, values))
    judged = judge_decisions(rule, model.classes, labels, values, answers.groups)
    told: dict[str, Any] = {"images": len(labels), "chosen by": answers.source, "temperature": temperature}
    told |= {"loss": [mean_loss(one, labels) for one in (answers.probabilities, values)]}
    told |= {"before": before.plain(), "after": after.plain(), "thresholds": chosen, "decisions": judged.plain()}
    save_model(model, out, saved_card(found))
    replace_file(out / "calibration.json", (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())
    _say(model, told, before, after)
    print(f"kept in {out}: foveate predict, explain and evaluate and load_model use it")
    return 0


def _answers(namespace: argparse.Namespace, model: "Model") -> _Answers:
    """What the model says of images that it was not trained on: predictions that are there, or new ones."""
    from foveate.cli.evaluate import judged_by, seed_of, settings_of
    from foveate.cli.labelled import open_images
    from foveate.evaluation.evaluate import Evaluation
    from foveate.models import DrawOptions
    from foveate.models.probabilities import refuse_numbers
    from foveate.pipeline.distributed import open_accelerator
    from foveate.pipeline.loader import split_indices
    from foveate.training.folds import held_out

    refuse_numbers(model.kind, "foveate calibrate is")
    folder = Path(namespace.model)
    if namespace.data is None and (folder / "fold-1").is_dir():
        _, kept = held_out(folder)
        groups = tuple(one.group for one in kept.examples)
        return _Answers(kept.labels, kept.probabilities, groups, f"held-out predictions of {folder}")
    settings = settings_of(folder)
    namespace.split = None
    dataset, split = open_images(namespace, settings, model, "validation")
    indices = split_indices(dataset, split)
    if not indices:
        raise DataError("no labelled image is in the validation split: give --data with images of which some are")
    model.to(open_accelerator().device)
    options = DrawOptions(namespace.samples, None, seed_of(namespace, settings))
    result = judged_by(namespace, model, dataset, indices, options, "calibrating")
    assert isinstance(result, Evaluation)  # numbers have been refused
    source = f"{len(indices)} {'' if split is None else f'{split} '}images of {namespace.data or folder}"
    return _Answers(result.labels, result.probabilities, result.groups, source)


def _rule(
    namespace: argparse.Namespace, model: "Model", answers: _Answers, values: "NDArray[float64]", temperature: float
) -> "tuple[Decision, list[dict[str, Any]]]":
    """The rule that is asked for, and what was said of its thresholds where they were chosen."""
    from dataclasses import asdict

    import numpy as np

    from foveate.evaluation.decisions import choose_threshold, positive_classes, read_costs
    from foveate.models import Decision

    rule = Decision(temperature=temperature, abstain=namespace.abstain)
    wanted = namespace.sensitivity, namespace.specificity
    if wanted == (None, None) and namespace.positive:
        raise ConfigError("--positive says what a threshold is about: add --sensitivity or --specificity")
    if namespace.cost and model.multi_label:
        raise ConfigError("--cost is for images with one label each: with several, --sensitivity sets thresholds")
    if namespace.cost:
        return replace(rule, costs=read_costs(namespace.cost, model.classes)), []
    if wanted == (None, None):
        return rule, []
    if model.multi_label:
        every = [
            choose_threshold(values[:, k], answers.labels[:, k] > 0, answers.groups, *wanted)
            for k in range(len(model.classes))
        ]
        named = [{"class": name} | asdict(one) for name, one in zip(model.classes, every, strict=True)]
        return replace(rule, thresholds=tuple(one.threshold for one in every)), named
    positive = positive_classes(model.classes, namespace.positive.split(",") if namespace.positive else ())
    side = np.isin(np.array(model.classes), positive)
    chosen = choose_threshold(values[:, side].sum(1), side[answers.labels], answers.groups, *wanted)
    rule = replace(rule, positive=positive, thresholds=(chosen.threshold,))
    return rule, [{"class": ", ".join(positive)} | asdict(chosen)]


def _say(model: "Model", told: dict[str, Any], before: "Reliability", after: "Reliability") -> None:
    from foveate.cli.tables import print_reliability, with_interval

    first, last = told["loss"]
    print(f"temperature {told['temperature']:.3g}, by {told['chosen by']}: loss {first:.4f} → {last:.4f}")
    noise = f"chance alone leaves up to {after.by_chance:.3f} on {told['images']} images"
    print(f"calibration error {before.error:.3f} → {with_interval(after.error, after.interval, 3)}; {noise}")
    if last > first:
        print("the loss rises, as it is meant to: so few images do not bear out such certainty, and less is claimed")
    if told["images"] < FEW:
        print(f"these are few images: with {FEW} or more (--data) the intervals are narrower")
    for one in told["thresholds"]:
        shares = " · ".join(
            f"{name} {with_interval(one[name][0], one[name][1], 3)} of {one[of]}"
            for name, of in (("sensitivity", "positives"), ("specificity", "negatives"))
        )
        print(f"{one['class']} from {one['threshold']:.4f} on: {shares}")
    judged = told["decisions"]

    def told_share(name: str) -> str:
        return with_interval(judged[name], judged[f"{name}_interval"], 3)

    if model.decision.costs:
        print(f"cost {told_share('cost')} a decision, {judged['cost_without']:.3f} without")
    if model.decision.abstain is not None:
        rest = f"the rest errs on {told_share('error')}" if "error" in judged else "nothing is decided"
        everything = f"all on {judged['error_without']:.3f}"
        print(f"unsure below {model.decision.abstain:g}: {told_share('unsure')}; {rest}, {everything}")
    print_reliability(after)

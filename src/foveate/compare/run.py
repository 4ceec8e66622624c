"""Comparison of methods × seeds × folds: what is missing is trained and tested, what is there is read and summed up."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foveate.atomic import replace_file
from foveate.compare.cost import MethodCost, measure_costs, read_costs, write_costs
from foveate.compare.figures import draw_comparison, draw_curves
from foveate.compare.plan import Divider, Part, claimed, plan, shared_out
from foveate.compare.report import Comparison, MethodResult, markdown_report, write_results
from foveate.compare.settings import CompareSettings, save_comparison
from foveate.compare.store import Predictions
from foveate.compare.summary import summarise
from foveate.compare.trial import Trial, stoppable
from foveate.datasets.types import ImageDataset
from foveate.errors import Interrupted, RunError
from foveate.training.progress import LineProgress, Progress, SilentProgress, choose_progress

SETTINGS = "comparison.yaml"
"""File in a comparison's folder: its settings; by it the folder is known for one."""


def compare(
    settings: CompareSettings,
    out: Path | str,
    *,
    dataset: ImageDataset | None = None,
    part: Part | None = None,
    force_cost: bool = False,
    tell: Callable[[str], None] = print,
    remedy: str | None = None,
) -> Comparison | None:
    """Comparison of all methods on the same images; what is complete is neither trained nor measured again.

    Each trial is a run folder, METHOD/seed-S/fold-F in `out`, with the answers on its test images in predictions.json.
    All the rest follows from these and from cost.json: results.json, results.md, results.png and, where runs have kept
    how they learnt, curves.png.

    Arguments:
        settings: the methods, folds and seeds.
        out: folder of the comparison.
        dataset: the images; opened from the settings if None.
        part: do a share of the trials only, and measure no cost; whoever completes the last one writes the results.
        force_cost: measure the cost again although it is known.
        tell: receives a line for every step of the work.
        remedy: what to say to whoever stops it, e.g. "to continue: foveate demo".

    Returns:
        The results; None as long as other processes have trials to complete.

    Raises:
        ConfigError, DataError, ImageError, RunError: the input is at fault; what was done stays.
        Interrupted: Ctrl-C or SIGTERM; what was done stays.
    """
    remedy = remedy or f"to continue: foveate compare --out {shlex.quote(str(out))}"
    work = _Comparison(settings, Path(out), dataset, tell, remedy)
    own = shared_out(work.trials, part)
    try:
        work.complete(own)
    except Interrupted:
        work.save_settings()
        raise
    work.save_settings()
    missing = [trial for trial in work.trials if work.found(trial) is None]
    if missing:
        if part is None:
            raise RunError(
                f"{len(missing)} of {len(work.trials)} runs are under way elsewhere, {missing[0].name} first: "
                "compare again when they are done"
            )
        tell(f"part {part}: {len(own)} runs done, {len(missing)} of {len(work.trials)} still missing elsewhere")
        return None
    return work.conclude(measure=part is None, force=force_cost)


class _Comparison:
    def __init__(
        self,
        settings: CompareSettings,
        out: Path,
        dataset: ImageDataset | None,
        tell: Callable[[str], None],
        remedy: str,
    ) -> None:
        self.settings, self.out, self.tell, self.remedy = settings, out, tell, remedy
        self._methods = settings.resolved()
        divider = Divider(self._methods[0].settings.data, settings.folds, settings.split_seed, dataset)
        self.trials = plan(settings, out, divider.images, remedy)
        self._found: dict[str, Predictions] = {}
        divider.images(self.trials[0].seed, self.trials[0].fold)  # what is wrong with the images is said first
        if out.exists() and not out.is_dir():
            raise RunError(f"{out} is a file, a comparison needs a folder: choose another --out")
        for trial in self.trials:
            trial.check()
        if not (out / SETTINGS).exists():  # else what is there stays until no trial refuses what has changed
            self.save_settings()

    def save_settings(self) -> None:
        """Say in the folder what is compared there."""
        save_comparison(self.settings, self.out / SETTINGS)

    def found(self, trial: Trial) -> Predictions | None:
        """Predictions of a trial that is complete, here or elsewhere; each file is read once."""
        if trial.name not in self._found:
            least = self._least(trial)
            done = None if least is None else trial.done(least)
            if done is None:
                return None
            self._found[trial.name] = done
        return self._found[trial.name]

    def complete(self, trials: Sequence[Trial]) -> None:
        """Do what is left of these trials, except what another process is at."""
        for number, trial in enumerate(trials, start=1):
            if self.found(trial) is not None:
                continue
            with claimed(trial.folder) as mine:
                least = self._least(trial)
                if not mine or least is None:
                    self.tell(f"run {number} of {len(trials)}: {trial.name} is under way elsewhere and left alone")
                    continue
                self.tell(f"run {number} of {len(trials)}: training {trial.name}")
                done = self._found[trial.name] = trial.complete(least, self._progress())
            self.tell(f"{trial.name}: test error {done.error:.4f} · {done.epochs} epochs · {done.seconds:.0f} s")

    def conclude(self, measure: bool, force: bool) -> Comparison:
        """Measure the cost, unless it is known or not wanted, and write the results."""
        runs: dict[str, list[Predictions]] = {method.name: [] for method in self._methods}
        for trial in self.trials:
            runs[trial.method.name].append(self._found[trial.name])
        settings = self.settings
        qualities = summarise(
            runs,
            settings.reference_name,
            by_group=settings.by_group,
            resamples=settings.resamples,
            begun_below=settings.begun_below,
        )
        costs, place = self._costs(measure, force)
        comparison = Comparison(
            methods=tuple(MethodResult(one, costs.get(one.name)) for one in qualities),
            classes=next(iter(runs.values()))[0].classes,
            reference=settings.reference_name,
            relative_to=settings.cost.relative_to or settings.reference_name,
            folds=settings.folds,
            judged="groups" if settings.by_group else "images",
            machine=place,
        )
        write_results(self.out / "results.json", comparison)
        replace_file(self.out / "results.md", markdown_report(comparison).encode())
        draw_comparison(comparison, self.out / "results.png")
        draw_curves(runs, self.out / "curves.png")
        return comparison

    def _costs(self, measure: bool, force: bool) -> tuple[Mapping[str, MethodCost], dict[str, Any] | None]:
        """Method → cost, and the machine; nothing where they are neither known nor to be measured."""
        file, how = self.out / "cost.json", self.settings.cost
        measured = [next(one for one in self.trials if one.method.name == method.name) for method in self._methods]
        known = read_costs(file, measured, how)
        if known is not None and not (measure and force):
            return known
        if not measure:
            self.tell("cost is not measured in parts: to add it, compare once more without --part")
            return {}, None
        with stoppable("while measuring cost", self.remedy) as check:
            costs = measure_costs(measured, self.trials[0].images, how, check, self.tell)
        return costs, write_costs(file, costs, measured, how)

    def _least(self, trial: Trial) -> float | None:
        """Seconds that a trial must train at least; None while its leader, which decides that, is not complete."""
        if trial.leader is None:
            return 0.0
        leader = self.found(trial.leader)
        return None if leader is None else leader.seconds

    def _progress(self) -> Progress:
        """A line an epoch is too much where there are many trials."""
        chosen = choose_progress()
        many = len(self.trials) > 2 * len(self._methods)
        return SilentProgress() if many and isinstance(chosen, LineProgress) else chosen

"""Methods × seeds × folds: what is missing is trained and tested, what is there is read; then the summary."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foveate.atomic import replace_file
from foveate.compare.contenders import Contender
from foveate.compare.cost import MethodCost, keep_costs, kept_costs, measure_costs
from foveate.compare.figures import draw_comparison, draw_curves
from foveate.compare.plan import Divider, Part, Task, claimed, plan, shared_out
from foveate.compare.report import markdown_report
from foveate.compare.results import Comparison, MethodResult, write_results
from foveate.compare.settings import CompareSettings, save_comparison
from foveate.compare.store import Predictions
from foveate.compare.summary import summarise
from foveate.compare.trial import Run, stoppable
from foveate.datasets.types import ImageDataset
from foveate.errors import Interrupted, RunError
from foveate.training.progress import LineProgress, Progress, SilentProgress, choose_progress

__all__ = ["compare"]

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
    """Train and test every method on the same images; what is complete is neither trained nor measured again.

    Each run is a run folder, METHOD/seed-S/fold-F in `out`, with the answers on its test images in predictions.json.
    All the rest follows from these and from cost.json: results.json, results.md, results.png and, where runs have kept
    how they learnt, curves.png.

    Arguments:
        settings: the methods, folds and seeds.
        out: folder of the comparison.
        dataset: the images; opened from the settings if None.
        part: do a share of the runs only, and measure no cost; whoever completes the last run writes the results.
        force_cost: measure the cost again although it is known.
        tell: receives a line for every step of the work.
        remedy: what to say to whoever stops it, e.g. "to continue: foveate demo".

    Returns:
        What came of it; None as long as other processes have runs to complete.

    Raises:
        ConfigError, DataError, ImageError, RunError: the input is at fault; what was done is kept.
        Interrupted: Ctrl-C or SIGTERM; what was done is kept.
    """
    work = _Comparison(
        settings, Path(out), dataset, tell, remedy or f"to continue: foveate compare --out {shlex.quote(str(out))}"
    )
    own = shared_out(work.tasks, work.entrants, part)
    try:
        work.complete(own)
    except Interrupted:
        work.keep_settings()
        raise
    work.keep_settings()
    missing = work.missing()
    if missing:
        if part is None:
            raise RunError(
                f"{len(missing)} of {len(work.tasks)} runs are under way elsewhere, {missing[0]} first: "
                "compare again when they are done"
            )
        tell(f"part {part}: {len(own)} runs done, {len(missing)} of {len(work.tasks)} still missing elsewhere")
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
        self.entrants = settings.entrants()
        self.tasks = plan(self.entrants, settings.folds)
        self._of = {entrant.name: entrant for entrant in self.entrants}
        data = self.entrants[0].settings.data
        self.divider = Divider(data, settings.folds, settings.split_seed, dataset)
        self.divider.images(self.tasks[0].seed, self.tasks[0].fold)  # what is wrong with the images is said first
        self._found: dict[Task, Predictions] = {}
        if out.exists() and not out.is_dir():
            raise RunError(f"{out} is a file, a comparison needs a folder: choose another --out")
        for task in self.tasks:
            self._run(task).check()
        if not (out / SETTINGS).exists():  # else what is there stays until no run refuses what has changed
            self.keep_settings()

    def keep_settings(self) -> None:
        """Say in the folder what is compared there."""
        save_comparison(self.settings, self.out / SETTINGS)

    def complete(self, tasks: Sequence[Task]) -> None:
        """Do what is left of these runs, except what another process is at."""
        for number, task in enumerate(tasks, start=1):
            found = self._kept(task)
            if found is None:
                with claimed(self.out / task.folder) as mine:
                    leader = self._leader(task)
                    if not mine or (leader is not None and leader not in self._found):
                        self.tell(f"run {number} of {len(tasks)}: {task} is under way elsewhere and left alone")
                        continue
                    self.tell(f"run {number} of {len(tasks)}: training {task}")
                    found = self._run(task).complete(self._least(task), self._progress())
                self.tell(f"{task}: test error {found.error:.4f} · {found.epochs} epochs · {found.seconds:.0f} s")
            self._found[task] = found

    def missing(self) -> list[Task]:
        """Runs that are not complete, here or elsewhere."""
        for task in self.tasks:
            if task not in self._found:
                found = self._kept(task)
                if found is not None:
                    self._found[task] = found
        return [task for task in self.tasks if task not in self._found]

    def conclude(self, measure: bool, force: bool) -> Comparison:
        """Measure the cost, unless it is known or not wanted, and write the results."""
        runs = {
            one.name: [self._found[task] for task in self.tasks if task.method == one.name] for one in self.entrants
        }
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
            reported=settings.reported,
        )
        write_results(self.out / "results.json", comparison)
        replace_file(self.out / "results.md", markdown_report(comparison).encode())
        draw_comparison(comparison, self.out / "results.png")
        draw_curves(runs, self.out / "curves.png")
        return comparison

    def _costs(self, measure: bool, force: bool) -> tuple[Mapping[str, MethodCost], dict[str, Any] | None]:
        """Method → cost, and the machine; nothing where they are neither kept nor to be measured."""
        file, how = self.out / "cost.json", self.settings.cost
        first = self.tasks[0]
        contenders = []
        for entrant in self.entrants:
            task = next(task for task in self.tasks if task.method == entrant.name)
            run = self._run(task)
            contenders.append(Contender(entrant.name, run.folder, run.settings, entrant.cost_batch))
        kept = kept_costs(file, contenders, how)
        if kept is not None and not (measure and force):
            return kept
        if not measure:
            self.tell("cost is not measured in parts: to add it, compare once more without --part")
            return {}, None
        images = self.divider.images(first.seed, first.fold)
        with stoppable("while measuring cost", self.remedy) as check:
            costs = measure_costs(contenders, images, how, check, self.tell)
        return costs, keep_costs(file, costs, contenders, how)

    def _run(self, task: Task) -> Run:
        settings = replace(self._of[task.method].settings, seed=task.seed)
        images = self.divider.images(task.seed, task.fold)
        return Run(task, settings, self.out / task.folder, images, self.remedy, self.settings.minutes)

    def _kept(self, task: Task) -> Predictions | None:
        leader = self._leader(task)
        if leader is not None and leader not in self._found:
            kept = self._kept(leader)
            if kept is None:
                return None
            self._found[leader] = kept
        return self._run(task).done(self._least(task))

    def _leader(self, task: Task) -> Task | None:
        """The run that this one must last as long as."""
        name = self._of[task.method].as_long_as
        return next(
            (one for one in self.tasks if (one.method, one.seed, one.fold) == (name, task.seed, task.fold)), None
        )

    def _least(self, task: Task) -> float:
        leader = self._leader(task)
        return 0.0 if leader is None else self._found[leader].seconds

    def _progress(self) -> Progress:
        """A line an epoch is too much where there are many runs."""
        chosen = choose_progress()
        many = len(self.tasks) > 2 * len(self.entrants)
        return SilentProgress() if many and isinstance(chosen, LineProgress) else chosen

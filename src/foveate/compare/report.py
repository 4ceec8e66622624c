"""The tables of a comparison, for a terminal and for a document."""

from collections.abc import Sequence

from foveate.compare.results import Comparison
from foveate.compare.summary import Quality

__all__ = ["COLUMNS", "markdown_report", "table_rows"]

COLUMNS = (
    "method",
    "test error (95 %)",
    "train ms/image",
    "predict ms/image",
    "activations MB/image",
    "pixels read",
    "training s",
)
"""Headings of the table on the terminal, in order."""

UNKNOWN = "–"

Rows = Sequence[Sequence[str]]


def table_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The cells of the table on the terminal, a tuple per method in the order of `COLUMNS`."""
    return [
        (
            one.name,
            _with_interval(one.quality),
            UNKNOWN if one.cost is None else f"{one.cost.train_ms_per_image:.1f}",
            UNKNOWN if one.cost is None else f"{one.cost.predict_ms_per_image:.1f}",
            UNKNOWN if one.cost is None else f"{one.cost.activation_mb_per_image:.3g}",
            UNKNOWN if one.cost is None else f"{100 * one.cost.pixels_read_share:.1f} %",
            f"{one.quality.train_seconds:.0f}",
        )
        for one in comparison.methods
    ]


def markdown_report(comparison: Comparison) -> str:
    """All tables as Markdown: quality, the seeds, cost, what others report, and a confusion table per method."""
    parts = ["# Comparison\n", _quality(comparison), _spread(comparison), _cost(comparison)]
    parts.insert(3, _learning(comparison))
    parts += [_reported(comparison), _confusions(comparison)]
    return "\n".join(part for part in parts if part)


def _quality(comparison: Comparison) -> str:
    headings = ["method", "test error (95 %)", f"minus {comparison.reference} (95 %)", "share better", "AUC"]
    headings += ["balanced error", "test loss", "train loss", "train error", "epochs", "training s"]
    rows = []
    for one in (result.quality for result in comparison.methods):
        found = one.difference
        low_high = "" if found is None else f"{found.error:+.3f} ({found.interval[0]:+.3f} – {found.interval[1]:+.3f})"
        deviation = "" if one.train_loss_deviation is None else f" ± {one.train_loss_deviation:.3f}"
        rows.append(
            [
                one.name,
                _with_interval(one),
                low_high or UNKNOWN,
                UNKNOWN if found is None else f"{found.share_below:.3f}",
                _number(one.auc),
                _number(one.balanced_error),
                _number(one.loss),
                f"{one.train_loss:.3f}{deviation}",
                _number(one.train_error),
                f"{one.epochs:.4g}",
                f"{one.train_seconds:.0f}",
            ]
        )
    first = comparison.methods[0].quality
    runs = sum(result.quality.runs for result in comparison.methods)
    hours = sum(result.quality.total_seconds for result in comparison.methods) / 3600
    how = f"{comparison.folds} folds" if comparison.folds else "one split"
    text = (
        f"{first.n} test {comparison.judged}, {how}; {runs} runs, {hours:.2f} hours of training and testing in all. "
        "Error: mean over seeds, folds pooled; intervals by bootstrap over images, or groups where there are groups "
        "(Wilson's where each image was tested once, and where none or all are wrong). Difference: on the same images "
        "and seeds, by paired bootstrap; share better: of the bootstrap samples in which the method is wrong less "
        "often.\n"
    )
    return f"## Quality\n\n{text}\n{_table(headings, rows)}"


def _spread(comparison: Comparison) -> str:
    """Every seed's error, and the standard errors, where there are several runs."""
    if all(result.quality.runs == 1 for result in comparison.methods):
        return ""
    headings = ["method", "error of each seed", "standard error over seeds", "over folds", "errors of the folds"]
    rows = []
    for one in (result.quality for result in comparison.methods):
        seeds = ", ".join(f"{seed}: {error:.3f}" for seed, error in zip(one.seeds, one.seed_errors, strict=True))
        folds = " · ".join(" ".join(f"{error:.2f}" for error in errors) for errors in one.fold_errors)
        errors = [_number(one.standard_error_seeds), _number(one.standard_error_folds)]
        rows.append([one.name, seeds, *errors, folds if comparison.folds else UNKNOWN])
    return f"## Seeds and folds\n\n{_table(headings, rows)}"


def _learning(comparison: Comparison) -> str:
    """When each run began to learn and what its draws covered, where that is known."""
    qualities = [result.quality for result in comparison.methods]
    columns: list[tuple[str, list[str]]] = []
    if any(one.begun_steps is not None for one in qualities):
        columns.append(("steps until it began to learn, by run", [_steps(one.begun_steps) for one in qualities]))
    if any(one.objects_covered is not None for one in qualities):
        covered = [
            UNKNOWN if one.objects_covered is None else f"{one.objects_covered:.2f} of {one.objects or 0:.2f}"
            for one in qualities
        ]
        columns += [("objects covered", covered), ("error floor", [_number(one.error_floor) for one in qualities])]
    if not columns:
        return ""
    rows = [[one.name, *(cells[number] for _, cells in columns)] for number, one in enumerate(qualities)]
    text = (
        "Began to learn: the smoothed training error fell below the limit set for that. Covered: different objects per "
        "test image that a patch read for its answer holds by half or more. Floor: the error that this leaves to a "
        "reader who knows the covered objects for certain and nothing else.\n"
    )
    return f"## Learning and coverage\n\n{text}\n{_table(['method', *(name for name, _ in columns)], rows)}"


def _steps(found: Sequence[int | None] | None) -> str:
    return UNKNOWN if found is None else ", ".join("never" if one is None else str(one) for one in found)


def _cost(comparison: Comparison) -> str:
    if comparison.machine is None:
        return "## Cost\n\nNot measured; `foveate compare` without `--part` measures it.\n"
    base = comparison.result(comparison.relative_to).cost
    assert base is not None
    headings = ["method", "train ms/image (quartiles)", f"{comparison.relative_to} ÷ it"]
    headings += ["predict ms/image (quartiles)", f"{comparison.relative_to} ÷ it"]
    headings += ["activations MB/image", f"{comparison.relative_to} ÷ it", "process peak MB (batch)"]
    headings += ["patches", "pixels read", "kB read/image", "parameters"]
    rows = []
    for one in comparison.methods:
        cost = one.cost
        assert cost is not None
        rows.append(
            [
                one.name,
                _timed(cost.train_ms_per_image, cost.train_ms_quartiles),
                _ratio(base.train_ms_per_image, cost.train_ms_per_image),
                _timed(cost.predict_ms_per_image, cost.predict_ms_quartiles),
                _ratio(base.predict_ms_per_image, cost.predict_ms_per_image),
                f"{cost.activation_mb_per_image:.3g}",
                _ratio(base.activation_mb_per_image, cost.activation_mb_per_image),
                UNKNOWN if cost.peak_mb is None else f"{cost.peak_mb:.0f} ({cost.batch})",
                f"{cost.patches_per_image:.4g}",
                f"{100 * cost.pixels_read_share:.1f} %",
                f"{cost.bytes_read_per_image / 1e3:.1f}",
                f"{cost.parameters:,}",
            ]
        )
    place = comparison.machine
    text = (
        f"Measured on {place['date']}, methods in turn in one process: {place['processor']}, {place['cores']} cores, "
        f"{place['threads']} threads, device {place['device']}, torch {place['packages']['torch']}.\n"
    )
    return f"## Cost\n\n{text}\n{_table(headings, rows)}"


def _reported(comparison: Comparison) -> str:
    if not comparison.reported:
        return ""
    measured = {one.name: one for one in comparison.methods}
    headings = ["method", "error here", "error (reported)", "time (reported)", "memory (reported)", "source"]
    rows = [
        [
            name,
            _with_interval(measured[name].quality) if name in measured else UNKNOWN,
            *(_said(value) for value in (one.error, one.time, one.memory)),
            one.source or UNKNOWN,
        ]
        for name, one in comparison.reported.items()
    ]
    text = "Reported by others, on their machines; not measured here.\n"
    return f"## Reported figures\n\n{text}\n{_table(headings, rows, left=(0, 5))}"


def _confusions(comparison: Comparison) -> str:
    tables = []
    for one in (result.quality for result in comparison.methods):
        rows = [
            [name, *map(str, counts), _number(one.recalls[name])]
            for name, counts in zip(comparison.classes, one.confusion or (), strict=bool(one.confusion))
        ]
        headings = ["true class", *(f"said {name}" for name in comparison.classes), "recall"]
        if one.confusion is None:
            headings, rows = ["class", "recall"], [[name, _number(recall)] for name, recall in one.recalls.items()]
        tables.append(f"### {one.name}\n\n{_table(headings, rows)}")
    text = "Counts over all seeds and folds; a row per true class.\n"
    return f"## Confusion\n\n{text}\n" + "\n".join(tables)


def _table(headings: Sequence[str], rows: Rows, left: Sequence[int] = (0,)) -> str:
    """A Markdown table, numbers aligned right."""
    lines = ["| " + " | ".join(headings) + " |"]
    lines.append("|" + "".join("---|" if number in left else "---:|" for number in range(len(headings))))
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _with_interval(one: Quality) -> str:
    return f"{one.error:.3f} ({one.interval[0]:.3f}–{one.interval[1]:.3f})"


def _timed(median: float, quartiles: tuple[float, float]) -> str:
    return f"{median:.1f} ({quartiles[0]:.1f}–{quartiles[1]:.1f})"


def _ratio(base: float, value: float) -> str:
    return f"{base / value:.3g}×" if value > 0 else UNKNOWN


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def _said(value: str | float | None) -> str:
    return UNKNOWN if value is None else value if isinstance(value, str) else f"{value:g}"

r"""Comparison of methods on the same images: error with interval, time, memory, pixels.

A comparison is methods × seeds × folds. A *method* is settings of a run under a name; a *trial* is one run of a method,
with one seed, tested on one fold. Trials share every setting but their method's own, and see the same images in the
same order, so that methods are compared image by image:

.. math:: \Delta = e_{\text{method}} - e_{\text{reference}} \quad \text{on the same test images, by paired bootstrap}

Example:
    >>> from foveate.compare import CompareSettings, MethodSettings
    >>> methods = {"ats-10": MethodSettings(), "u-10": MethodSettings({"model": {"name": "uniform"}})}
    >>> [method.settings.model.name for method in CompareSettings(methods=methods).resolved()]
    ['attention-sampling', 'uniform']

Files, in the order of the work:

- `settings.py`: the YAML file as dataclasses; a `Method` with everything settled.
- `plan.py`: which trials there are, on which splits; parts of them for several processes; file locks.
- `trial.py`: one trial, trained where it stopped and tested once; equal training time.
- `store.py`: predictions.json of a trial, with its learning curve.
- `summary.py`: error, intervals, differences, recalls from the predictions of all trials.
- `cost.py`, `memory.py`: time, bytes read, activations and process memory, measured side by side.
- `report.py`, `figures.py`: results.json, tables, pictures.
- `run.py`: all of it, `compare`.
"""

from foveate.compare.cost import MethodCost, pixels_read_share
from foveate.compare.memory import activation_bytes
from foveate.compare.plan import Part, read_part
from foveate.compare.report import (
    Comparison,
    MethodResult,
    markdown_report,
    read_results,
    remarks,
    table_columns,
    table_rows,
    write_results,
)
from foveate.compare.run import compare
from foveate.compare.settings import (
    CompareSettings,
    CostSettings,
    Method,
    MethodSettings,
    load_comparison,
    save_comparison,
    with_images,
)
from foveate.compare.summary import Difference, Quality

__all__ = [
    "CompareSettings",
    "Comparison",
    "CostSettings",
    "Difference",
    "Method",
    "MethodCost",
    "MethodResult",
    "MethodSettings",
    "Part",
    "Quality",
    "activation_bytes",
    "compare",
    "load_comparison",
    "markdown_report",
    "pixels_read_share",
    "read_part",
    "read_results",
    "remarks",
    "save_comparison",
    "table_columns",
    "table_rows",
    "with_images",
    "write_results",
]

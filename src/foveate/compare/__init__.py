"""Methods against each other on the same images: error, time, memory, pixels."""

from foveate.compare.cost import MethodCost, pixels_read_share
from foveate.compare.memory import activation_bytes
from foveate.compare.plan import Part, read_part
from foveate.compare.report import COLUMNS, markdown_report, table_rows
from foveate.compare.results import Comparison, MethodResult, read_results, write_results
from foveate.compare.run import compare
from foveate.compare.settings import (
    CompareSettings,
    CostSettings,
    MethodSettings,
    load_comparison,
    save_comparison,
    with_images,
)
from foveate.compare.summary import Difference, Quality

__all__ = [
    "COLUMNS",
    "CompareSettings",
    "Comparison",
    "CostSettings",
    "Difference",
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
    "save_comparison",
    "table_rows",
    "with_images",
    "write_results",
]

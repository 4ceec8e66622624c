"""Methods against each other on one split: error, time, memory, pixels."""

from foveate.compare.cost import activation_bytes, pixels_read_share
from foveate.compare.results import MethodResult, read_results, write_results
from foveate.compare.run import Entrant, compare
from foveate.compare.table import COLUMNS, markdown_table, table_rows

__all__ = [
    "COLUMNS",
    "Entrant",
    "MethodResult",
    "activation_bytes",
    "compare",
    "markdown_table",
    "pixels_read_share",
    "read_results",
    "table_rows",
    "write_results",
]

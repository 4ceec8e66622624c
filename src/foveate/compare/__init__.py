"""Methods against each other on one split: error, time, memory, pixels."""

from foveate.compare.cost import activation_bytes, pixels_read_share
from foveate.compare.run import Method, MethodResult, compare, read_results, write_results
from foveate.compare.table import COLUMNS, markdown_table, table_rows

__all__ = [
    "COLUMNS",
    "Method",
    "MethodResult",
    "activation_bytes",
    "compare",
    "markdown_table",
    "pixels_read_share",
    "read_results",
    "table_rows",
    "write_results",
]

"""Predictions for many images: found, made one by one, and written down."""

from foveate.devices import choose_device
from foveate.models.receipts import receipt_line
from foveate.predict.forecast import describe_rows, forecast
from foveate.predict.predict import Failure, Row, find_rows, predict_paths, predict_rows
from foveate.predict.sinks import (
    GroupTally,
    ReceiptTally,
    Summary,
    check_groups,
    check_output,
    group_columns,
    prediction_columns,
    write_predictions,
    write_rows,
)

__all__ = [
    "Failure",
    "GroupTally",
    "ReceiptTally",
    "Row",
    "Summary",
    "check_groups",
    "check_output",
    "choose_device",
    "describe_rows",
    "find_rows",
    "forecast",
    "group_columns",
    "predict_paths",
    "predict_rows",
    "prediction_columns",
    "receipt_line",
    "write_predictions",
    "write_rows",
]

"""Predictions for many images.

- `predict.py`: images found and predicted one by one, every outcome handed to every sink
- `sinks.py`: where outcomes go: a journal, CSV files, receipts
- `groups.py`: means over the images of a group
- `forecast.py`: what a prediction would read, before it reads it
"""

from foveate.devices import choose_device
from foveate.models.receipts import receipt_line
from foveate.predict.forecast import describe_rows, forecast
from foveate.predict.groups import GroupTally, check_groups
from foveate.predict.predict import (
    Failure,
    Row,
    Sink,
    Summary,
    dependencies,
    find_rows,
    look_at_rows,
    more_columns,
    predict_paths,
    predict_row,
    predict_rows,
)
from foveate.predict.sinks import CsvRows, Journal, PredictionFile, ReceiptTally, check_output

__all__ = [
    "CsvRows",
    "Failure",
    "GroupTally",
    "Journal",
    "PredictionFile",
    "ReceiptTally",
    "Row",
    "Sink",
    "Summary",
    "check_groups",
    "check_output",
    "choose_device",
    "dependencies",
    "describe_rows",
    "find_rows",
    "forecast",
    "look_at_rows",
    "more_columns",
    "predict_paths",
    "predict_row",
    "predict_rows",
    "receipt_line",
]

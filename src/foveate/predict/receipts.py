"""What many predictions cost together, and each of them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TextIO

from foveate.models.receipts import complete_receipt
from foveate.predict.rows import Failure
from foveate.types import Prediction, Receipt

__all__ = ["ReceiptTally"]


class ReceiptTally:
    """Adds up the receipts of predictions as they pass.

    Arguments:
        stream: where to write each of them, a JSON object a line; None writes none.

    Example:
        >>> tally = ReceiptTally()
        >>> receipt = Receipt(10, 900, 2000, 10**6, {"read": 0.5}, None)
        >>> row = Prediction("a.png", "cat", {"cat": 1.0}, 10, 2000, 0.75, receipt=receipt)
        >>> list(tally.watch([row, row])) == [row, row]
        True
        >>> tally.total().patches, tally.total().seconds
        (20, {'read': 1.0, 'other': 0.5})
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._sum = Receipt(0, 0, 0, 0, {}, None)
        self._seconds = 0.0

    def watch(self, outcomes: Iterable[Prediction | Failure]) -> Iterator[Prediction | Failure]:
        """Hand on what `predict_paths` gives, and note its receipts."""
        for outcome in outcomes:
            if isinstance(outcome, Prediction) and outcome.receipt is not None:
                self._sum = _added(self._sum, outcome.receipt)
                self._seconds += outcome.seconds
                if self._stream is not None:
                    entry = {"path": outcome.path} | asdict(complete_receipt(outcome.receipt, outcome.seconds))
                    self._stream.write(json.dumps(entry) + "\n")
            yield outcome

    def total(self) -> Receipt:
        """The sum over the images; "other" is what no stage accounts for."""
        return complete_receipt(self._sum, self._seconds)


def _added(one: Receipt, other: Receipt) -> Receipt:
    return Receipt(
        patches=one.patches + other.patches,
        patches_of=_sum(one.patches_of, other.patches_of),
        bytes_read=one.bytes_read + other.bytes_read,
        bytes_of=_sum(one.bytes_of, other.bytes_of),
        seconds={
            stage: one.seconds.get(stage, 0.0) + other.seconds.get(stage, 0.0) for stage in one.seconds | other.seconds
        },
        peak_memory=max(one.peak_memory or 0, other.peak_memory or 0) or None,
    )


def _sum(one: int | None, other: int | None) -> int | None:
    """The sum; None if one is not known."""
    return None if one is None or other is None else one + other

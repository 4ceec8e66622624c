"""What training steps read and where their time went."""

from weakref import WeakKeyDictionary

from foveate.images import Source, original
from foveate.models.receipts import covering, peak_memory
from foveate.models.types import Batch
from foveate.types import Size

__all__ = ["StepReceipts", "receipt_record"]

STAGE = "seconds "
"""Before the name of a stage, among the sums of an epoch."""


class StepReceipts:
    """Says of every step what it read, as sums that an epoch adds up; of this process alone.

    Arguments:
        patch: (height, width) of the model's patches, or None if it reads none.
    """

    def __init__(self, patch: Size | None) -> None:
        self._patch = patch
        self._seen: WeakKeyDictionary[Source, int] = WeakKeyDictionary()

    def sums(self, images: Batch, stages: dict[str, float], waited: float) -> dict[str, float]:
        """What a step adds.

        Arguments:
            images: of the step.
            stages: seconds by stage, of the model's forward pass.
            waited: seconds until the batch was there.

        Returns:
            patches_of (patches that would cover the images), bytes_read (views made by other processes not included)
            and seconds by stage.
        """
        sums = {"patches_of": 0.0, "bytes_read": 0.0}
        for source in images.sources:
            if self._patch is not None:
                sums["patches_of"] += covering(source.size, self._patch)
            kept = original(source)  # one that stays open from epoch to epoch goes on counting
            sums["bytes_read"] += kept.bytes_read - self._seen.get(kept, 0)
            self._seen[kept] = kept.bytes_read
        timed = {"view": waited, **stages}
        return sums | {f"{STAGE}{stage}": seconds for stage, seconds in timed.items()}


def receipt_record(sums: dict[str, float]) -> dict[str, object]:
    """The receipt of an epoch, from its sums.

    Arguments:
        sums: patches, seconds, and what `StepReceipts` added.

    Returns:
        patches, patches_of, bytes_read, peak_memory (bytes, of the process so far; None where not known) and seconds by
        stage; "learn" is the backward pass and the update: what no other stage accounts for.

    Example:
        >>> sums = {"patches": 20.0, "patches_of": 900.0, "bytes_read": 5e6, "seconds": 3.0, "seconds read": 1.0}
        >>> record = receipt_record(sums)
        >>> record["patches"], record["patches_of"], record["seconds"]
        (20, 900, {'read': 1.0, 'learn': 2.0})
    """
    stages = {name.removeprefix(STAGE): round(spent, 3) for name, spent in sums.items() if name.startswith(STAGE)}
    rest = max(0.0, sums["seconds"] - sum(stages.values()))
    return {
        "patches": round(sums["patches"]),
        "patches_of": round(sums.get("patches_of", 0)),
        "bytes_read": round(sums.get("bytes_read", 0)),
        "peak_memory": peak_memory(),
        "seconds": stages | {"learn": round(rest, 3)},
    }

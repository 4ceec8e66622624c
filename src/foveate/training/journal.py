"""metrics.jsonl: one JSON object a line, cut back to where the state was saved when a run is resumed."""

import json
from pathlib import Path
from typing import Any

__all__ = ["Journal", "read_journal"]


class Journal:
    """Appends records to a file; a disabled one writes nothing.

    Arguments:
        path: the file, or None to write nothing (every process but the first).
        length: bytes to keep of what is there already.
    """

    def __init__(self, path: Path | None, length: int = 0) -> None:
        self._path = path
        self.length = length
        """Bytes written so far."""
        if path is not None:
            with path.open("ab") as file:
                file.truncate(min(length, file.tell()))

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it is on disk when this returns."""
        if self._path is None:
            return
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with self._path.open("ab") as file:
            file.write(line)
        self.length += len(line)


def read_journal(path: Path | str, kind: str | None = None) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl.

    Arguments:
        path: the file.
        kind: "step" or "epoch" reads only these.
    """
    records = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [record for record in records if kind in (None, record["kind"])]

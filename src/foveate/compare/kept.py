"""What is kept of a run beside what training wrote: a dataclass as JSON in its folder."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from foveate.errors import RunError
from foveate.training.replace import replace_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["read_kept", "write_kept"]

Kept = TypeVar("Kept")


def write_kept(path: Path, value: "DataclassInstance") -> None:
    """Keep a dataclass, in one go.

    Arguments:
        path: the file to write.
        value: what to keep.
    """
    replace_file(path, (json.dumps(asdict(value)) + "\n").encode())


def read_kept(path: Path, made_of: Callable[[dict[str, Any]], Kept], remedy: str) -> Kept | None:
    """What was kept; None if nothing was.

    Arguments:
        path: the file.
        made_of: makes it of what JSON holds.
        remedy: what to do about a damaged file.

    Raises:
        RunError: the file is damaged.
    """
    try:
        return made_of(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} is damaged: {remedy}") from error

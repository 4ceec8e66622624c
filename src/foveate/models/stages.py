"""Where the time goes: seconds by stage of what a model does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Stages"]


class Stages:
    """A stopwatch with named stages; a stage that comes again adds up.

    On a GPU, which works on while the program goes on, the time falls to the stage that waits for it.

    Attributes:
        seconds: stage → seconds, in order of first use.

    Example:
        >>> stages = Stages()
        >>> with stages("read"):
        ...     pass
        >>> list(stages.seconds)
        ['read']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

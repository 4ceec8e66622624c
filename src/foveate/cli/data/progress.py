"""How far a long action is, on standard error."""

import sys
from collections.abc import Callable

__all__ = ["progress_line"]


def progress_line(what: str) -> Callable[[int, int], None]:
    """A line on standard error: one that moves on a terminal, one for every tenth part elsewhere.

    Arguments:
        what: what is counted, e.g. "images written".

    Returns:
        What to call with the number done and the total.
    """
    terminal = sys.stderr.isatty()
    last = -1

    def show(done: int, total: int) -> None:
        nonlocal last
        step = done * (100 if terminal else 10) // max(total, 1)
        if step == last:
            return
        last = step
        if terminal:
            print(f"\r{done}/{total} {what}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done:
            print(f"{done}/{total} {what}", file=sys.stderr, flush=True)

    return show

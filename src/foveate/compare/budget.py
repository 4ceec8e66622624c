"""Equal time for all: how many steps a run gets, by the pace of a timed trial, settled once before it begins."""

from dataclasses import dataclass
from pathlib import Path

from foveate.compare.store import read_kept, write_kept

__all__ = ["BUDGET", "Budget", "read_budget", "write_budget"]

BUDGET = "budget.json"
"""File in a run's folder."""


@dataclass(frozen=True)
class Budget:
    r"""What a run is given.

    .. math:: \text{steps} = \max(1, \lfloor 60 \cdot \text{minutes} / \text{pace} \rceil)

    Attributes:
        minutes: of training, data work included and validation not.
        pace: seconds a step of the trial took, the median.
        steps: that it trains, and at which its schedule ends.
    """

    minutes: float
    pace: float
    steps: int

    @classmethod
    def of(cls, minutes: float, pace: float) -> "Budget":
        """The budget of a run of such a pace.

        Example:
            >>> Budget.of(minutes=3.0, pace=0.5).steps
            360
        """
        return cls(minutes, pace, max(1, round(60 * minutes / pace)))


def write_budget(folder: Path, budget: Budget) -> None:
    """Keep a budget in a run's folder."""
    write_kept(folder / BUDGET, budget)


def read_budget(folder: Path) -> Budget | None:
    """The budget kept in a run's folder; None if there is none.

    Raises:
        RunError: the file is damaged.
    """
    return read_kept(
        folder / BUDGET, lambda plain: Budget(**plain), f"delete {folder} to train that run from the start"
    )

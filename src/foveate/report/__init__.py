"""Report of a run: what it learnt, how sure it is, where it is wrong, on one page that needs nothing beside it."""

from foveate.report.mistakes import Mistake, worst_mistakes
from foveate.report.report import write_report

__all__ = ["Mistake", "worst_mistakes", "write_report"]

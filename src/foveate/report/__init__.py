"""Report of a run: what it learnt, how sure it is, where it is wrong, on one page that needs nothing beside it."""

from foveate.report.report import Mistake, worst_mistakes, write_report

__all__ = ["Mistake", "worst_mistakes", "write_report"]

"""The maths of attention sampling: draw cells, weigh them, estimate the whole from the drawn."""

from foveate.sampling.draw import draw, weigh
from foveate.sampling.expectation import expectation

__all__ = ["draw", "expectation", "weigh"]

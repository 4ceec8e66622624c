"""The maths of attention sampling: draw cells, weigh them, estimate the whole from the drawn."""

from foveate.sampling.diagnosis import AttentionHealth, diagnose
from foveate.sampling.draw import draw, weigh
from foveate.sampling.expectation import coefficients, expectation

__all__ = ["AttentionHealth", "coefficients", "diagnose", "draw", "expectation", "weigh"]

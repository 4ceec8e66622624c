"""The maths of attention sampling: draw cells, weigh them, estimate the whole from the drawn."""

from foveate.sampling.diagnosis import REMEDIES, AttentionHealth, common_warnings, diagnose
from foveate.sampling.draw import draw, weigh
from foveate.sampling.expectation import coefficients, expectation

__all__ = ["REMEDIES", "AttentionHealth", "coefficients", "common_warnings", "diagnose", "draw", "expectation", "weigh"]

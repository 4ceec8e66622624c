"""The maths of attention sampling: draw cells, weigh them, estimate the whole from the drawn."""

from foveate.sampling.attention_health import REMEDIES, AttentionHealth, common_warnings, diagnose
from foveate.sampling.draw import draw, weigh
from foveate.sampling.estimator import coefficients, expectation

__all__ = ["REMEDIES", "AttentionHealth", "coefficients", "common_warnings", "diagnose", "draw", "expectation", "weigh"]

"""Where a model looks."""

from foveate.explain.contributions import contributions
from foveate.explain.evolution import draw_evolution
from foveate.explain.explainer import Explainer
from foveate.explain.explanation import Explanation, SeenPatch, explain

__all__ = ["Explainer", "Explanation", "SeenPatch", "contributions", "draw_evolution", "explain"]

"""Where a model looks."""

from foveate.explain.evolution import draw_evolution

__all__ = ["draw_evolution"]

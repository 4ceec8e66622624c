"""Explanations: heatmaps of attention, patches and contributions, as files, pages and scores against ground truth."""

from foveate.explain.deletion import Deletion, check_deletion, delete_patches
from foveate.explain.explainer import Explainer, folder_names
from foveate.explain.explanation import Explanation, SeenPatch, contributions, explain
from foveate.explain.figures import animate_evolution, draw_evolution
from foveate.explain.localisation import (
    Average,
    AverageDeletion,
    Localisation,
    check_localisation,
    deletion_over,
    known_objects,
    localisation_over,
    score_maps,
)
from foveate.explain.map_scores import (
    MapScores,
    attention_on_truth,
    cell_average_precision,
    cells_of,
    hit_rates,
    pointing_game,
    score_map,
)

__all__ = [
    "Average",
    "AverageDeletion",
    "Deletion",
    "Explainer",
    "Explanation",
    "Localisation",
    "MapScores",
    "SeenPatch",
    "animate_evolution",
    "attention_on_truth",
    "cell_average_precision",
    "cells_of",
    "check_deletion",
    "check_localisation",
    "contributions",
    "delete_patches",
    "deletion_over",
    "draw_evolution",
    "explain",
    "folder_names",
    "hit_rates",
    "known_objects",
    "localisation_over",
    "pointing_game",
    "score_map",
    "score_maps",
]

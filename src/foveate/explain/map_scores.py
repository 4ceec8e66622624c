"""Heatmap metrics against ground truth (pointing game, average precision …): arrays and boxes in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from foveate.evaluation import scores
from foveate.explain.explanation import Explanation
from foveate.types import Affine, Box, Size


def cells_of(objects: Sequence[Box], affine: Affine, shape: Size) -> Bool[np.ndarray, "row column"]:
    """Ground truth mask: which cells of a map show something of the objects, for their windows overlap one.

    Arguments:
        objects: in level-0 pixels; a point is a box of one pixel.
        affine: from cells to level-0 pixels, without rotation.
        shape: (rows, columns) of the map.

    Returns:
        (rows, columns) True where a cell's window and an object share some area.

    Example:
        >>> cells_of([Box(5, 19, 2, 2)], (10.0, 0.0, 0.0, 0.0, 5.0, 0.0), (3, 4)).astype(int).tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    a, _, c, _, e, f = affine
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    found = np.zeros(shape, dtype=bool)
    for box in objects:
        down = (e * rows + f < box.bottom) & (e * (rows + 1) + f > box.top)
        along = (a * columns + c < box.right) & (a * (columns + 1) + c > box.left)
        found |= down[:, None] & along[None, :]
    return found


def attention_on_truth(attention: Float[np.ndarray, "row column"], truth: Bool[np.ndarray, "row column"]) -> float:
    r"""Attention mass on the objects; what it would be by chance is the share of cells they take.

    .. math:: \sum_{i \in T} a_i

    Arguments:
        attention: (rows, columns) probabilities that sum to 1.
        truth: (rows, columns) True for the cells T that show an object.

    Returns:
        In [0, 1].

    Example:
        >>> attention_on_truth(np.array([[0.5, 0.25, 0.25]]), np.array([[True, False, True]]))
        0.75
    """
    return float(attention[truth].sum(dtype=np.float64))


def pointing_game(attention: Float[np.ndarray, "row column"], truth: Bool[np.ndarray, "row column"]) -> bool:
    r"""Pointing game: whether the cell of largest attention shows an object; the score is the share of such images.

    .. math:: \arg\max_i a_i \in T

    Zhang et al., "Top-Down Neural Attention by Excitation Backprop", IJCV 126, 2018, section 5.1; theirs allows 15
    pixels beside the object, ours the rest of the cell.

    Arguments:
        attention: (rows, columns); of several largest cells the first one counts.
        truth: (rows, columns) True for the cells T that show an object.

    Example:
        >>> pointing_game(np.array([[0.5, 0.25, 0.25]]), np.array([[True, False, True]]))
        True
    """
    return bool(truth.flat[int(attention.argmax())])


def cell_average_precision(
    attention: Float[np.ndarray, "row column"],
    truth: Bool[np.ndarray, "row column"],
    cell_mask: Bool[np.ndarray, "row column"] | None = None,
) -> float | None:
    r"""Average precision: how far attention ranks the cells that show an object before all others.

    .. math:: \mathrm{AP} = \sum_i (R_i - R_{i-1}) P_i

    with recall R and precision P of the cells from the i-th largest attention on; by chance the share of such cells.

    Arguments:
        attention: (rows, columns).
        truth: (rows, columns) True for the cells that show an object.
        cell_mask: cells that may be looked at, the others do not count; all if None.

    Returns:
        In [0, 1], 1 if every such cell has more attention than any other; None if there is none.

    Example:
        >>> cell_average_precision(np.array([[0.5, 0.3, 0.2]]), np.array([[True, False, True]]))
        0.8333333333333333
    """
    counted = np.ones(truth.shape, dtype=bool) if cell_mask is None else cell_mask
    labels = truth[counted].astype(np.int64)[:, None]
    return scores.average_precision(labels, attention[counted].astype(np.float64)[:, None])


def hit_rates(boxes: Sequence[Box], objects: Sequence[Box]) -> tuple[float, float]:
    r"""Hit rates: how many of the patches hit an object, and how many of the objects are hit.

    .. math:: \frac1n \bigl|\{s : \exists o\; m_o \in B_s\}\bigr|, \qquad
              \frac1m \bigl|\{o : \exists s\; m_o \in B_s\}\bigr|

    A patch B hits an object if it holds its middle m. The first says how few draws are wasted, the second how much of
    what is there was seen: draws that crowd on one object have a high first and a low second.

    Arguments:
        boxes: the patches, in level-0 pixels; at least one.
        objects: likewise; at least one.

    Returns:
        Share of patches, share of objects.

    Example:
        >>> hit_rates([Box(0, 0, 10, 10), Box(2, 3, 10, 10)], [Box(4, 4, 2, 2), Box(50, 50, 4, 4)])
        (1.0, 0.5)
    """
    middles = np.array([(one.top + one.height / 2, one.left + one.width / 2) for one in objects])
    corners = np.array([(box.top, box.left, box.bottom, box.right) for box in boxes])
    inside = (corners[:, None, :2] <= middles) & (middles < corners[:, None, 2:])
    hits = np.asarray(inside.all(2))
    return float(hits.any(1).mean()), float(hits.any(0).mean())


@dataclass(frozen=True)
class MapScores:
    """Scores of the heatmap and the draws of one image, with objects that are known.

    Attributes:
        objects: number of objects.
        chance: share of the cells that show one: what the next three would be of a map that knows nothing.
        mass: attention on them; None without a map, as the next two.
        pointing: whether the most attended cell shows one.
        average_precision: of the cells by attention; None also if no cell that may be looked at shows one.
        draws_that_hit: share of the patches that hold the middle of one; None where none are drawn.
        objects_hit: share of the objects whose middle a patch holds; likewise.
    """

    objects: int
    chance: float | None
    mass: float | None
    pointing: bool | None
    average_precision: float | None
    draws_that_hit: float | None
    objects_hit: float | None


def score_map(seen: Explanation, objects: Sequence[Box]) -> MapScores | None:
    """Scores of the heatmap and the patches of an explanation; the rates are means over its draws.

    Arguments:
        seen: of an image.
        objects: what is there, in level-0 pixels of the file; a point is a box of one pixel.

    Returns:
        None where there is no object, and so nothing to find.
    """
    if not objects:
        return None
    chance = mass = pointing = precision = hitting = hit = None
    if seen.attention is not None and seen.cell_mask is not None and seen.affine is not None:
        truth = cells_of(objects, seen.affine, (seen.attention.shape[0], seen.attention.shape[1]))
        chance = float(truth[seen.cell_mask].mean())
        mass = attention_on_truth(seen.attention, truth)
        pointing = pointing_game(seen.attention, truth)
        precision = cell_average_precision(seen.attention, truth, seen.cell_mask)
    if seen.drawn and seen.patches:
        draws = sorted({patch.draw for patch in seen.patches})
        rates = [hit_rates([patch.box for patch in seen.patches if patch.draw == draw], objects) for draw in draws]
        hitting, hit = (float(np.mean(each)) for each in zip(*rates, strict=True))
    return MapScores(len(objects), chance, mass, pointing, precision, hitting, hit)

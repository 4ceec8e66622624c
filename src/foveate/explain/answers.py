"""The answer on the page of one image, as HTML: probabilities, their spread, and what each patch added."""

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float64

from foveate.explain.explanation import Explanation
from foveate.explain.fragments import data_uri, number, patch_label

__all__ = ["other_answers", "patch_cards", "probability_table", "shown_classes", "shown_contributions", "sums"]

MOST_CLASSES = 20
"""Classes shown on a page: the most probable."""


def shown_classes(seen: Explanation) -> list[int]:
    """Numbers of the most probable classes, in their own order."""
    order = np.argsort(-seen.probabilities.mean(0), kind="stable")[:MOST_CLASSES]
    return sorted(order.tolist())


def probability_table(seen: Explanation) -> str:
    """Probability of each class, with its spread over the draws where there are several."""
    each, several = seen.probabilities, len(seen.probabilities) > 1
    chosen = set(seen.prediction.predicted.split("|")) if seen.multi_label else {seen.prediction.predicted}
    rows = []
    for k in shown_classes(seen):
        name, mean = seen.classes[k], seen.prediction.probabilities[seen.classes[k]]
        spread = ""
        if several:
            spread = f"<td>{each[:, k].std(ddof=1):.3f}</td><td>{each[:, k].min():.3f}–{each[:, k].max():.3f}</td>"
        rows.append(
            f"<tr{' class=predicted' * (name in chosen)}><th scope=row>{escape(name)}</th><td>{mean:.4f}</td>"
            f'<td aria-hidden=true><meter min=0 max=1 value="{mean:.4f}"></meter></td>{spread}</tr>'
        )
    left_out = len(seen.classes) - len(rows)
    more = f"; {left_out} less probable classes are left out" if left_out else ""
    caption = (
        f"Mean of {len(each)} draws{more}"
        if several
        else f"Of one draw{more}"
        if seen.patches
        else f"Probabilities{more}"
    )
    deviation = '<th scope="col"><abbr title="standard deviation over the draws">± s.d.</abbr></th>'
    head = f"{deviation}<th scope=col>range</th>" if several else ""
    return _table(caption, f"<th scope=col>class</th><th scope=col>probability</th><td></td>{head}", rows)


def other_answers(seen: Explanation) -> str:
    """What other seeds would have said."""
    if not seen.others:
        return ""
    head = "<th scope=col>class</th>" + "".join(f"<th scope=col>seed {seed}</th>" for seed, _ in seen.others)
    rows = []
    for k in shown_classes(seen):
        values = "".join(f"<td>{other.probabilities[seen.classes[k]]:.4f}</td>" for _, other in seen.others)
        rows.append(f"<tr><th scope=row>{escape(seen.classes[k])}</th>{values}</tr>")
    answers = "".join(f"<td>{escape(other.predicted)}</td>" for _, other in seen.others)
    rows.append(f'<tr class="predicted"><th scope=row>answer</th>{answers}</tr>')
    agree = sum(other.predicted == seen.prediction.predicted for _, other in seen.others)
    caption = f"{agree} of {len(seen.others)} other seeds give the same answer"
    return "<h2>What if other patches had been drawn</h2>" + _table(caption, head, rows)


def patch_cards(seen: Explanation, pictures: Sequence[bytes]) -> str:
    """The patches that were read, each with what it added to the answer."""
    if not seen.patches:
        return ""
    shown, first = shown_classes(seen), seen.shown_class
    parts = shown_contributions(seen)[:, shown.index(first)]
    options = "".join(
        f'<option value="{place}"{" selected" * (k == first)}>{escape(seen.classes[k])}</option>'
        for place, k in enumerate(shown)
    )
    cards = []
    for i, (patch, picture) in enumerate(zip(seen.patches, pictures, strict=True)):
        value = parts[i]
        lines = [("attention", "", number(patch.attention))]
        lines += [("weight", "", number(patch.weight))] if seen.drawn else []
        lines += [("adds", "value", f"{'−' if value < 0 else '+'}{abs(value):.3g}")]
        told = "".join(
            f'<span class="line">{word} <span class="{kind}">{text}</span></span>' for word, kind, text in lines
        )
        cards.append(
            f'<li><button class="card" type="button" data-patch="{i}" aria-pressed="false">'
            f'<img alt="{escape(patch_label(i, patch))}" src="{data_uri(picture, "jpeg")}"><b>Patch {i + 1}</b>'
            f'{told}<span class="track"><i></i></span></button></li>'
        )
    return (
        '<section id="patches" aria-labelledby="patches-title" tabindex="-1">'
        '<h2 id="patches-title">Patches it read</h2>'
        f'<p class="controls"><label for="class">Contribution to <select id="class">{options}</select></label> '
        '<span id="sum" aria-live="polite"></span></p>'
        '<p id="no-cards" hidden>The patches of another seed are framed in the picture, and not shown one by one.</p>'
        f'<ul class="cards">{"".join(cards)}</ul></section>'
    )


def shown_contributions(seen: Explanation) -> Float64[np.ndarray, "patch class"]:
    """What the patches add to the shown classes; where only differences count, beyond what they add to all on average.

    Returns:
        (patches, shown classes) in nats.
    """
    parts = np.array([patch.contributions for patch in seen.patches]).reshape(-1, len(seen.classes))
    return _compared(seen, parts)


def sums(seen: Explanation) -> list[list[str]]:
    """By draw and shown class, how bias and contributions make the logit."""
    if seen.bias is None or seen.rest is None:
        return []
    parts, draws = shown_contributions(seen), np.array([patch.draw for patch in seen.patches])
    bias = _compared(seen, seen.bias[None])[0]
    told = []
    for draw, (rest, logits) in enumerate(zip(_compared(seen, seen.rest), _compared(seen, seen.logits), strict=True)):
        row = []
        for k, listed in enumerate(parts[draws == draw].sum(0)):
            unlisted = f" + unlisted patches {number(rest[k])}" if np.abs(seen.rest).max() > 0 else ""
            made = f"bias {number(bias[k])} + patches {number(listed)}{unlisted}"
            row.append(f"{made} = logit {number(logits[k])}{' above the mean class' * seen.relative}")
        told.append(row)
    return told


def _compared(seen: Explanation, values: Float64[np.ndarray, "row class"]) -> Float64[np.ndarray, "row shown"]:
    mean = values.mean(1, keepdims=True) if seen.relative else 0.0
    return np.asarray((values - mean)[:, shown_classes(seen)])


def _table(caption: str, head: str, rows: Sequence[str]) -> str:
    told = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{told}"><table><caption>{told}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )

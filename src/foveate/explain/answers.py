"""The answer on the page of one image, as HTML: probabilities, their spread, and what each patch added."""

from collections.abc import Sequence
from html import escape

import numpy as np

from foveate.explain.explanation import Explanation
from foveate.explain.fragments import data_uri, number, patch_label

__all__ = ["other_answers", "patch_cards", "probability_table", "shown_classes", "sums"]

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
    options = "".join(
        f'<option value="{place}"{" selected" * (k == first)}>{escape(seen.classes[k])}</option>'
        for place, k in enumerate(shown)
    )
    cards = []
    for i, (patch, picture) in enumerate(zip(seen.patches, pictures, strict=True)):
        value = patch.contributions[first]
        lines = [("attention", "", number(patch.attention)), ("weight", "", number(patch.weight))]
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


def sums(seen: Explanation) -> list[list[str]]:
    """By draw and shown class, how bias and contributions make the logit."""
    if seen.bias is None or seen.rest is None:
        return []
    told = []
    for draw in range(len(seen.logits)):
        listed = np.array([patch.contributions for patch in seen.patches if patch.draw == draw])
        listed = listed.reshape(-1, len(seen.classes)).sum(0)
        row = []
        for k in shown_classes(seen):
            rest = f" + unlisted patches {number(seen.rest[draw, k])}" if np.abs(seen.rest).max() > 0 else ""
            made = f"bias {number(seen.bias[k])} + patches {number(listed[k])}{rest}"
            row.append(f"{made} = logit {number(seen.logits[draw, k])}")
        told.append(row)
    return told


def _table(caption: str, head: str, rows: Sequence[str]) -> str:
    told = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{told}"><table><caption>{told}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )

"""What docs/results.md and docs/scales.md say of the recorded runs follows from their predictions."""

from pathlib import Path

import pytest
from results_tables import REFERENCES, RESULTS, recorded, rows

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "results.md"
ERROR = {"test error (95 %)": "error"}
TABLES = {
    "ablation": (
        "## What each choice is worth: Megapixel MNIST, 750 × 750",
        "ats-10 des-raj no-baseline des-raj-no-baseline original-gradient norm-1 no-prior variety-no-prior stride-1 "
        "stride-6 pooled papers-attention undrawn variety prior-to-0 still batch-32 as-published ats-5 ats-25 ats-50 "
        "ats-100",
        ERROR
        | {"of each seed": "seeds", "minus the preset (95 %, paired)": "minus", "epochs": "epochs"}
        | {"steps to a training error below 0.8": "begun", "digits covered, of 5": "covered"},
    ),
    "rivals": (
        "## What chooses patches: Megapixel MNIST, 750 × 750",
        "ats-10 top-10 cross-attention-10 zoom-10 perturbed-10 gmic-10 ips-10 u-10 deep-mil cnn",
        ERROR | {"minus ATS-10 (95 %, paired)": "minus", "steps": "steps"},
    ),
    "several-scales": (
        "## What it has learnt so far",
        "several several-40 only-32 only-64 only-128 only-256",
        ERROR | {"minus several (95 %, paired)": "minus", "train error": "training error"},
    ),
    "colon-cancer": (
        "## Colon cancer",
        "ats-10 ats-50 u-10 u-50 cnn-0.5 cnn-1 deep-mil ats-10-recipe",
        ERROR | {"minus ATS-10 (95 %, paired)": "minus", "AUC": "auc", "train loss": "loss"},
    ),
    "colon-cancer-eyes": (
        "## Colon cancer, by evidence alone",
        "evidence ats-10 ats-10-flips",
        ERROR | {"AUC": "auc", "train loss": "loss", "train error": "training error"},
    ),
    "german-speed-limits": (
        "## German road scenes",
        "ats-10 ats-50 u-10 u-50 cnn-0.5 cnn-1 deep-mil ats-10-recipe",
        ERROR
        | {"minus ATS-10 (95 %, paired)": "minus", "AUC": "auc", "train loss": "loss", "train error": "training error"},
    ),
    "german-eyes": (
        "## German road scenes at full resolution",
        "ats-10 cnn-half",
        ERROR | {"AUC": "auc", "train loss": "loss", "train error": "training error"},
    ),
    "circuit-boards": (
        "### Circuit boards, patches drawn",
        "ats-10 ats-10-flips",
        ERROR
        | {"minus ats-10 (95 %, paired)": "minus", "AUC": "auc", "train loss": "loss", "train error": "training error"},
    ),
    "german-crops": (
        "| told where to look |",
        "told-where told-where-180",
        ERROR | {"AUC": "auc", "train loss": "loss", "train error": "training error"},
    ),
}
"""Records → where their table begins on the page, its methods in order, and heading → figure."""


def table(begin: str, page: Path = PAGE) -> list[dict[str, str]]:
    """The first table of a page from there on: heading → cell, row by row."""
    text = page.read_text()
    lines = text[text.index(begin) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    cells = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in line.strip("|").split("|")])
    headings, _, *found = cells
    return [dict(zip(headings, row, strict=True)) for row in found]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "ablation" else []) for name in TABLES]
)  # of 24 methods
def test_every_figure_of_a_table_follows_from_the_records(name: str) -> None:
    begin, methods, columns = TABLES[name]
    runs = recorded(RESULTS / name)
    assert sorted(runs) == sorted(methods.split())
    told = table(begin, DOCS / "scales.md" if name == "several-scales" else PAGE)
    found = rows(runs, REFERENCES.get(name))
    for method, row in zip(methods.split(), told, strict=True):
        assert {heading: row[heading] for heading in columns} == {
            heading: found[method][figure] for heading, figure in columns.items()
        }, method


def test_the_seeds_of_megapixel_mnist_follow_from_the_records() -> None:
    runs = recorded(RESULTS / "megapixel-mnist")
    told = table("## Megapixel MNIST, 1500 × 1500")
    single = rows({str(run.seed): [run] for run in runs["ats-10"]})
    found = [single["0"], single["1"], single["2"], rows(runs)["ats-10"], rows(runs)["ats-10-wide"]]
    for row, cells in zip(told, found, strict=True):
        assert row["test error, one draw (95 %)"] == cells["error"]
        assert row["error this leaves"] == cells["floor"]
        assert row["digits covered, one draw"].startswith(cells["covered"])
        assert row["minutes"] == cells["minutes"] or row["seed"] == "mean"
        assert row["steps to a training error below 0.8"] == cells["begun"] or row["seed"] == "mean"


def test_what_the_text_says_of_other_records_follows_from_them() -> None:
    text = " ".join(PAGE.read_text().split())
    over = rows(recorded(RESULTS / "megapixel-mnist-noise-over"))["ats-10"]
    assert over["seeds"] == "0.025, 0.065, 0.029"
    assert f"0.025, 0.065 and 0.029, mean {over['error']}" in text
    blind = rows(recorded(RESULTS / "megapixel-mnist-no-prior"))
    assert blind["no-prior"]["seeds"] == "0.916, 0.916"
    assert "both err on 0.916 of the test canvases" in text
    mean, interval = blind["variety"]["error"].split(" ")
    assert f"{blind['variety']['seeds'].replace(', 0.021', ' and 0.021')} (mean {mean}, {interval[1:]}" in text
    maps = rows(recorded(RESULTS / "megapixel-mnist-maps"))
    assert f"ATS-10 errs on {maps['ats-10']['error']}" in text
    assert f"Deep MIL on {maps['deep-mil']['error']}" in text


def test_every_record_is_in_one_of_these_tests() -> None:
    named = {
        *TABLES,
        "megapixel-mnist",
        "megapixel-mnist-noise-over",
        "megapixel-mnist-no-prior",
        "megapixel-mnist-maps",
    }
    assert {path.name for path in RESULTS.iterdir() if path.is_dir() and recorded(path)} == named

"""The report of a run: its curves against other libraries, its page in a browser, and what it says."""

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from browsers import Watched, open_browser
from sklearn.metrics import precision_recall_curve, roc_curve

from foveate.cli import main
from foveate.datasets.types import Example
from foveate.evaluation.evaluate import Evaluation, judge
from foveate.evaluation.numbers import NumberEvaluation
from foveate.report.figures import answers_and_truth, learning_curves, receiver_points, threshold_curves
from foveate.report.mistakes import _furthest

MODEL = "megapixel-mnist"


def points(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive, scores = random.random(60) < 0.4, random.random(60)
    return positive, np.round(scores, 1) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_curves_are_those_of_scikit_learn(seed: int, ties: bool) -> None:
    positive, scores = points(seed, ties)
    found = receiver_points(positive, scores)
    alarms, hits, _ = roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(found[:, 0], alarms)
    np.testing.assert_allclose(found[:, 1], hits)
    precision, recall, _ = precision_recall_curve(positive, scores)
    np.testing.assert_allclose(found[1:, 2][::-1], precision[:-1])
    np.testing.assert_allclose(found[1:, 1][::-1], recall[:-1])


def judged(labels: list[int], probabilities: list[list[float]]) -> Evaluation:
    examples = [Example(f"image {number}", label) for number, label in enumerate(labels)]
    return judge(examples, np.array(labels), np.array(probabilities), ("red", "green", "blue")[: len(probabilities[0])])


def test_only_classes_with_images_and_others_have_curves() -> None:
    picture = threshold_curves(judged([0, 0, 1], [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1]])).decode()
    two = threshold_curves(judged([0, 1], [[0.8, 0.2], [0.4, 0.6]])).decode()
    one = threshold_curves(judged([0, 0], [[0.8, 0.2], [0.4, 0.6]])).decode()
    shown = [len(re.findall(r"<!-- (red|green|blue) -->", text)) for text in (picture, two, one)]
    assert shown == [4, 2, 0]  # in two legends


def test_learning_curves_leave_out_what_was_not_measured() -> None:
    lines = [{"epoch": 1, "training_error": 0.5, "validation_error": None, "training_loss": 1.0, "entropy": None}]
    picture = learning_curves(lines, 0.4).decode()
    assert "<!-- training -->" in picture
    assert "<!-- validation -->" not in picture
    assert "exp(entropy)" not in picture
    assert learning_curves(lines, 0.4).decode() == picture


def test_errors_of_numbers_and_the_furthest_off() -> None:
    labels, answers = np.array([1.0, 2.0, 9.0, 4.0]), np.array([1.0, 5.0, 7.5, 4.0])
    result = NumberEvaluation(tuple("abcd"), labels, answers, np.full(4, 3.0), np.zeros(4), (None,) * 4)
    off = [row[1:] for row in _furthest(result)]
    assert off == [("2", "5 (+3)"), ("9", "7.5 (-1.5)")]  # those that are right are none
    picture = answers_and_truth(result).decode()
    assert picture == answers_and_truth(result).decode()
    assert "<!-- mean of the training labels -->" in picture
    alike = replace(result, answers=labels)
    assert list(_furthest(alike)) == []
    assert "<!-- answer − label -->" in answers_and_truth(alike).decode()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few canvases, of which the test ones have one label that is wrong."""
    folder = tmp_path_factory.mktemp("digits")
    words = ["--size", "300", "350", "--train", "2", "--test", "5", "--noise", "3"]
    assert main(["data", "megapixel-mnist", "--out", str(folder), *words]) == 0
    manifest = folder / "manifest.csv"
    header, *rows = manifest.read_text().splitlines()
    place = next(number for number, row in enumerate(rows) if "test-00002" in row)
    column = header.split(",").index("label")
    fields = rows[place].split(",")
    fields[column] = str((int(fields[column]) + 1) % 10)
    rows[place] = ",".join(fields)
    manifest.write_text("\n".join([header, *rows]) + "\n")
    return manifest


@pytest.fixture(scope="module")
def page(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", MODEL, "--data", str(digits), "--out", str(out), "--worst", "3"]) == 0
    return out


def test_it_says_what_evaluate_says(page: Path, digits: Path, tmp_path: Path) -> None:
    assert main(["evaluate", MODEL, "--data", str(digits), "--out", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", page.read_text())).split())
    low, high = figures["interval"]
    assert f"error{figures['error']:.3f}({low:.3f}–{high:.3f})" in text.replace(" ", "")
    assert "5 test images" in text
    assert "test-00002.png" in text  # whose label is wrong
    assert f"{round(figures['error'] * 5)} of 5 are answered wrongly" in text
    assert "chose the model" not in text


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_it_is_shown_and_asks_for_nothing_else(page: Path, width: int, scheme: str) -> None:
    with open_browser() as browser:
        sizes = Watched(browser, page, width, scheme).pictures_alone(page, width)
        assert len(sizes) >= 3
        assert min(sizes) > 0


def test_a_name_without_a_folder_needs_a_file(capsys: pytest.CaptureFixture[str], digits: Path) -> None:
    assert main(["report", MODEL, "--data", str(digits)]) == 2
    assert "name a file with --out" in capsys.readouterr().err


def test_mistakes_that_cannot_be_shown_are_refused(capsys: pytest.CaptureFixture[str], digits: Path) -> None:
    assert main(["report", MODEL, "--data", str(digits), "--out", "report.html", "--worst", "-1"]) == 2
    assert "--worst must be at least 0, got -1" in capsys.readouterr().err

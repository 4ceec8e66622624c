"""Scikit-learn's own checks of estimators, those that can be asked of a classifier of images."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn
from packaging.version import Version
from sklearn.utils.estimator_checks import parametrize_with_checks
from tiny import TINY

from foveate import Classifier

TABULAR = "its table of numbers is no list of images: it wants numbers to be looked at, and refused, one by one"
LEARNING = "it wants a table of clusters learnt to 83 %, of two steps of training on pictures of it"
CANNOT = {
    "check_n_features_in": TABULAR,
    "check_n_features_in_after_fitting": TABULAR,
    "check_estimators_nan_inf": TABULAR,
    "check_complex_data": TABULAR,
    "check_estimators_empty_data_messages": TABULAR,
    "check_estimator_sparse_array": TABULAR,
    "check_estimator_sparse_matrix": TABULAR,
    "check_estimator_sparse_tag": TABULAR,
    "check_classifiers_train": LEARNING,
    "check_supervised_y_2d": "one label in a column is taken without a warning",
}
"""Check → why it fails: one that passes is an error (xfail_strict)."""


class OfRows(Classifier):
    """Classifier of the rows of a table, each as a small picture with a bar a number: what lets the checks be asked."""

    def __init__(self) -> None:
        super().__init__("smoke", verbose=False, device="cpu")

    def settings_to_use(self) -> Any:
        return Classifier("smoke", seed=0, **TINY | {"training.max_steps": 1}).settings_to_use()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.classifier_tags.multi_label = False
        return tags

    def fit(self, X: Any, y: Any = None, **more: Any) -> "OfRows":  # noqa: N803
        super().fit(pictures(X), y, **more)
        return self

    def predictions(self, X: Any) -> Any:  # noqa: N803
        return super().predictions(X if hasattr(X, "examples") else pictures(X))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        return super().score(pictures(X), y, sample_weight)


def pictures(table: Any) -> list[np.ndarray]:
    """Rows of numbers as pictures: a bar for each, as bright as its number is large."""
    rows = np.asarray(table, np.float64)
    if rows.ndim != 2:
        raise ValueError(f"Reshape your data: expected 2D, got {rows.ndim}D")
    bars = np.clip(128 + 30 * rows, 0, 255).astype(np.uint8)
    return [np.repeat(np.repeat(row[None, :, None], 40, 0), 12, 1).repeat(3, 2)[:, :600] for row in bars]


EXPECTED = {} if Version(sklearn.__version__) < Version("1.6") else {"expected_failed_checks": lambda _: CANNOT}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not EXPECTED, reason="scikit-learn < 1.6 cannot be told of what is not asked for")
@parametrize_with_checks([OfRows()], **EXPECTED)
def test_scikit_learns_checks(estimator: Any, check: Callable[..., None]) -> None:
    check(estimator)


FAST = (
    "check_estimator_cloneable", "check_estimator_repr", "check_valid_tag_types", "check_no_attributes_set_in_init",
    "check_parameters_default_constructible", "check_get_params_invariance", "check_set_params", "check_mixin_order",
    "check_estimator_tags_renamed",
)  # fmt: skip
"""Checks that fit nothing, which are asked of the classifier itself."""


@pytest.mark.parametrize("name", FAST)
def test_scikit_learns_checks_of_parameters(name: str) -> None:
    import sklearn.utils.estimator_checks as checks

    with contextlib.suppress(pytest.skip.Exception):
        getattr(checks, name)("Classifier", Classifier())

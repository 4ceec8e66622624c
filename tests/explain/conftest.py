"""What most tests of this room look at, and what looks."""

from collections.abc import Callable

import numpy as np
import pytest
from pointing import digit_canvas, pointing_model

from foveate.models import Model


@pytest.fixture
def pointing() -> Callable[..., Model]:
    """A model whose attention is its contrast prior alone, whatever else of its settings changes."""
    return pointing_model


@pytest.fixture
def canvas() -> Callable[..., np.ndarray]:
    """A dark image, (height, width, channels), with one striped digit centred at (row, column)."""
    return digit_canvas

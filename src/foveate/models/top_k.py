"""Top-k: the most attended patches, taken and not drawn: what attention sampling is to be better than."""

from foveate.config.settings import Method
from foveate.models.base import Model
from foveate.models.sampling import AttentionSampling
from foveate.models.types import Batch, DrawOptions, Output


class TopK(AttentionSampling):
    r"""Top-k: the N most attended patches, and of these alone the attention-weighted mean.

    .. math:: \hat\Phi = \frac{\sum_{i \in \mathrm{top}_N(a)} a_i f_i}{\sum_{i \in \mathrm{top}_N(a)} a_i}

    The honest baseline of whoever would not draw: nothing is corrected, so the attention learns through the weights of
    the patches that it has chosen, which to prefer among them, and of a cell that was not chosen nothing at all. With
    N = 1 it learns nothing. The answer depends on no seed, neither in training nor in prediction.

    Source: none by itself; it is what is left of Katharopoulos & Fleuret, "Processing Megapixel Images with Deep
    Attention-Sampling Models" (2019), section 3, without draws, and of Cordonnier et al., "Differentiable Patch
    Selection for Image Recognition" (2021), section 3, without perturbations.

    Arguments:
        settings: resolved settings; method and baseline have no effect.
        classes, channels, options: as `Model`.

    Example:
        >>> import numpy as np
        >>> from foveate.config.settings import ModelSettings
        >>> from foveate.models import build_model
        >>> model = build_model(ModelSettings(name="top-k", patch=(24, 30), patches=4), ("cat", "dog"), channels=3)
        >>> first, second = (model.predict(np.zeros((200, 300, 3), np.uint8), seed=seed) for seed in (1, 2))
        >>> first.boxes == second.boxes
        True
    """

    @property
    def draw_method(self) -> Method:
        """Always "top"."""
        return "top"

    def settle(self, batch: Batch, options: DrawOptions) -> Output:
        """Refusal; see `Model.settle`."""
        return Model.settle(self, batch, options)

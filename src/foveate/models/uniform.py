"""Uniform sampling, the baseline of attention sampling: the same cells and patches, and no attention."""

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from foveate.config.settings import Method
from foveate.models.sampling import PatchModel
from foveate.models.types import Batch
from foveate.networks import log_attention


class Uniform(PatchModel):
    r"""U-N: the mean of the features of N patches drawn uniformly, without replacement, from the valid cells.

    .. math:: \hat\Phi = \frac1N \sum_s f_s

    The baseline of Katharopoulos & Fleuret (ICML 2019), on the same cells, patches and features as attention
    sampling: what attention adds is the difference. It always draws with method "uniform".

    Arguments:
        settings: resolved settings; those of the attention network only say where the cells lie.
        classes, channels, options: as `Model`.
    """

    fixed_method: ClassVar[Method | None] = "uniform"

    @property
    def attends(self) -> bool:
        """False: its map says which cells there are, and nothing else."""
        return False

    def log_attention(self, batch: Batch, cell_mask: Bool[Tensor, "batch row column"]) -> Float[Tensor, "batch cell"]:
        """Log of 1 / K_valid on the valid cells."""
        logits = batch.views.new_zeros(cell_mask.shape)
        return log_attention(logits, cell_mask, names=batch.ids)

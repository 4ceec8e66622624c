"""CNN baseline: one convolutional network over the whole view, which looks once."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from foveate.models.base import Model
from foveate.models.preprocess import by_size
from foveate.models.receipts import Stages
from foveate.models.types import Output, Started


class CNN(Model):
    """The feature network applied to the whole view, at whatever scale the view is set to.

    The baseline of Katharopoulos & Fleuret (ICML 2019): `view.scale` 1 is the full image. It reads no patches and
    draws nothing. Images of different sizes are worked on group by group, each at its own size, so padding never
    enters; a view smaller than the network's receptive field is filled up with zeros.

    Arguments:
        settings: resolved settings; patch, patches, method and attention have no effect.
        classes, channels, options: as `Model`.

    Raises:
        ConfigError: if the feature network takes one size of input only.
    """

    @property
    def reads_patches(self) -> bool:
        """False."""
        return False

    def finish(self, started: Started) -> Output:
        """Classify the views.

        Arguments:
            started: views on the model's device; nothing is drawn, however many samples are asked for.

        Returns:
            Logits alone.
        """
        stages = Stages()
        batch = self.normalised(started.batch)
        order, parts = [], []
        for rows, views in by_size(batch):
            order += rows
            with stages("features"):
                parts.append(self.features(_enlarged(views, self.features.smallest)))
        back = torch.tensor(order, device=batch.views.device).argsort()
        return Output(logits=self.head(torch.cat(parts)[back]), seconds=stages.seconds)


def _enlarged(views: Float[Tensor, "batch channel _ _"], smallest: int) -> Float[Tensor, "batch channel height width"]:
    missing = [max(smallest - side, 0) for side in views.shape[2:]]
    return functional.pad(views, (0, missing[1], 0, missing[0])) if any(missing) else views

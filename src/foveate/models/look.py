"""What came of one look at an image, before anything of it is written down."""

from dataclasses import dataclass

from foveate.images import Source
from foveate.types import Output, Prediction, Size

__all__ = ["Look"]


@dataclass(frozen=True)
class Look:
    """A prediction, and all that the model saw and computed for it.

    Attributes:
        prediction: what `Model.predict` says.
        opened: the image as it was opened: its level-0 pixels are those of the prediction's boxes.
        source: the image as the model takes it, perhaps at another scale.
        grid_size: (height, width) of what the model's grid lies over: the view, or the image it takes if it has none.
        output: of the model, for this image alone.
    """

    prediction: Prediction
    opened: Source
    source: Source
    grid_size: Size
    output: Output

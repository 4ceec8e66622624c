"""Road scenes that are classified by the speed limit that a sign in them shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from foveate.datasets.types import Example
from foveate.images import Source, open_image
from foveate.types import Box

__all__ = ["SignScenes"]


@dataclass(frozen=True)
class SignScenes:
    """Road scenes, and the speed limits in them.

    Attributes:
        classes: names of the classes, the one without a limit first.
        examples: one per image, in the order of their names.
        files: where the images are.
        limits: for every image, the limit that each of its signs shows, in km/h, and the pixels it covers.
        left_out: number of images that the rule of the task leaves out.
        multi_label: False.
    """

    classes: tuple[str, ...]
    examples: Sequence[Example]
    files: tuple[str, ...]
    limits: tuple[tuple[tuple[str, Box], ...], ...]
    left_out: int = 0
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.examples)

    def open(self, index: int) -> Source:
        """The image of example `index`; no pixel is read."""
        return open_image(self.files[index])

    def signs(self, index: int) -> tuple[tuple[str, Box], ...]:
        """The speed limits of example `index`, to judge attention maps by: what each shows, and where it is."""
        return self.limits[index]

    def objects(self, index: int) -> tuple[tuple[str, Box], ...]:
        """What lies in example `index`, as every data set that knows it says it: the speed limits."""
        return self.signs(index)

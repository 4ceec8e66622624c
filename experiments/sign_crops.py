"""What could be learnt of the German scenes by someone who is told where to look: crops around the signs.

Writes one crop of every scene, as a manifest that `foveate compare` and `foveate train` take: of a scene with speed
limits, a square with the largest of them somewhere in it; of a scene without, a square from anywhere. A network that
sees these crops alone bounds what any attention can add to the same network.

    python experiments/sign_crops.py GTSDB --out crops [--reduce 2] [--side 128]
    foveate compare --config experiments/german-crops.yaml --data crops/manifest.csv
"""

import argparse
from pathlib import Path

import numpy as np

from foveate.datasets import german_speed_limits
from foveate.datasets.manifest.write import write_images
from foveate.datasets.published.scenes import reduced_png
from foveate.images import open_image
from foveate.seeds import derive_seed
from foveate.types import Box, Size


def main() -> None:
    """Write the crops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="GTSDB", type=Path, help="folder of the published files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--reduce", type=int, default=2, help="average squares of so many pixels a side")
    parser.add_argument("--side", type=int, default=128, help="side of a crop, after that")
    arguments = parser.parse_args()
    scenes = german_speed_limits(arguments.source)

    def write(index: int, file: Path) -> None:
        scene = scenes.open(index)
        signs = [box for _, box in scenes.signs(index)]
        largest = max(signs, key=lambda box: box.height * box.width, default=None)
        box = crop(scene.size, largest, arguments.side * arguments.reduce, scenes.examples[index].id)
        file.write_bytes(reduced_png(open_image(scene.read(box)), arguments.reduce))

    heights = [max(box.height for _, box in signs) / arguments.reduce for signs in scenes.limits if signs]
    print(f"{len(heights)} of {len(scenes)} scenes have a limit, the largest {np.median(heights):.1f} pixels high")
    recipe = {"crops": arguments.side, "reduce": arguments.reduce}
    names = [f"{example.id}.png" for example in scenes.examples]
    print(write_images(scenes, arguments.out, recipe, names, write))


def crop(size: Size, sign: Box | None, side: int, name: str) -> Box:
    """A square inside an image, uniformly among those that hold a sign, or among all of them.

    Arguments:
        size: (height, width) of the image.
        sign: what must be in it; None for a square from anywhere.
        side: of the square, in pixels; at least that of the sign.
        name: of the image, which determines the square.

    Example:
        >>> box = crop((80, 136), Box(30, 100, 10, 12), 40, "00001")
        >>> box.top <= 30 and 40 <= box.bottom and box.left <= 100 and 112 <= box.right <= 136
        True
    """
    generator = np.random.default_rng(derive_seed(name))
    first = (0, 0) if sign is None else (max(0, sign.bottom - side), max(0, sign.right - side))
    last = (size[0] - side, size[1] - side)
    if sign is not None:
        last = min(last[0], sign.top), min(last[1], sign.left)
    top, left = (int(generator.integers(low, high + 1)) for low, high in zip(first, last, strict=True))
    return Box(top, left, side, side)


if __name__ == "__main__":
    main()

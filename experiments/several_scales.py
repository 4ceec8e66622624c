"""Digits of 24, 48, 96 and 192 pixels among shuffled ones: a folder of images for `foveate compare`.

    python experiments/several_scales.py images --digits mnist
    foveate compare --config experiments/several-scales.yaml --data images/images.csv --out runs/several-scales

An image of 768 × 1024 pixels shows one digit from 0 to 4, its class, and two others whose quarters have changed places,
each of a size of its own: to tell the digit from them, it must be seen whole and large enough.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from foveate.datasets.megapixel_mnist.digits import Pool, load_pools

SIZE = (768, 1024)
SIDES = (24, 48, 96, 192)
CLASSES = 5
OTHERS = 2


def main() -> None:
    """Write the images and images.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--digits", default="bundled", help='"bundled", "mnist" or an .npz file (default: bundled)')
    parser.add_argument("--train", type=int, default=2500, help="images to train on, validation included")
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    words.folder.mkdir(parents=True, exist_ok=True)
    pools = [_of_classes(pool) for pool in load_pools(words.digits)]
    with (words.folder / "images.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "split"))
        for number in range(words.train + words.test):
            test = number >= words.train
            random = np.random.default_rng([words.seed, number])
            pixels, label = make_image(pools[test], random)
            Image.fromarray(pixels).save(words.folder / f"{number:05}.png", compress_level=1)
            table.writerow((f"{number:05}.png", label, "test" if test else "train"))


def _of_classes(pool: Pool) -> Pool:
    known = pool.labels < CLASSES
    return Pool(pool.images[known], pool.labels[known])


def make_image(pool: Pool, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """One image, and the class of its digit."""
    canvas = np.zeros(SIZE, np.uint8)
    taken: list[tuple[int, int, int]] = []
    chosen = random.choice(len(pool.images), 1 + OTHERS, replace=False)
    for place, digit in enumerate(pool.images[chosen]):
        side = int(random.choice(SIDES))
        top, left = _free(taken, side, random)
        taken.append((top, left, side))
        whole = digit if place == 0 else _shuffled(digit, random)
        drawn = np.asarray(Image.fromarray(whole).resize((side, side), Image.Resampling.BICUBIC))
        canvas[top : top + side, left : left + side] = drawn
    return canvas, int(pool.labels[chosen[0]])


def _free(taken: list[tuple[int, int, int]], side: int, random: np.random.Generator) -> tuple[int, int]:
    while True:
        top, left = (int(random.integers(0, length - side + 1)) for length in SIZE)
        if all(
            top + side <= high or high + other <= top or left + side <= wide or wide + other <= left
            for high, wide, other in taken
        ):
            return top, left


def _shuffled(digit: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A digit whose quarters are all in another place than before, so that strokes are those of digits."""
    half = digit.shape[0] // 2
    quarters = [digit[r : r + half, c : c + half] for r in (0, half) for c in (0, half)]
    while True:
        order = random.permutation(4)
        if not (order == np.arange(4)).any():
            break
    rows = [np.hstack([quarters[order[2 * row]], quarters[order[2 * row + 1]]]) for row in (0, 1)]
    return np.vstack(rows)


if __name__ == "__main__":
    main()

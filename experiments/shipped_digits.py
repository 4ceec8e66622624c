"""The digits that the shipped model megapixel-mnist has learnt: MNIST's, and those that come with scikit-learn.

A third of them are scikit-learn's, each many times, so that the model reads the digits that
`foveate data megapixel-mnist` pastes without any download as well as the others. No digit is in both halves.

    python experiments/shipped_digits.py --out digits.npz
    foveate train --config experiments/shipped-digits.yaml --out runs/shipped
"""

import argparse
from pathlib import Path

import numpy as np

from foveate.datasets.megapixel_mnist.digits import Pool, load_pools

SHARE = 1 / 3
"""Of the digits, how many are scikit-learn's."""


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", default="mnist", help='"mnist", which is downloaded once, or an .npz file of it')
    parser.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    arguments = parser.parse_args()
    arrays = {}
    for split, mnist, bundled in zip(
        ("train", "test"), load_pools(arguments.mnist), load_pools("bundled"), strict=True
    ):
        both = joined(mnist, bundled, SHARE)
        arrays |= {f"x_{split}": both.images, f"y_{split}": both.labels}
        print(f"{split}: {len(mnist.images)} of MNIST, {len(both.images) - len(mnist.images)} of scikit-learn")
    np.savez_compressed(arguments.out, **arrays)


def joined(many: Pool, few: Pool, share: float) -> Pool:
    """Two pools as one, the second so often that it makes up a share.

    Arguments:
        many: all of it once.
        few: repeated as a whole.
        share: of the second among all, about.
    """
    times = round(len(many.images) * share / (1 - share) / len(few.images))
    return Pool(
        np.concatenate([many.images, np.tile(few.images, (times, 1, 1))]),
        np.concatenate([many.labels, np.tile(few.labels, times)]),
    )


if __name__ == "__main__":
    main()

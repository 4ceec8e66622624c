"""Seeds of random streams, which depend on what is drawn and on nothing else."""

import hashlib
from pathlib import PurePosixPath


def derive_seed(*parts: int | str) -> int:
    r"""Seed of 63 bits, mixed from the parts that identify a random event.

    .. math:: s = \mathrm{BLAKE2b}_{64}(p_1, p_2, \dots) \gg 1

    Every image's draws come from `derive_seed(run_seed, epoch, image_id, sample)`, so neither padding, batch
    composition, manifest order nor the number of threads or processes changes them.

    Arguments:
        parts: integers and strings, in a fixed order. `1` and `"1"` are different parts.

    Returns:
        An integer in [0, 2⁶³), the same on every machine and in every process.

    Example:
        >>> derive_seed(0, 3, "image.png") == derive_seed(0, 3, "image.png")
        True
        >>> derive_seed(0, 3, "image.png") == derive_seed(0, 4, "image.png")
        False
    """
    pieces: list[bytes] = []
    for part in parts:
        text = str(part).encode(errors="surrogateescape")  # a file name need not be UTF-8
        pieces += (b"i" if isinstance(part, int) else b"s", len(text).to_bytes(8, "big"), text)
    return int.from_bytes(hashlib.blake2b(b"".join(pieces), digest_size=8).digest(), "big") >> 1


def prediction_seed(seed: int, name: str) -> int:
    """Random seed of the draws of one image when predicting.

    It depends on the file's name without its folders, so that moving a data set, or naming it by another path,
    leaves its predictions as they are. `Model.predict` and the bulk predictor both use it.

    Arguments:
        seed: what the user chose.
        name: path, address or name of the image; "" for an array.

    Returns:
        An integer in [0, 2⁶³), for `Batch.seeds`.

    Example:
        >>> prediction_seed(0, "a/slide.svs") == prediction_seed(0, "/data/b/slide.svs")
        True
    """
    return derive_seed(seed, "predict", PurePosixPath(name.replace("\\", "/")).name)

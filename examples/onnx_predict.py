"""Predict with an exported model: `python predict.py FOLDER IMAGE …`; needs onnxruntime, NumPy and Pillow alone."""

import hashlib
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class Exported:
    """A model that `foveate export` wrote: its graphs, and what `preprocess.json` says of feeding them."""

    def __init__(self, folder):
        self.told = json.loads(Path(folder, "preprocess.json").read_text(encoding="utf-8"))
        self.graphs = {name: onnxruntime.InferenceSession(Path(folder, f"{name}.onnx")) for name in self.told["graphs"]}

    def run(self, name, **given):
        """What a graph makes of those of the arrays that it takes."""
        wanted = self.told["graphs"][name]
        feeds = {one: given[one] for one in wanted["inputs"]}
        return dict(zip(wanted["outputs"], self.graphs[name].run(wanted["outputs"], feeds)))

    def read(self, path):
        """Pixels (height, width, channels) in the unit range, upright, in the model's colours, for view and patches."""
        told = self.told
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
        if told["mpp"] or "mpp" in (told["view"] or {}):
            raise SystemExit("this model wants images of one scale in microns per pixel: predict with foveate itself")
        if any(isinstance(one, str) for one in told["bands"]):
            raise SystemExit("this model wants bands by name, which files read here lack: predict with foveate itself")
        if "A" in image.getbands() or "transparency" in image.info:
            raise SystemExit(f"{path}: save it without transparency")
        if image.mode in ("1", "P", "CMYK", "YCbCr"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        pixels = np.atleast_3d(np.asarray(image))
        whole = 65535 if image.mode.startswith("I") else 1 if image.mode == "F" else 255
        if told["bands"]:
            pixels = pixels[:, :, told["bands"]]
        elif (pixels.shape[2], told["channels"]) == (1, 3) and told["colour"] != "grey":
            pixels = pixels.repeat(3, 2)
        elif (pixels.shape[2], told["channels"], told["colour"]) == (3, 1, "grey"):
            pixels = pixels @ np.array([[299], [587], [114]]) / 1000
        if pixels.shape[2] != told["channels"]:
            raise SystemExit(f"{path}: the model wants {told['channels']} channels, this has {pixels.shape[2]}")
        rounded = np.floor(pixels + 0.5) / whole if whole > 1 else pixels  # patches are rounded, averages are not
        pixels = pixels / whole
        if not told["standardise"]:
            return pixels, rounded
        small = shrink(pixels, shrunk(pixels.shape[:2], longest_side=128))
        mean, deviation = small.mean((0, 1)), small.std((0, 1))
        return ((one - mean) / np.where(deviation < 1e-4, 1, deviation) for one in (pixels, rounded))

    def predict(self, path, seed=0, samples=1, guide=None):
        """Probabilities of the classes, and (top, left) of the patches that were read.

        Give a guide (view rows, view columns) where something is known of where to look: 0 anywhere, -inf never.
        """
        told, (pixels, rounded) = self.told, self.read(path)
        if told["guide"] and guide is None:
            raise SystemExit("this model looks where tissue is: give a guide, or predict with foveate itself")
        size, rows = pixels.shape[:2], {}
        view = size if told["view"] is None else shrunk(size, **told["view"])
        if told["view"] is not None:
            rows["view"] = shrink(pixels, view).transpose(2, 0, 1)[None].astype(np.float32)
            rows["guide"] = np.zeros((1, *view), np.float32) if guide is None else np.float32(guide)[None]
            if told["patch"]:
                spans = zip(told["patch"], view, size)
                rows["footprint"] = np.array([max(1, (2 * p * v + s) // (2 * s)) for p, v, s in spans])
            rows |= self.run("view", **rows)
        if not told["patch"]:
            return self.answer(rows), []
        if told["patches"]:  # drawn
            seeds = [derive_seed(derive_seed(seed, "predict", Path(path).name), t) for t in range(samples)]
            draws = [draw(rows["log_prob"][0].ravel(), told["patches"], told["method"], one) for one in seeds]
            rows["index"], rows["threshold"] = (np.stack(one)[None] for one in zip(*draws))
            index, columns = rows["index"].ravel(), rows["log_prob"].shape[2]
        else:  # all
            columns = -(-size[1] // told["stride"][1])
            index = np.arange(-(-size[0] // told["stride"][0]) * columns)
            rows["read"] = np.ones((1, len(index)), bool)
        cells = np.divmod(index, columns)
        boxes = list(zip(*(corner(cell, axis, view, size, told) for axis, cell in enumerate(cells))))
        parts = [boxes[at : at + 64] for at in range(0, len(boxes), 64)]  # as many as fit into memory
        found = [self.run("patch", patches=cut(rounded, part, told["patch"]))["features"] for part in parts]
        rows["features"] = np.concatenate(found).reshape(*rows.get("index", index[None]).shape, -1)
        return self.answer(rows | self.run("head", **rows)), boxes

    def answer(self, rows):
        return dict(zip(self.told["classes"], rows["probabilities"][0].tolist()))


def shrunk(size, longest_side=None, scale=None):
    """(rows, columns) of a view, rounded half up, never larger than the image."""
    ratio = min(Fraction(str(scale)) if scale else Fraction(longest_side, max(size)), Fraction(1))
    return tuple(max(1, (2 * side * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)) for side in size)


def shrink(pixels, size):
    """Exact area average: every cell the mean of the pixels in it, those at its border by their share."""
    for axis, cells in enumerate(size):
        pixels = np.moveaxis(pixels, axis, 0)
        sums = np.concatenate([np.zeros_like(pixels[:1]), np.cumsum(pixels, 0)])
        edges = np.arange(cells + 1) * len(pixels) / cells
        whole = np.minimum(edges.astype(int), len(pixels) - 1)
        upto = sums[whole] + pixels[whole] * (edges - whole).reshape(-1, *[1] * (pixels.ndim - 1))
        pixels = np.moveaxis(np.diff(upto, axis=0) * (cells / len(pixels)), 0, axis)
    return pixels


def derive_seed(*parts):
    """Seed of 63 bits of numbers and words: BLAKE2b of each one's kind, length and text."""
    pieces = [(b"i" if isinstance(one, int) else b"s", str(one).encode(errors="surrogateescape")) for one in parts]
    joined = b"".join(kind + len(text).to_bytes(8, "big") + text for kind, text in pieces)
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big") >> 1


def uniform(seed, count):
    """Numbers in [0, 1) as `torch.rand(count, dtype=torch.float64)` of a CPU generator with this seed: MT19937."""
    words = np.random.RandomState(seed & 0xFFFFFFFF).randint(0, 2**32, (count, 2), np.uint32).astype(np.uint64)
    return ((words[:, 0] << np.uint64(32) | words[:, 1]) & np.uint64(2**53 - 1)) * 2.0**-53


def draw(log_prob, n, method, seed):
    """Cells drawn, in order, from log attention (cells,), and the key that comes after theirs."""
    there = np.flatnonzero(log_prob > -np.inf)
    own = np.zeros(len(there)) if method == "uniform" else log_prob[there].astype(np.float64)
    if method == "iid":
        mass = np.cumsum(np.exp(own))
        order = np.searchsorted(mass, uniform(seed, n) * mass[-1], side="right").clip(max=len(there) - 1)
        return there[order], 0.0
    keys = own  # the n largest: with Gumbel noise a sample without replacement, without it the most attended
    if method != "top":
        keys = own - np.log(np.exp(own).sum()) - np.log(-np.log1p(-np.maximum(uniform(seed, len(there)), 2.0**-54)))
    order = np.argsort(-keys, kind="stable")
    chosen = there[order[:n]]
    return np.append(chosen, chosen[:1].repeat(n - len(chosen))), keys[order[n]] if len(there) > n else -np.inf


def corner(cell, axis, view, size, told):
    """First pixel of the patch that is centred on a cell, along one axis."""
    stride, positions = told["stride"][axis], view[axis] - told["field"] + 1
    start = np.minimum(cell, (positions - 1) // stride) * stride
    twice = start + np.minimum(start + stride, positions) + told["field"] - 1
    return (twice * size[axis] + view[axis] * (1 - told["patch"][axis])) // (2 * view[axis])


def cut(pixels, corners, patch):
    """Patches (number, channels, height, width), 0 outside the image."""
    patches = np.zeros((len(corners), *patch, pixels.shape[2]), np.float32)
    for target, (top, left) in zip(patches, corners):
        part = pixels[max(top, 0) : max(top + patch[0], 0), max(left, 0) : max(left + patch[1], 0)]
        target[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]] = part
    return patches.transpose(0, 3, 1, 2)


if __name__ == "__main__":
    model = Exported(sys.argv[1])
    for path in sys.argv[2:]:
        probabilities, _ = model.predict(path)
        print(path, *(f"{name} {value:.4f}" for name, value in probabilities.items()))

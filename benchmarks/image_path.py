"""Files of foveate that an image enters on its way, in training and in a prediction.

A file counts if one of its functions runs: in training while the data set is opened, while a batch is made and
while a step is taken, not what a run does around that (its model, its folder, its state, its progress); in a
prediction from the words on the command line to the CSV file, but for the loading of the model. The image is a
tiled TIFF with a pyramid, flipped at random in training.

    python benchmarks/image_path.py [--json]
"""

import argparse
import contextlib
import inspect
import io
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import foveate

SOURCE = str(Path(foveate.__file__).parent) + "/"
TRAINING = {"datasets/open.py": "open_dataset", "pipeline/loader.py": None, "training/step.py": None}
"""Where an image's way in training is followed: from these files (from that function, where one is named) downwards."""
ASIDE = {"load_model", "build_for"}
"""What is not on an image's way, with all that it calls."""


def main() -> None:
    """Print both ways, a file a line in the order entered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    ways = image_paths()
    if arguments.json:
        print(json.dumps(ways))
        return
    for name, files in ways.items():
        print(f"{name}: {len(files)} files\n  " + "\n  ".join(files))


def image_paths() -> dict[str, list[str]]:
    """The files entered, in order, by a training image and by a prediction."""
    import scipy.stats  # noqa: F401  # imports are not on the way, and take thrice as long when they are followed
    import sklearn.metrics  # noqa: F401
    import torch._dynamo
    import torch.distributed.tensor  # noqa: F401

    import foveate.cli.predict
    import foveate.training.loop  # noqa: F401
    from foveate.__main__ import main as run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, image = _images(folder)
        out = str(folder / "run")
        words = ["train", "smoke", "--data", str(manifest), "--out", out, "--augment.flip", "true"]
        with _followed(TRAINING) as training, contextlib.redirect_stdout(io.StringIO()):
            _succeed(run([*words, "--training.max_steps", "1"]))
        with _followed(None) as prediction, contextlib.redirect_stdout(io.StringIO()):
            _succeed(run(["predict", out, str(image), "--out", str(folder / "predictions.csv")]))
    return {"training": training, "prediction": prediction}


def _succeed(code: int) -> None:
    if code != 0:
        raise SystemExit(code)


def _images(folder: Path) -> tuple[Path, Path]:
    """A manifest of a few tiled TIFF files of noise, and one of them."""
    import numpy as np
    import tifffile

    generator = np.random.default_rng(0)
    rows = ["path,label"]
    for i in range(8):
        pixels = generator.integers(0, 255, (640, 768, 3), np.uint8)
        with tifffile.TiffWriter(folder / f"{i}.tif") as file:
            file.write(pixels, tile=(256, 256), photometric="rgb", compression="deflate", subifds=1)
            file.write(pixels[::2, ::2], tile=(256, 256), photometric="rgb", compression="deflate", subfiletype=1)
        rows.append(f"{i}.tif,{'ab'[i % 2]}")
    manifest = folder / "images.csv"
    manifest.write_text("\n".join(rows))
    return manifest, folder / "0.tif"


@contextlib.contextmanager
def _followed(starts: dict[str, str | None] | None) -> Iterator[list[str]]:
    """The files whose functions run below one of `starts` (everywhere if None), in this thread and in new ones."""
    files: dict[str, None] = {}
    known: dict[str, str | None] = {}
    depth = aside = 0
    ours = threading.get_ident()

    def is_start(file: str, function: str) -> bool:
        return starts is not None and file in starts and starts[file] in (None, function)

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal depth, aside
        if event not in ("call", "return"):
            return
        code = frame.f_code
        name = code.co_filename
        try:
            file = known[name]
        except KeyError:
            file = known[name] = name.removeprefix(SOURCE) if name.startswith(SOURCE) else None
        if file is None or not code.co_flags & inspect.CO_OPTIMIZED:  # bodies of modules and classes are no functions
            return
        if threading.get_ident() == ours and is_start(file, code.co_name):
            depth += 1 if event == "call" else -1
        if threading.get_ident() == ours and code.co_name in ASIDE:
            aside += 1 if event == "call" else -1
        if event == "call" and not aside and (depth > 0 or starts is None):
            files.setdefault(file)

    found: list[str] = []
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        found += files


if __name__ == "__main__":
    main()

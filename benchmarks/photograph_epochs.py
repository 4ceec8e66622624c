"""Seconds of an epoch on photographs: the first, which decodes them, and those after it, which do not.

`foveate train` with the preset `manifest`, as it comes, on a folder of JPEG files of 2,000 × 1,500 pixels; seconds of
the training steps of each epoch, validation not counted. `--source` names the `src` folder of another version to run.

    python benchmarks/photograph_epochs.py [--images 200] [--epochs 3] [--cache disk] [--data FOLDER] [--source SRC]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from photographs import write_photographs


def main() -> None:
    """Make photographs, train, and print a line an epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--cache", help="off, memory or disk (default: the preset's)")
    parser.add_argument("--data", type=Path, help="folder for the photographs, written if it is not there")
    parser.add_argument("--source", help="src folder of another version")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder) / "photographs"
        if not data.exists():
            write_photographs(data, arguments.images)
        run = Path(folder) / "run"
        words = ["train", "manifest", "--data", str(data), "--out", str(run)]
        words += [f"--training.epochs={arguments.epochs}", f"--training.validate_every={arguments.epochs}"]
        words += ["--training.watch=0"] + ([f"--data.cache={arguments.cache}"] if arguments.cache else [])
        environment = {**os.environ, "FOVEATE_CACHE": str(Path(folder) / "cache")}
        if arguments.source:
            environment["PYTHONPATH"] = arguments.source
        done = subprocess.run(
            [sys.executable, "-m", "foveate", *words], env=environment, check=True, text=True, stdout=subprocess.PIPE
        )
        print(done.stdout.splitlines()[-1])
        for line in (run / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["kind"] == "epoch":
                stages = ", ".join(f"{name} {spent:.1f}" for name, spent in record["receipt"]["seconds"].items())
                print(f"epoch {record['epoch']}: {record['training_seconds']:.1f} s of training steps ({stages})")


if __name__ == "__main__":
    main()

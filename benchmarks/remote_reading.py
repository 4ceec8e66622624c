"""A prediction from an image of a gigapixel behind HTTP on this machine, against the same file read from the disk.

The file is a pyramid of JPEG tiles, every one stored by itself, so that its length is that of a real one. The model is
the preset `smoke`'s (ATS-10), untrained; local and remote take their turn, and open the image anew for every seed.

    python benchmarks/remote_reading.py [--side 31744] [--repeats 5] [--file slide.tif]
"""

import argparse
import mmap
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from foveate.config.files import preset
from foveate.images import open_image
from foveate.models import Model, build_model
from foveate.models.types import Prediction

BAR = 0.02
"""Share of the file that may be transferred."""


def main() -> None:
    """Write the file, serve it, predict in turns, print a line a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=31_744, help="height and width: 31,744 make a gigapixel")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--file", type=Path, help="a file to read instead of one made for it")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from giants import levels_of, write_stored

    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    model = build_model(preset("smoke").model, ("a", "b"), channels=3).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or write_stored(
            Path(folder) / "stored.tif", arguments.side, levels=levels_of(arguments.side)
        )
        _compare(model, path, arguments.repeats)


def _compare(model: Model, path: Path, repeats: int) -> None:
    from servers import FileServer

    height, width = open_image(path).size
    length = path.stat().st_size
    print(f"{height}×{width}, {height * width / 1e6:.0f} megapixels, {length / 1e6:.0f} MB")
    print("seed | KB read: local, remote | KB sent | requests | of the file, % | ms: local, remote | equal")
    shares, seconds, equal = [], [], []
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        FileServer({path.name: content}) as server,
    ):
        for seed in range(repeats):
            server.forget()
            local, local_bytes, local_seconds = _predicted(model, str(path), seed)
            remote, remote_bytes, remote_seconds = _predicted(model, server.address(path.name), seed)
            same = (local.probabilities, local.boxes) == (remote.probabilities, remote.boxes)
            shares.append(server.sent / length)
            seconds.append((local_seconds, remote_seconds))
            equal.append(same)
            print(
                f"{seed:4} | {local_bytes / 1e3:.0f}, {remote_bytes / 1e3:.0f} | {server.sent / 1e3:.0f} "
                f"| {len(server.requests)} | {100 * shares[-1]:.3f} "
                f"| {1e3 * local_seconds:.0f}, {1e3 * remote_seconds:.0f} | {'yes' if same else 'NO'}"
            )
    local_ms, remote_ms = (1e3 * statistics.median(some) for some in zip(*seconds, strict=True))
    kept = "ok" if max(shares) < BAR and all(equal) else "NOT as promised"
    print(
        f"at most {100 * max(shares):.3f} % of the file, bar {100 * BAR:.0f} %; {sum(equal)} of {repeats} equal: {kept}"
    )
    print(f"median {local_ms:.0f} ms local, {remote_ms:.0f} ms remote")


def _predicted(model: Model, name: str, seed: int) -> tuple[Prediction, int, float]:
    """What is predicted, bytes read with those of the header, and seconds, opening included."""
    start = time.perf_counter()
    source = open_image(name)
    prediction = model.predict(source, seed=seed)
    seconds = time.perf_counter() - start
    source.close()
    return prediction, source.bytes_read, seconds


if __name__ == "__main__":
    main()

"""Memory and open files over a training epoch of pyramids of 20,000×20,000 pixels.

ATS-10 (preset `smoke`) in batches of eight. Every image is a file of its own, of JPEG tiles whose tables point to the
same few again and again, so that it is some hundred kilobytes on disk; what is read, decoded and held is what a real
one would take. Resident memory goes up and down with what the C library keeps of memory that the networks have let go
of; what is in use does not: it is measured when the library has been told to give that back.

    python benchmarks/epoch_memory.py [--files 200] [--threads 2]
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

BAR = 0.05
"""Share by which memory may grow from step 10 to the end."""


def main() -> None:
    """Train an epoch and say what it held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--threads", type=int, help="threads that read (default: one a core)")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from epochs import SETTLED, watched_epoch, write_pyramids

    if arguments.files <= 8 * SETTLED:
        parser.error(f"--files must be above {8 * SETTLED}: memory is compared with that at step {SETTLED}")
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_pyramids(Path(folder) / "images", arguments.files)
        each = (manifest.parent / "0.tif").stat().st_size
        print(f"{arguments.files} files of 20,224×20,224, {each / 1e3:.0f} KB each")
        found = watched_epoch(manifest, Path(folder) / "run", arguments.threads)
    held, (early, late) = found.resident, found.used
    print(
        f"resident: {held[SETTLED - 1] / 1e6:.0f} MB at step {SETTLED}, {held[-1] / 1e6:.0f} MB at the end; "
        f"at most {max(held[:SETTLED]) / 1e6:.0f} MB until step {SETTLED}, {max(held) / 1e6:.0f} MB in all"
    )
    print(
        f"in use: {early / 1e6:.0f} MB at step {SETTLED}, {late / 1e6:.0f} MB at the end: growth "
        f"{100 * found.growth:+.1f} %, {'ok' if found.growth < BAR else f'above {100 * BAR:.0f} %'}"
    )
    print(f"open files: {found.before} before, {max(found.files)} at most, {found.after} after")
    seconds = [stop - start for start, stop in zip(found.at, found.at[1:], strict=False)]
    low, middle, high = statistics.quantiles(seconds, n=4)
    print(f"{len(seconds)} steps, {middle:.2f} s a step, median (quartiles {low:.2f}–{high:.2f})")
    print(f"{found.bytes_read / 1e6:.1f} MB read")


if __name__ == "__main__":
    main()

"""What the eyes of the preset manifest cost by torch and by onnxruntime: cells of the same views, the two in turn.

Seconds of CPU per view, of one thread, and the ratio of each pair; the largest difference of the cells, in half
precision as they are kept; and what making the graph takes, which happens once per machine.

    python benchmarks/frozen_backbone.py [--rounds 7] [--view 768x1024]
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from unittest.mock import patch

import torch

from foveate.config.files import preset
from foveate.devices import keep_freed_memory
from foveate.models import Model, build_model


def main() -> None:
    """Measure both in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--view", default="768x1024", help="height x width in pixels")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    height, width = map(int, arguments.view.split("x"))
    view = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    models = {runtime: _model(runtime) for runtime in ("torch", "onnxruntime")}
    with tempfile.TemporaryDirectory() as folder, patch.dict("os.environ", FOVEATE_CACHE=folder):
        begun = time.process_time()
        models["onnxruntime"].cells_of(view)
        print(f"graph made and first view: {time.process_time() - begun:.1f} s of CPU")
        cells = {runtime: model.cells_of(view).float() for runtime, model in models.items()}
        seconds: dict[str, list[float]] = {runtime: [] for runtime in models}
        for _ in range(arguments.rounds):
            for runtime, model in models.items():
                begun = time.process_time()
                model.cells_of(view)
                seconds[runtime].append(time.process_time() - begun)
    for runtime, each in seconds.items():
        print(f"{runtime:11} {statistics.median(each):.3f} s a view ({min(each):.3f}–{max(each):.3f})")
    ratios = [slow / fast for slow, fast in zip(seconds["torch"], seconds["onnxruntime"], strict=True)]
    print(f"torch ÷ onnxruntime: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
    difference = float((cells["torch"] - cells["onnxruntime"]).abs().max() / cells["torch"].abs().max())
    print(f"largest difference of cells: {difference:.1e} of the largest value")


def _model(runtime: str) -> Model:
    settings = preset("manifest").model
    attention = replace(settings.attention, runtime=runtime)  # type: ignore[arg-type]
    return build_model(replace(settings, name="evidence", attention=attention), ("yes", "no"), channels=3).eval()


if __name__ == "__main__":
    main()

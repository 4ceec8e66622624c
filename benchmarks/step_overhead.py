"""What a training step of ATS-10 costs beyond its networks, on 1500×1500 Megapixel MNIST with the paper's networks.

Whole steps, some of an epoch, the wait for the first batch included: open canvases, make views, attention, draw, read
patches, features, expectation, loss, backward, Adam.
Networks alone: the same attention and feature networks, loss, backward and Adam, fed views and patches cut beforehand.
The two alternate within one run; the ratio of their medians is printed, with the quartiles of the paired ratios.

    python benchmarks/step_overhead.py [--rounds 20] [--images 32] [--steps 3] [--digits bundled]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the command line does

import argparse
import platform
import statistics
import time
from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from foveate.config.files import preset
from foveate.config.settings import DataSettings
from foveate.datasets import open_dataset
from foveate.images.tensors import gather
from foveate.models import Model, build_model
from foveate.models.types import Batch
from foveate.pipeline.loader import Loader, shares, split_indices
from foveate.training.objective import TermWeights, image_losses

ENTROPY = 1e-4
"""Weight of the attention's entropy, as in the preset."""


def main() -> None:
    """Time both sides in turn and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3, help="of a round; views of the next are made ahead")
    parser.add_argument("--digits", default="bundled")
    arguments = parser.parse_args()
    settings = preset("megapixel-mnist-paper")
    data = DataSettings(source="megapixel-mnist", digits=arguments.digits, train_images=400, test_images=10)
    dataset = open_dataset(data, seed=0)
    model_settings = replace(settings.model, patches=10)
    model = build_model(model_settings, dataset.classes, channels=1, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = Loader(dataset, model.view, seed=0)
    plan = shares(split_indices(dataset, "train"), arguments.images)[: arguments.steps]
    cut = []
    for batch in loader.training(1, plan):
        output = model(batch)
        assert output.boxes is not None
        cut.append((batch, gather(batch.sources, output.boxes)))
    whole, alone = [], []
    for round_number in range(arguments.rounds + 2):
        first = _time(lambda: [_whole_step(model, optimizer, batch) for batch in loader.training(1, plan)])
        second = _time(lambda: [_networks_step(model, optimizer, *one) for one in cut])
        if round_number >= 2:
            whole.append(first / len(plan))
            alone.append(second / len(plan))
    ratios = sorted(one / other for one, other in zip(whole, alone, strict=True))
    quarter = len(ratios) // 4
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"batch of {arguments.images}, {arguments.rounds} rounds, alternating, paper networks, 1500×1500 canvases")
    print(f"whole step      {1e3 * statistics.median(whole) / arguments.images:7.2f} ms/image (median)")
    print(f"networks alone  {1e3 * statistics.median(alone) / arguments.images:7.2f} ms/image (median)")
    spread = f"quartiles {ratios[quarter]:.3f}–{ratios[-quarter - 1]:.3f}"
    print(f"ratio           {statistics.median(ratios):7.3f} ({spread})")


def _whole_step(model: Model, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    assert batch.labels is not None
    losses, _ = image_losses(model(batch), batch.labels, TermWeights(entropy=ENTROPY))
    _descend(model, optimizer, losses.mean())


def _networks_step(model: Model, optimizer: torch.optim.Optimizer, batch: Batch, patches: torch.Tensor) -> None:
    attention: nn.Module = model.attention
    scores = attention(batch.views.contiguous(memory_format=torch.channels_last)).flatten(1)
    features = model.features(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
    mean = (scores[:, : patches.shape[1]].softmax(1)[:, :, None] * features).sum(1)
    _descend(model, optimizer, cross_entropy(model.head(mean), batch.labels))


def _descend(model: Model, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _time(work) -> float:  # noqa: ANN001
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

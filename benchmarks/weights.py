"""What the murthy weights cost for a batch of 32 images with 100 drawn cells each: `python benchmarks/weights.py`."""

import statistics
import time

import torch

from foveate.sampling import draw
from foveate.sampling.weights import murthy_log_weights, thresholds

LIMIT_MS = 5.0


def main() -> None:
    torch.set_num_threads(2)
    print("logits    weights: median of 200 (ms)   fastest   whole draw of 32×10,000 cells (ms)")
    for name, scale in (("flat", 0.0), ("random", 2.0), ("peaked", 30.0)):
        generator = torch.Generator().manual_seed(0)
        log_prob = (scale * torch.randn(32, 10_000, generator=generator)).log_softmax(1)
        drawn = draw(log_prob, 100, generator=generator)
        weights = _milliseconds(
            lambda d=drawn: murthy_log_weights(thresholds(d.log_proposal, d.log_rest, d.valid)), 200
        )
        whole = _milliseconds(lambda p=log_prob, g=generator: draw(p, 100, generator=g), 30)
        median = statistics.median(weights)
        verdict = "ok" if median < LIMIT_MS else f"above {LIMIT_MS} ms"
        print(f"{name:8}  {median:27.2f}   {min(weights):7.2f}   {statistics.median(whole):10.1f}   {verdict}")


def _milliseconds(call: object, repeats: int) -> list[float]:
    assert callable(call)
    for _ in range(5):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


if __name__ == "__main__":
    main()

"""What one large image took is given back when it has been predicted, though freed memory is kept for small ones."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import gc, sys
import psutil
from foveate.config.settings import ModelSettings, ViewSettings
from foveate.devices import keep_freed_memory
from foveate.models import build_model
from foveate.predict import predict_paths

def resident():
    gc.collect()
    return psutil.Process().memory_info().rss

keep_freed_memory()
settings = ModelSettings(view=ViewSettings(longest_side=64), patch=(50, 40), patches=3)
model = build_model(settings, ("a", "b"), channels=3, seed=0).eval()
small, large = sys.argv[1:]
for _ in range(3):
    list(predict_paths(model, [small, small, small]))
before = resident()
list(predict_paths(model, [large, small]))
print(before, resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a C library gives back is tested with glibc")
def test_memory_of_a_large_image_is_given_back(tmp_path: Path) -> None:
    paths = []
    for name, size in (("small", (300, 400)), ("large", (5000, 7000))):
        paths.append(str(tmp_path / f"{name}.jpg"))
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(paths[-1])
    command = [sys.executable, "-c", SCRIPT, *paths]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    before, after = map(int, done.stdout.split())
    assert after - before < 0.25 * 5000 * 7000 * 3, "of the 105 MB that it has decoded"

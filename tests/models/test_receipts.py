"""Counts that can be believed: a share is within 0 and 100 %, and no part is more than its whole."""

import re
from itertools import product

import numpy as np
import pytest
import tifffile

from foveate.compare.cost import pixels_read_share
from foveate.config.settings import FeatureSettings, ModelSettings, ViewSettings
from foveate.images import ArraySource, open_image
from foveate.models import build_model, make_batch
from foveate.models.receipts import receipt_line
from foveate.models.types import Receipt
from foveate.predict import forecast

PARTS = re.compile(r"([0-9.,e+-]+) of ([0-9.,e+-]+)")
SHARE = re.compile(r"([0-9.e+-]+) %")


def check_line(line: str) -> None:
    for part, whole in PARTS.findall(line):
        assert float(part.replace(",", "")) <= float(whole.replace(",", "")), line
    for share in SHARE.findall(line):
        assert 0 <= float(share) <= 100, line


@pytest.mark.parametrize("seed", range(20))
def test_no_receipt_says_that_a_part_is_more_than_its_whole(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = [int(10 ** random.uniform(0, 8)) for _ in range(4)]
    for patches, whole, read, of in product(counts[:2], [None, *counts[1:3]], counts[1:], [None, 0, *counts]):
        line = receipt_line(Receipt(patches, whole, read, of, {"read": 0.1}, None))
        check_line(line)
        if whole:
            assert f"{patches:,}" in line
            assert f"{whole:,}" in line


@pytest.mark.parametrize(
    ("view", "patches", "pyramid"),
    [(v, n, p) for v, n, p in product((8, 30, 60, 120), (1, 5, 200), (True, False))],
)
def test_no_forecast_reads_more_than_there_is(view: int, patches: int, pyramid: bool, tmp_path: object) -> None:
    file = f"{tmp_path}/a.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    with tifffile.TiffWriter(file) as writer:
        writer.write(pixels, tile=(32, 48), photometric="rgb", subifds=1 if pyramid else 0)
        if pyramid:
            writer.write(pixels[::2, ::2], tile=(32, 48), photometric="rgb", subfiletype=1)
    settings = ModelSettings(
        view=ViewSettings(longest_side=view), patch=(29, 24), patches=patches, features=FeatureSettings(width=8)
    )
    model = build_model(settings, ("a", "b"), channels=3)
    source = open_image(file)
    told = forecast(model, source)
    assert 0 <= told["tiles"] <= told["tiles_of"]
    assert source.file_bytes is not None
    assert 0 <= told["bytes"] <= source.file_bytes


@pytest.mark.parametrize("patches", [1, 40])
def test_no_share_of_pixels_is_above_one(patches: int) -> None:
    settings = ModelSettings(
        view=ViewSettings(longest_side=40), patch=(29, 24), patches=patches, features=FeatureSettings(width=8)
    )
    model = build_model(settings, ("a", "b"), channels=3)
    batch = make_batch([ArraySource(np.zeros((50, 70, 3), np.uint8))], model.view, seeds=[0])
    share = pixels_read_share(model, batch)
    assert share == 1 if patches == 40 else 0 < share < 1

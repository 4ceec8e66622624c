"""A prediction from a file elsewhere is the one from the file here, and fetches next to nothing."""

import mmap
from pathlib import Path

import pytest
from giants import levels_of, write_stored
from servers import FileServer

from foveate.config.files import preset
from foveate.images import open_image
from foveate.images.io.remote import AHEAD
from foveate.models import build_model

pytest.importorskip("aiohttp")

SIDE = 31_744
"""A gigapixel in tiles of 256×256."""


@pytest.mark.slow
def test_a_gigapixel_elsewhere_is_predicted_from_two_percent_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    path = write_stored(tmp_path / "stored.tif", SIDE, levels=levels_of(SIDE))
    length = path.stat().st_size
    assert length > 400e6, "tiles are stored more than once: the share of such a file would say nothing"
    model = build_model(preset("smoke").model, ("a", "b"), channels=3).eval()
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        FileServer({path.name: content}) as server,
    ):
        for seed in range(3):
            server.forget()
            source = open_image(server.address(path.name))
            assert source.size == (SIDE, SIDE)
            remote, local = model.predict(source, seed=seed), model.predict(path, seed=seed)
            assert remote.probabilities == local.probabilities
            assert remote.boxes == local.boxes
            assert len(set(local.boxes)) == 10
            assert server.sent < 0.02 * length
            assert server.sent - source.bytes_read <= AHEAD  # to see what kind of file it is
            source.close()
    path.unlink()

"""Folders behind addresses, of which files are read whole or in part."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from servers import FileServer

from foveate.errors import ImageError
from foveate.images.io import network
from foveate.images.io.folder import RemoteFolder

pytest.importorskip("aiohttp")

CONTENT = np.random.default_rng(3).integers(0, 256, 70_001, np.uint8).tobytes()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(network, "WAITS", (0.01,))
    with FileServer({"f/a b/c": CONTENT, "f/empty": b""}) as running:
        yield running


@pytest.mark.parametrize(
    "part",
    [slice(0, 7), slice(60_000, 99_000), slice(500, None), slice(-9, None), slice(-99_000, None), slice(70_001, None)],
)
def test_parts_are_those_of_a_sequence(part: slice, server: FileServer) -> None:
    counted: list[int] = []
    folder = RemoteFolder(server.address("f/"), counted.append)
    for _ in range(2):
        assert asyncio.run(folder.get("a b/c", part)) == CONTENT[part]
    assert sum(counted) == server.sent
    assert asyncio.run(folder.get("a b/c")) == CONTENT
    assert asyncio.run(folder.get("empty")) == asyncio.run(folder.get("empty", part)) == b""
    assert asyncio.run(folder.get("none")) is asyncio.run(folder.get("none", part)) is None


def test_a_query_follows_the_path_of_every_file(server: FileServer) -> None:
    folder = RemoteFolder(server.address("f?key=ab&more=1"), lambda _: None)
    assert asyncio.run(folder.get("empty")) == b""
    assert [path for _, path, _ in server.requests] == ["f/empty?key=ab&more=1"]


def test_more_than_a_file_may_be_is_refused(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.images.io.folder.LARGEST", 50_000)
    with pytest.raises(ImageError, match=r"f/a b/c: the server sends more than it is asked for: copy the file to this"):
        asyncio.run(RemoteFolder(server.address("f"), lambda _: None).get("a b/c"))

"""What every test has: no network, no windows, and a seeded generator on request."""

import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def generator() -> torch.Generator:
    """A generator that is the same in every run of a test."""
    return torch.Generator().manual_seed(20190612)


@pytest.fixture(autouse=True, scope="session")
def _no_users_cache() -> Iterator[None]:
    """Keep away from the user's cache folder, also in fixtures that several tests share, and in what they start."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("FOVEATE_CACHE", folder)
        yield


@pytest.fixture(autouse=True)
def _own_cache(_no_users_cache: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache folder of the test's own: no test finds what another made."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("FOVEATE_CACHE", folder)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Refuse connections that leave this machine."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("localhost", "127.0.0.1", "::1", "0.0.0.0", socket.gethostname()):
            raise AssertionError(f"a test wants to connect to {address}: tests make their own data")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield

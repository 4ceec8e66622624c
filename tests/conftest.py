"""What every test has: no network, no windows, and a seeded generator on request."""

import os
import socket
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

os.environ.setdefault("MPLBACKEND", "Agg")

SHAPES = {"sampling": 1, "networks": 1, "images": 3, "models": 3}
"""Rooms whose functions state shapes, and which part of their tests executes them: all, or one in three."""
ELSEWHERE = 8
"""Of the tests of other rooms one in so many does: of a training's time, shapes take half."""


def executes_shapes(item: pytest.Item) -> bool:
    """Whether the shapes in signatures are checked while a test runs: the same in every run, whatever else runs."""
    tests = Path(__file__).parent
    if not item.path.is_relative_to(tests) or item.get_closest_marker("slow") is not None:
        return True
    one_in = SHAPES.get(item.path.relative_to(tests).parts[0], ELSEWHERE)
    return zlib.crc32(item.nodeid.encode()) % one_in == 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the slow tests all variants of a test but `one_in(n)`: at least one, the same in every run.

    What takes longest goes first, so that no process waits for it at the end.
    """
    items.sort(key=lambda item: item.path.name != "test_types.py")
    variants: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("one_in") is not None:
            variants.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for several in variants.values():
        (one_in,) = next(iter(several[0].iter_markers("one_in"))).args
        by_name = sorted(several, key=lambda item: zlib.crc32(item.nodeid.encode()))
        for item in by_name[-(-len(several) // one_in) :]:
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Switch shapes on or off for a test and what it sets up."""
    jaxtyping.config.update("jaxtyping_disable", not executes_shapes(item))
    try:
        return (yield)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


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

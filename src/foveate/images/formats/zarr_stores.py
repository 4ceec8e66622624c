"""Zarr stores, which tell how many bytes are read of them, and what was looked for and is not there."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from foveate.images.formats.library import library
from foveate.images.io.folder import RemoteFolder
from foveate.images.io.open import check_scheme

Count = Callable[[int], None]
"""Called with the number of bytes of every reading, from another thread."""

Miss = Callable[[str], None]
"""Called with the key of what was looked for and is not there, likewise."""


def local_store(name: str, count: Count, miss: Miss) -> Any:
    """Store of a folder on this machine."""
    zarr = library("zarr", name)

    class Counting(zarr.storage.WrapperStore):  # type: ignore[misc]
        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            data = await self._store.get(key, prototype, byte_range)
            if data is None:
                miss(key)
            else:
                count(len(data))
            return data

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
            data = await self._store.get_partial_values(prototype, key_ranges)
            count(sum(len(part) for part in data if part is not None))
            return data

    return Counting(zarr.storage.LocalStore(name, read_only=True))


def remote_store(name: str, count: Count, miss: Miss) -> Any:
    """Store behind an address, read as files are: by the same rules for servers that dawdle, break off or refuse.

    Zarr's own, by fsspec, waits for as long as a byte comes now and then, and does not ask again.
    """
    check_scheme(name)
    abc, folder = library("zarr.abc.store", name), RemoteFolder(name, count)

    class Remote(abc.Store):  # type: ignore[misc]
        supports_writes = supports_deletes = supports_partial_writes = supports_listing = False

        def __eq__(self, other: object) -> bool:
            return self is other

        __hash__ = abc.Store.__hash__

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            part = None
            if isinstance(byte_range, abc.RangeByteRequest):
                part = slice(byte_range.start, byte_range.end)
            elif isinstance(byte_range, abc.OffsetByteRequest):
                part = slice(byte_range.offset, None)
            elif byte_range is not None:
                part = slice(-byte_range.suffix, None)
            data = await folder.get(key, part)
            if data is None:
                miss(key)
                return None
            return prototype.buffer.from_bytes(data)

        async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
            return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

        async def exists(self, key: str) -> bool:
            return await folder.get(key) is not None

        async def _none(self, *_: Any, **__: Any) -> None:
            raise NotImplementedError("an address is read, and neither written nor listed")

        set = delete = set_partial_values = list = list_prefix = list_dir = _none

    return Remote(read_only=True)

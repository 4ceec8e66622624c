"""Remote folder: its files by their paths in it, each asked for whole or in part, as from a store of objects."""

import asyncio
from collections.abc import Callable

from foveate.images.io.network import LARGEST, TOGETHER, NoSuchFile, Resource, Span, asked_at


class RemoteFolder:
    """Remote folder behind https://, http:// or s3://, of which only the files that are asked for are transferred.

    A server keeps files, and need not know of folders: what is in one cannot be listed. Files that are asked for whole
    may come from a server that sends no parts. Of a file that is asked for in parts it is remembered how long it is,
    and that it is the same one. Lasts as long as a process: a fork makes its own.

    Arguments:
        address: of the folder; a query (?…) stays behind the path of every file.
        count: called with the number of bytes, as they are transferred, from another thread.
    """

    def __init__(self, address: str, count: Callable[[int], None]) -> None:
        base, mark, query = address.partition("?")
        self.name = address
        self._base, self._query = base.rstrip("/"), mark + query
        self._count = count
        self._known: dict[str, Resource] = {}
        self._limit = asyncio.Semaphore(TOGETHER)

    async def get(self, path: str, part: slice | None = None) -> bytes | None:
        """A file, or a part of one, awaited in any loop.

        Arguments:
            path: of the file in this folder, with slashes.
            part: its bytes as of a sequence, counted from the end where they are negative; None is the whole file.

        Returns:
            The bytes; None if there is no such file.

        Raises:
            ImageError: it cannot be had, in one line: as of a file that is read in parts, and if a part is asked for
                of another file than before.
        """
        name = f"{self._base}/{path}{self._query}"
        address = await asyncio.to_thread(asked_at, name)  # asks for the region of a bucket, the first time
        from fsspec.asyn import get_loop

        work = self._whole(name, address) if part is None else self._part(path, name, address, part)
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, get_loop()))
        except NoSuchFile:
            return None

    async def _whole(self, name: str, address: str) -> bytes:
        return await self._transfer(Resource(name), address, (0, LARGEST), whole=True)

    async def _part(self, path: str, name: str, address: str, part: slice) -> bytes:
        there = self._known.setdefault(path, Resource(name))
        if there.size is None:
            await self._transfer(there, address, (0, 1))  # not all servers know parts that are counted from the end
        start, stop, _ = part.indices(there.size or 0)
        return await self._transfer(there, address, (start, stop)) if start < stop else b""

    async def _transfer(self, there: Resource, address: str, span: Span, whole: bool = False) -> bytes:
        data = bytearray()
        async with self._limit:
            await there.get(address, span, data, self._count, whole)
        return bytes(data)

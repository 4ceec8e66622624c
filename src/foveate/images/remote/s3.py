"""Parts of objects in S3, or in anything that speaks like it."""

import asyncio
from typing import Any

from foveate.errors import ImageError, one_line
from foveate.images.remote.transport import CHUNK, TIMEOUT, Part, Temporary, Transport, no_ranges, size_of

__all__ = ["S3Transport"]


class S3Transport(Transport):
    """S3 through s3fs: endpoint, region and credentials by the usual variables and files, anonymous without them."""

    def __init__(self) -> None:
        import aiobotocore.session
        import aiohttp  # noqa: F401  named here, should it be what is missing
        from fsspec.asyn import get_loop
        from s3fs import S3FileSystem

        self._make = S3FileSystem
        self._session = aiobotocore.session.AioSession()
        self._loop = get_loop()
        self._system: Any = None
        self._lock = asyncio.Lock()

    @property
    def loop(self) -> Any:
        """The event loop of fsspec."""
        return self._loop

    async def get(self, address: str, start: int, stop: int, part: Part) -> None:
        """Transfer bytes start … stop−1."""
        from botocore.exceptions import BotoCoreError, HTTPClientError

        bucket, _, key = address.partition("://")[2].partition("/")
        if not bucket or not key:
            raise ImageError(f"{address}: an address in S3 is s3://bucket/path: check how it is written")
        wanted = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{stop - 1}"}
        try:
            system = await self._connected()
            answer = await system._call_s3("get_object", **wanted)
            async with answer["Body"] as body:
                size = size_of(answer.get("ContentRange"), start)
                if size is None:
                    body.close()  # else what is left of the object would be waited for
                    raise no_ranges(address)
                part.begins(size, answer.get("ETag", ""))
                while data := await body.read(CHUNK):
                    part.add(data)
        except FileNotFoundError as error:
            raise ImageError(f"{address}: no such object or bucket: check the address") from error
        except PermissionError as error:
            raise ImageError(
                f"{address}: the server refuses it ({one_line(error)}): "
                "check the address and the credentials, e.g. AWS_PROFILE or AWS_ACCESS_KEY_ID"
            ) from error
        except TimeoutError as error:
            raise Temporary("no answer in time") from error
        except HTTPClientError as error:
            raise Temporary(f"the connection failed, {one_line(error)}") from error
        except BotoCoreError as error:
            raise ImageError(f"{address}: cannot be asked for ({one_line(error)}): check the AWS settings") from error
        except Exception as error:
            _judge(address, error, part)

    async def _connected(self) -> Any:
        async with self._lock:
            if self._system is None:
                nobody = await self._session.get_credentials() is None
                self._system = self._make(
                    anon=nobody,
                    skip_instance_cache=True,
                    config_kwargs={
                        "retries": {
                            "total_max_attempts": 1
                        },  # we try again ourselves, and then from where it broke off
                        "connect_timeout": TIMEOUT / 3,
                        "read_timeout": TIMEOUT,
                        "max_pool_connections": 32,
                    },
                )
                self._system.retries = 1
            return self._system


def _judge(address: str, error: Exception, part: Part) -> None:
    """Say of what s3fs raises whether it is the end."""
    import aiohttp

    if isinstance(error, ImageError | Temporary):
        raise error
    told = getattr(error.__cause__ or error, "response", None) or {}
    status = told.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = told.get("Error", {}).get("Code", "")
    if status == 416 or code == "InvalidRange":
        part.begins(int(told.get("Error", {}).get("ActualObjectSize", 0)), "")
        return
    if status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout"):
        raise Temporary(f"the server answers {status} {code}") from error
    if isinstance(error, aiohttp.ClientError | ConnectionError):
        raise Temporary(f"the connection broke off, {one_line(error)}") from error
    raise ImageError(f"{address}: cannot be read ({one_line(error)}): check the address") from error

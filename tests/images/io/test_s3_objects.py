"""Objects in S3, read from a server of our own."""

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyramid_files import sliced, values
from servers import FileServer
from zarr_files import write_zarr

from foveate.errors import ImageError
from foveate.images import open_image
from foveate.images.io import network
from foveate.images.io.open import open_bytes
from foveate.images.io.remote import AHEAD, RemoteFile
from foveate.types import Box

pytest.importorskip("s3fs")

CONTENT = np.random.default_rng(8).integers(0, 256, 300_001, np.uint8).tobytes()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxy stands between a test and its server, nothing is waited for, and settings are read anew."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(network, "WAITS", (0.01, 0.02))
    network._s3.cache_clear()
    yield
    network._s3.cache_clear()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of an S3 of our own, with a bucket that has one object."""
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    ours = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTP_PROXY", "http_proxy"):
            patch.delenv(name, raising=False)
        for name, value in ours.items():
            patch.setenv(name, value)
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3")
        client.create_bucket(Bucket="slides")
        client.put_object(Bucket="slides", Key="of a patient/a.bin", Body=CONTENT, ACL="public-read")
        client.put_object(Bucket="slides", Key="empty", Body=b"")
        client.close()
        yield "s3://slides"
    server.stop()


def test_objects_in_s3(s3: str) -> None:
    file = open_bytes(f"{s3}/of a patient/a.bin")
    counted: list[int] = []
    file.count = counted.append
    assert file.size == len(CONTENT)
    parts = [(0, 10), (len(CONTENT) - 5, 100), (150_000, 30), (150_040, 10), (200_000, 50)]
    assert file.read_many(parts) == [CONTENT[offset : offset + length] for offset, length in parts]
    assert sum(counted) == AHEAD + 5 + 50 + 50
    assert pickle.loads(pickle.dumps(file)).read(40_000, 3) == CONTENT[40_000:40_003]
    assert RemoteFile(f"{s3}/empty").size == 0


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://slides/no.tif", "s3://slides/no.tif: no such object or bucket: check the address"),
        ("s3://no-such-bucket/no.tif", "s3://no-such-bucket/no.tif: no such object or bucket: check the address"),
        ("s3://slides", "s3://slides: an address in S3 is s3://bucket/path: check how it is written"),
    ],
)
def test_missing_objects_are_one_line(address: str, said: str, s3: str) -> None:
    with pytest.raises(ImageError) as caught:
        _ = RemoteFile(address).size
    assert str(caught.value) == said


def test_s3_is_asked_anonymously_where_there_are_no_credentials(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert RemoteFile(f"{s3}/of a patient/a.bin").read(100_000, 9) == CONTENT[100_000:100_009]


def test_s3_is_asked_by_signed_addresses_sent_as_they_are(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer({"slides/a+b (c)&d=ü.bin": CONTENT}) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address("").rstrip("/"))
        file = RemoteFile("s3://slides/a+b (c)&d=ü.bin")
        counted: list[int] = []
        file.count = counted.append
        _ = file.size
        server.drop_after, server.drops = 1000, 1
        assert file.read(100_000, 3000) == CONTENT[100_000:103_000]
        assert sum(counted) == server.sent == AHEAD + 3000
        for _, path, _ in server.requests:
            key, _, signature = path.partition("?")
            assert key == "slides/a%2Bb%20%28c%29%26d%3D%C3%BC.bin"
            assert "X-Amz-Credential=testing%2F" in signature


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "the server refuses it (403 Forbidden): check the address and the credentials, "
              "e.g. AWS_PROFILE or AWS_ACCESS_KEY_ID"),
        (400, "the server answers 400 Bad Request: check the address"),
        (503, "cannot be read (the server answers 503 Service Unavailable; asked 3 times): check the network, "
              "or try again later"),
    ],
)  # fmt: skip
def test_refusals_of_s3_are_one_line(status: int, said: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer({}, status={"slides/a.bin": status}) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address("").rstrip("/"))
        with pytest.raises(ImageError) as caught:
            _ = RemoteFile("s3://slides/a.bin").size
        assert str(caught.value) == f"s3://slides/a.bin: {said}"


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_s3_in_another_process(method: str, s3: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    file = RemoteFile(f"{s3}/of a patient/a.bin")
    assert file.read(60_000, 9) == CONTENT[60_000:60_009]
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(file.read, (70_000, 9)).get(timeout=60) == CONTENT[70_000:70_009]


def test_zarr_in_s3(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zarr")
    array = values((51, 67), seed=4)
    folder = write_zarr(tmp_path / "a.zarr", [array], "cyx")
    client = __import__("boto3").client("s3")
    for file in folder.rglob("*"):
        if file.is_file():
            key, body = file.relative_to(tmp_path).as_posix(), file.read_bytes()
            client.put_object(Bucket="slides", Key=key, Body=body, ACL="public-read")
    client.delete_object(Bucket="slides", Key="a.zarr/0/c/0/0/0")
    client.close()
    array[:32, :24, 0] = 0
    np.testing.assert_array_equal(
        open_image(f"{s3}/a.zarr").read(Box(-2, 0, 60, 67)), sliced(array, Box(-2, 0, 60, 67))
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    network._s3.cache_clear()
    assert open_image(f"{s3}/a.zarr").size == (51, 67)  # anonymously
    with pytest.raises(ImageError, match=r"^s3://slides/b.zarr: no Zarr array or group there: check the path"):
        open_image(f"{s3}/b.zarr")
    with pytest.raises(ImageError, match=r"^s3://no-bucket/b.zarr/zarr.json: no such object or bucket: check the addr"):
        open_image("s3://no-bucket/b.zarr")

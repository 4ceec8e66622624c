"""OpenSeadragon, the deep zoom of the page, lies in the repository as it was published, with its licence."""

import base64
import hashlib
from importlib.resources import files

import pytest

FILES = {
    "openseadragon.min.js": "JpQ9oAv9oa446xKS3oEbeEZThqrTktwlVFA1BCYjxei6ckmjnTLNzXiIX708rmElelb2Y/YzvgdRn3PkgWsJZw==",
    "openseadragon-LICENSE.txt": (
        "xLuRlRV3KwDDBqsqaIFRDMGVlilCvwpMVXGDqeC2Gax8r0eu3ERZm8TzjTrKVc4qvDz5/XU78ozZZFwKuwErtw=="
    ),
}
"""SHA-512 of two files of the npm package openseadragon 6.1.1, package/build/openseadragon/openseadragon.min.js
and package/LICENSE.txt. The package's own, by which its registry publishes it and `npm pack` names it, is
g4iKe2q8B642SaBT3+x4ZF3/8b1TxPPydyjmtrOLgDrlYWMKd9ZXM+1Cb/xa9DVySkvs/7l6HR1nHKfD5F3Tsw==."""


@pytest.mark.parametrize("name", FILES)
def test_it_is_what_was_published(name: str) -> None:
    content = files("foveate.view").joinpath("vendor", name).read_bytes()
    assert base64.b64encode(hashlib.sha512(content).digest()).decode() == FILES[name]


def test_its_licence_is_beside_it() -> None:
    licence = files("foveate.view").joinpath("vendor", "openseadragon-LICENSE.txt").read_text()
    assert "OpenSeadragon contributors" in licence
    assert "Redistribution and use in source and binary forms" in licence

"""Zip archives that were spoilt on the way."""

import struct
from pathlib import Path


def damage(path: Path, how: str) -> None:
    """Spoil the archive at a path: its deflated data, or the flags and methods in its headers."""
    content = bytearray(path.read_bytes())
    if how == "data":
        name_length, extra_length = struct.unpack_from("<HH", content, 26)
        start = 30 + name_length + extra_length
        content[start : start + 10] = b"\xff" * 10
    else:
        for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = content.find(magic)
            while at >= 0:
                content[at + flags + (2 if how == "method" else 0)] = 99 if how == "method" else 1
                at = content.find(magic, at + 4)
    path.write_bytes(content)

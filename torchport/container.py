"""The file format of a compiled kernel: a checked header, JSON metadata, and the object itself."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

from torchport.files import parse_json

__all__ = ["CorruptContainer", "bind", "pack", "unbind", "unpack"]

_MAGIC = b"TPORTOBJ"
_BOUND_MAGIC = b"TPORTKEY"
_VERSION = 1
_HEADER = struct.Struct("<8sII32s")  # magic, version, length of the metadata, checksum of all that follows it


class CorruptContainer(ValueError):
    """The bytes are not an intact container of this version."""


def pack(metadata: dict[str, Any], payload: bytes) -> bytes:
    """Serialize metadata (JSON values) and payload to one string of bytes."""
    text = json.dumps(metadata, sort_keys=True).encode()
    body = text + payload
    return _HEADER.pack(_MAGIC, _VERSION, len(text), _digest(len(text), body)) + body


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Read metadata and payload. Raises CorruptContainer if they are truncated, altered or of another version."""
    if len(data) < _HEADER.size:
        raise CorruptContainer(f"{len(data)} bytes are too few")
    magic, version, length, digest = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise CorruptContainer("not a compiled kernel of this version of torchport")
    body = data[_HEADER.size :]
    if _digest(length, body) != digest:
        raise CorruptContainer("the checksum does not match")
    return parse_json(body[:length], dict[str, Any], "its metadata", CorruptContainer), body[length:]


def bind(data: bytes, key: str) -> bytes:
    """A container whose checksum covers ``key``, too: under another key it is not intact."""
    _, version, length, digest = _HEADER.unpack_from(data)
    return _HEADER.pack(_BOUND_MAGIC, version, length, _with_key(digest, key)) + data[_HEADER.size :]


def unbind(data: bytes, key: str) -> bytes:
    """The container that was bound to ``key``. Raises CorruptContainer if this is not one, or damaged."""
    if len(data) < _HEADER.size:
        raise CorruptContainer(f"{len(data)} bytes are too few")
    magic, version, length, bound = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    digest = _digest(length, body)
    if (magic, version, bound) != (_BOUND_MAGIC, _VERSION, _with_key(digest, key)):
        raise CorruptContainer(f"not an intact kernel of this version of torchport under the key {key}")
    return _HEADER.pack(_MAGIC, version, length, digest) + body


def _with_key(digest: bytes, key: str) -> bytes:
    return hashlib.sha256(digest + key.encode()).digest()


def _digest(length: int, body: bytes) -> bytes:
    return hashlib.sha256(b"%d:" % length + body).digest()

"""Weights in a file in safetensors' format: written in order, read by mapping the file."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from math import prod
from typing import Annotated, Any, TypedDict

import torch

from torchport.archive import ALIGNMENT
from torchport.errors import ArtifactError
from torchport.files import parse_json

__all__ = ["layout", "read", "stream"]

"""Bytes that the first tensor is aligned to, and each that follows one whose size is a multiple."""

_LENGTH = struct.Struct("<Q")
_MOST = 100_000_000  # bytes of a header, safetensors' own limit
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


class _Entry(TypedDict):
    dtype: str
    shape: tuple[Annotated[int, range(2**48)], ...]
    data_offsets: tuple[Annotated[int, range(2**48)], Annotated[int, range(2**48)]]


def layout(tensors: Mapping[str, torch.Tensor]) -> tuple[bytes, list[str]]:
    """The header for contiguous tensors, and the order in which their data follows it.

    Raises ArtifactError for a type that the format has not.
    """
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % ALIGNMENT != 0, -tensors[name].itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise ArtifactError(f"weight {name} is of {tensor.dtype}, which safetensors has not")
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % ALIGNMENT)
    return _LENGTH.pack(len(text)) + text, order


def stream(tensors: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """The bytes of a file with these contiguous tensors, piece by piece."""
    header, order = layout(tensors)
    yield header
    for name in order:
        if tensors[name].numel():
            yield tensors[name].detach().reshape(-1).view(torch.uint8).numpy().data


def read(data: memoryview, where: str) -> dict[str, torch.Tensor]:
    """The tensors of a file that is mapped as ``data``; they share its memory. Raises ArtifactError."""
    if len(data) < _LENGTH.size:
        raise ArtifactError(f"{where} is damaged: {len(data)} bytes are too few")
    (length,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + length
    if length > _MOST or start > len(data):
        raise ArtifactError(f"{where} is damaged: it has no room for a header of {length} bytes")
    text = bytes(data[_LENGTH.size : start])
    found = parse_json(text, dict[str, Any], where)
    found.pop("__metadata__", None)
    entries = parse_json(json.dumps(found), dict[str, _Entry], where)
    return {name: _tensor(data[start:], name, entry, where) for name, entry in entries.items()}


def _tensor(data: memoryview, name: str, entry: _Entry, where: str) -> torch.Tensor:
    dtype, shape, (start, end) = _TYPES.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
    count = prod(shape)
    if dtype is None or end - start != count * dtype.itemsize or not start <= end <= len(data):
        raise ArtifactError(f"{where} is damaged: tensor {name[:80]!r} has not the bytes of its shape")
    if not count:
        return torch.empty(shape, dtype=dtype)
    tensor = torch.frombuffer(data, dtype=dtype, count=count, offset=start).reshape(shape)
    return tensor.clone() if tensor.data_ptr() % dtype.itemsize else tensor  # another program's file may have gaps

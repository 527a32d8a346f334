"""Roundings of a kernel's source that are none of its FX nodes': an upcast that was lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torchport.numerics.graphs.dump import references
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.recorded_call import RecordedCall

__all__ = ["narrowed_to"]

_NARROWING = re.compile(r"(?:arith\.truncf|tt\.fp_to_fp) [^\n]*(?:to|->) (?:tensor<[\dx]*)?(bf16|f16|f8)", re.MULTILINE)
_NAMES = {"bfloat16": "bf16", "float16": "f16"}
_KNOWN = ("aten.", "prims.", "operator.", "_operator.")
"""Operations whose kernels are generated from them, so that each rounding is one of theirs."""


def narrowed_to(call: RecordedCall, launch: Launch) -> tuple[str, ...]:
    """Types of 16 and 8 bits that a kernel rounds to, and that nothing it reads, writes or computes has.

    None for kernels of the user's and for those that are written by hand, which may hold what they like between.
    """
    nodes = [call.nodes[name] for name in launch.nodes if name in call.nodes]
    if not nodes or not all(str(node["target"]).startswith(_KNOWN) for node in nodes):
        return ()
    ttir = str(call.run.kernels.get(str(launch.kernel), {}).get("ttir"))
    found = set(_NARROWING.findall(ttir))
    around = [*nodes, *(call.nodes[name] for node in nodes for name in _operands(node) if name in call.nodes)]
    held = {_type(str(arg.dtype)) for arg in launch.args if arg.dtype is not None}
    held |= {_type(one) for node in around for one in _dtypes(node)}
    return tuple(sorted(found - held))


def _type(name: str) -> str:
    name = name.removeprefix("torch.")
    return "f8" if name.startswith("float8") else _NAMES.get(name, name)


def _operands(node: dict[str, Any]) -> Iterator[str]:
    yield from references(node["args"])
    yield from references(node["kwargs"])


def _dtypes(node: dict[str, Any]) -> Iterator[str]:
    """Of a node's results."""
    results = node["value"] if isinstance(node["value"], list) else [node["value"]]
    yield from (str(one["dtype"]) for one in results if isinstance(one, dict) and "dtype" in one)

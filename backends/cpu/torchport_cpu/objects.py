"""Compiled kernels as bytes: what is checked before code is linked into this process."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torchport.container import CorruptContainer, pack, unpack
from torchport.errors import CompilationError
from torchport_cpu.host import HostInfo, host_info

__all__ = ["ABI", "open_object", "pack_object"]

ABI = 1
"""The version of the calls between kernels and ``torchport.runtime._native`` (docs/cpu-target.md)."""


def pack_object(facts: dict[str, Any], image: bytes, imports: Sequence[str]) -> bytes:
    """A container of an object for this machine. ``facts``: what the compilation noted (``torchport_cpu.stages``)."""
    bound = {"abi": ABI, "triple": host_info().triple, "features": sorted(_features(host_info()))}
    return pack({**facts, **bound, "symbol": facts["name"], "imports": list(imports)}, image)


def open_object(data: bytes, signature: Sequence[str] | None = None) -> tuple[dict[str, Any], bytes]:
    """The facts of a packed object, and the object, if this process can run it.

    ``signature``: Triton's types of the run-time arguments that it will be called with, if they are known.

    Raises CompilationError if the bytes are damaged, or made for another CPU, ABI or signature.
    """
    try:
        facts, image = unpack(data)
    except CorruptContainer as error:
        raise CompilationError(f"a compiled kernel is damaged ({error})", stage="load") from error
    name = facts.get("symbol", "?")
    fault = _fault(facts, signature)
    if fault:
        raise CompilationError(f"kernel {name} {fault}; compile it here", kernel=name, stage="load")
    return facts, image


def _fault(facts: dict[str, Any], signature: Sequence[str] | None) -> str:
    """What in ``facts`` does not fit this process or ``signature``; empty if all does."""
    if facts.get("abi") != ABI:
        return f"was compiled for ABI {facts.get('abi')} of kernels, this torchport has {ABI}"
    here = host_info()
    if facts["triple"] != here.triple:
        return f"was compiled for {facts['triple']}, this machine is {here.triple}"
    missing = sorted(set(facts["features"]) - _features(here))
    if missing:
        return f"was compiled for a CPU with {', '.join(missing)}, which this one has not"
    made_for = [_kind(type_) for type_ in facts["tp_signature"]]
    if signature is not None and made_for != [_kind(type_) for type_ in signature]:
        return f"takes ({', '.join(facts['tp_signature'])}), and would be called with ({', '.join(signature)})"
    return ""


@functools.lru_cache(maxsize=8)
def _features(host: HostInfo) -> frozenset[str]:
    """The features of a CPU that change which instructions it has."""
    enabled = {feature[1:] for feature in host.features.split(",") if feature.startswith("+")}
    return frozenset(feature for feature in enabled if not feature.startswith("prefer-"))


def _kind(type_: str) -> str:
    """A type as far as an argument's slot tells it: TTIR has no unsigned types."""
    if type_.startswith("*"):
        return "*"
    return {"fp32": "f32", "fp64": "f64", "fp16": "f16"}.get(type_, type_.replace("u", "i"))

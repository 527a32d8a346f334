"""Targets ``linalg``, ``linalg:ascend`` and ``linalg:shared``: kernels as linalg, for other compilers.

``linalg`` and ``linalg:shared`` run here, through upstream MLIR, as an oracle of what was written. It is slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torchport_linalg.compiler import LinalgCompiler
from torchport_linalg.profiles import PROFILES, Profile, profile

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.plugin import API_VERSION, Device, Driver
from torchport.target import Target
from torchport_handoff.oracle import OracleDriver

__all__ = ["LinalgPlugin", "backend"]

_FLOATS = frozenset({"fp16", "bf16", "fp32", "fp64"})
_INTEGERS = frozenset({"int1", "int8", "int16", "int32", "int64"})
_CAPABILITIES = Capabilities(
    simd_width=8,
    simd_groups=(1,),
    block_elements=4096,
    grid=(2**31 - 1, 2**31 - 1, 2**31 - 1),
    scratchpad_bytes=0,
    dtypes=_FLOATS | _INTEGERS | {"fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16"},
    atomics=_FLOATS | _INTEGERS - {"int1"},
    dot_precisions=frozenset({"ieee", "tf32", "tf32x3", "bf16x3", "bf16x6"}),
    denormals=_FLOATS,
)


class LinalgPlugin:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "linalg"
    api_version = API_VERSION
    options: Mapping[str, Any] = MappingProxyType({"cpu_backend": "triton"})

    def __init__(self) -> None:
        self._compilers: dict[str, LinalgCompiler] = {}
        self._driver = OracleDriver()

    def devices(self) -> list[Device]:
        """One target for each profile."""
        return [Device(_target(one), _about(one), _missing(one)) for one in PROFILES.values()]

    def capabilities(self, target: Target) -> Capabilities:
        """Those of the oracle; a compiler that takes the text has limits of its own. Raises TargetError."""
        _profile(target)
        return _CAPABILITIES

    def compiler(self, target: Target) -> LinalgCompiler:
        """What writes the text. Raises TargetError for a profile that is not known."""
        chosen = _profile(target)
        if chosen.name not in self._compilers:
            self._compilers[chosen.name] = LinalgCompiler(target, chosen, _CAPABILITIES)
        return self._compilers[chosen.name]

    def driver(self, target: Target) -> Driver:
        """The oracle. Raises TargetError for text that upstream MLIR of this version does not read."""
        chosen = _profile(target)
        if missing := _missing(chosen):
            raise TargetError(f"target {target} does not run here: {missing}")
        return self._driver


def _target(one: Profile) -> Target:
    return Target("linalg", (one.name,) if one.name else ())


def _about(one: Profile) -> str:
    return f"linalg for {one.about}"


def _missing(one: Profile) -> str:
    if one.llvm == 22 and not one.leading:
        return ""
    return f"its text is that of LLVM {one.llvm}: `torchport build` writes it for {one.about.split(',')[0]}"


def _profile(target: Target) -> Profile:
    if len(target.parts) > 1:
        raise TargetError(f"target {target} has more parts than a profile; valid: linalg, linalg:ascend ...")
    return profile(target.parts[0] if target.parts else "")


backend = LinalgPlugin()

"""Levels of CPUs: code for ``cpu:x86_64:avx2`` runs on every machine with that level's features."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchport.plugin import Binary
from torchport.triton.compiler import TritonCompiler
from torchport_cpu.host import HostInfo, compiling_for, host_info

__all__ = ["LevelCompiler", "has_level", "level", "levels"]

_SSE = "64bit cmov cx16 cx8 fxsr mmx popcnt sahf sse sse2 sse3 sse4.1 sse4.2 ssse3"
_AVX2 = f"{_SSE} avx avx2 bmi bmi2 crc32 f16c fma lzcnt movbe xsave"
_AVX512 = f"{_AVX2} avx512bitalg avx512bw avx512cd avx512dq avx512f avx512ifma avx512vbmi avx512vbmi2 avx512vl "
_AVX512 += "avx512vnni avx512vpopcntdq"

_LEVELS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "x86_64": {"sse": ("x86-64-v2", _SSE), "avx2": ("x86-64-v3", _AVX2), "avx512": ("x86-64-v4", _AVX512)},
    "aarch64": {"neon": ("generic", "fp-armv8 neon")},
}
"""By machine, ascending: LLVM's name of a CPU that has the level and no more, and the features."""


def _machine() -> str:
    return host_info().arch.split("-", 1)[0]


def levels() -> Sequence[str]:
    """The levels of this kind of machine, ascending, whether this CPU has them or not."""
    return tuple(_LEVELS[_machine()])


@functools.cache
def level(name: str) -> HostInfo:
    """A CPU that has exactly the level ``name`` of this kind of machine."""
    cpu, features = _LEVELS[_machine()][name]
    return HostInfo.from_features(host_info().triple, cpu, dict.fromkeys(features.split(), True))


def has_level(name: str) -> bool:
    """Whether this process's CPU can run code of the level ``name``."""
    _, features = _LEVELS[_machine()][name]
    return all(host_info().has(feature) for feature in features.split())


@dataclass(frozen=True)
class LevelCompiler(TritonCompiler):
    """Compiles for a level and not for this machine.

    host: a CPU that has exactly the level.
    """

    host: HostInfo | None = None

    def fingerprint(self) -> str:
        """As TritonCompiler's; the level is part of it."""
        assert self.host is not None
        with compiling_for(self.host):
            return super().fingerprint()

    def compile(self, source: Any, options: Mapping[str, Any]) -> Binary:
        """As TritonCompiler's."""
        assert self.host is not None
        with compiling_for(self.host):
            return super().compile(source, options)

    def passes(self) -> Sequence[Any]:
        """As TritonCompiler's."""
        assert self.host is not None
        with compiling_for(self.host):
            return super().passes()

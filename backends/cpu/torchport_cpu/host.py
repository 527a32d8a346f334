"""Describes the CPU that this process runs on, and the CPU that it compiles for."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torchport.errors import TargetError

__all__ = ["HostInfo", "compiling_for", "host_info"]


@dataclass(frozen=True)
class HostInfo:
    """A CPU, as far as code generation needs to know it.

    triple: LLVM's target triple.
    cpu: LLVM's name of the CPU.
    features: LLVM's features, comma-separated, ``+name`` or ``-name``.
    vector_bits: width of the vectors that loops are built from.
    arch: short label such as ``x86_64-avx512``.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    arch: str

    def has(self, feature: str) -> bool:
        """Whether the CPU has ``feature`` (LLVM's name, e.g. ``avx512bf16``)."""
        return f"+{feature}" in self.features.split(",")

    @property
    def is_zen(self) -> bool:
        """Whether it is one of AMD's Zen cores, on which prefetching what is going to be stored costs time."""
        return self.cpu.startswith("znver")

    @property
    def bf16_pairs(self) -> bool:
        """Whether an instruction adds up products of pairs of bf16 (``vdpbf16ps``), for vectors of every width."""
        return self.vector_bits == 512 and self.has("avx512bf16")

    @property
    def vector_registers(self) -> int:
        """The number of vector registers: AVX-512 and NEON have 32, SSE and AVX2 16."""
        return 16 if self.arch.endswith(("-sse", "-avx2")) else 32

    @classmethod
    def from_features(cls, triple: str, cpu: str, available: Mapping[str, bool]) -> HostInfo:
        """Describe a CPU from LLVM's triple, name and feature map.

        Raises TargetError for a machine other than x86-64 and aarch64.
        """
        machine = triple.split("-", 1)[0]
        features = dict(available)
        if machine == "x86_64":
            # AVX-512 from Ice Lake and Zen 4 on (both have VBMI2). Skylake-X and Cascade Lake lower their clock for
            # 512-bit code, which costs short kernels more than they gain.
            if features.get("avx512vl") and features.get("avx512dq") and features.get("avx512vbmi2"):
                bits, label = 512, "avx512"
                features["prefer-256-bit"] = False  # some of LLVM's tunings would split 512-bit vectors again
            elif features.get("avx2") and features.get("fma"):
                bits, label = 256, "avx2"
            else:
                bits, label = 128, "sse"
        elif machine in ("aarch64", "arm64"):
            machine, bits, label = "aarch64", 128, "neon"
        else:
            raise TargetError(f"the CPU target supports x86-64 and aarch64, not {triple}")
        flat = ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
        return cls(triple, cpu, flat, bits, f"{machine}-{label}")


_chosen: ContextVar[HostInfo | None] = ContextVar("torchport_cpu_chosen", default=None)


def host_info() -> HostInfo:
    """The CPU that code is compiled for: this process's, as LLVM sees it, or that of an open ``compiling_for``."""
    return _chosen.get() or _this_machine()


@contextmanager
def compiling_for(host: HostInfo) -> Iterator[None]:
    """Compile for ``host`` in this thread while the context is open."""
    token = _chosen.set(host)
    try:
        yield
    finally:
        _chosen.reset(token)


@functools.cache
def _this_machine() -> HostInfo:
    import llvmlite.binding as llvm

    return HostInfo.from_features(llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features())

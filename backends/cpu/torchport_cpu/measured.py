"""What was measured of CPUs beside the library that aten calls there: it decides who computes a product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torchport_cpu.host import HostInfo

__all__ = ["Measured", "measured"]

_WIDE = frozenset({"fp32"})


@dataclass(frozen=True)
class Measured:
    """Facts that instructions do not tell. Those of a CPU that nobody measured are the defaults.

    fast_products, few_products, ragged_products, distant_streams, fast_pairs: as in ``Capabilities``.
    """

    fast_products: frozenset[str] = frozenset()
    few_products: frozenset[str] = frozenset({"bf16", "fp16"})
    ragged_products: frozenset[str] = frozenset()
    distant_streams: bool = False
    fast_pairs: bool = False


_WIDE_ZEN = Measured(_WIDE, frozenset({"fp16"}), distant_streams=True, fast_pairs=True)
"""Zen 4 and 5, measured apart."""

_AVX2 = Measured(_WIDE)
"""A Zen 4 held down to AVX2. Zen 2 and 3 have the same vectors, and the library its code for AVX2, for all of them."""

_MEASURED: Mapping[tuple[str, int], Measured] = MappingProxyType(
    {
        ("znver5", 512): replace(_WIDE_ZEN, ragged_products=_WIDE),
        ("znver4", 512): _WIDE_ZEN,
        ("znver4", 256): _AVX2,
        ("znver3", 256): _AVX2,
        ("znver2", 256): _AVX2,
        ("x86-64-v3", 256): _AVX2,
    }
)
"""By LLVM's name of the CPU, or of a level, and the width of its vectors. On Zen 5 the library multiplies fp32 at half
of the CPU's speed.

tools/bench_products.py measures; docs/performance/products.md has the figures. Intel's CPUs
are not there: on the one that was at hand the library is as fast.
"""


def measured(host: HostInfo) -> Measured:
    """The facts of a CPU or of a level."""
    return _MEASURED.get((host.cpu, host.vector_bits), Measured())

"""The functions that emit the memory operations of a loop nest, by operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from torchport_passes.ir.ops import Coords
from torchport_passes.ir.types import Op
from torchport_passes.vectorize.atomics import atomic
from torchport_passes.vectorize.buffer_access import read_scalar, read_vector, write
from torchport_passes.vectorize.lane_values import LaneValues, Level, LoadLowering
from torchport_passes.vectorize.memory import load_scalar, load_vector, store

__all__ = ["LOADS", "WRITES", "WriteLowering"]

WriteLowering: TypeAlias = Callable[[LaneValues, Op, Coords, Level], None]

LOADS: Mapping[str, LoadLowering] = MappingProxyType(
    {
        "tt.load": LoadLowering(load_scalar, load_vector),
        "tp.read": LoadLowering(read_scalar, read_vector),
    }
)
"""Operations that read memory, by name: evaluated where their values are needed."""

WRITES: Mapping[str, WriteLowering] = MappingProxyType(
    {
        "tt.store": store,
        "tp.write": write,
        "tt.atomic_rmw": atomic,
        "tt.atomic_cas": atomic,
    }
)
"""Operations that change memory, by name: emitted in program order."""

"""torchport's own operations, used between its passes only, in generic form.

* ``tp.buffer {count, element} -> !llvm.ptr``: memory of one program instance, row-major.
* ``tp.write value, buffer`` and ``tp.read buffer -> tensor``: a whole tensor into and out of a buffer.
* ``tp.nest ({...}) {shape, axis}``: operations that become one loop nest; ``tp.yield`` ends it.
* ``tp.scan``, ``tp.gather``, ``tp.histogram``, ``tp.join``, ``tp.split``, ``tp.cat``, ``tp.dot``: from buffers to
  buffers, the tensor types as ``operand_types`` and ``result_types``.
* ``tp.check pointers, mask {site, access, bytes, roots} -> mask``: the lanes in which the sanitizer allows an access.
* ``tp.extern {symbol}``: a libdevice function on scalars or vectors. ``tp.fp_to_fp {rounding}``: a float conversion.

Of a lane, what ``distribute`` leaves:

* ``tp.lane -> i32``: the number of the lane in its group. ``tp.barrier {memory}``: all lanes of the group wait, writes
  of ``scratchpad`` or ``all`` memory are seen.
* ``tp.scratch {count, element} -> !llvm.ptr``: an array in scratchpad memory; ``tp.scratch_load array, index``,
  ``tp.scratch_store value, array, index, mask`` and ``tp.scratch_count array, index, mask`` (an atomic addition of 1).
* ``tp.assert condition {message}`` ends a lane's memory accesses. ``tp.print index, mask, value``: one element.
* ``tt.load``, ``tt.store``, ``tt.atomic_*`` and ``tt.addptr`` on scalars; atomics say ``masked`` and their ``element``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torchport_passes.ir.dialects.declaration import Declaration, declared

__all__ = ["TP"]

_TYPES = ("operand_types", "result_types")

TP: Mapping[str, Declaration] = MappingProxyType(
    {
        "tp.assert": declared("boolean", "", "message"),
        "tp.barrier": declared("", "", "memory"),
        "tp.buffer": declared("", "buffer", "count", "element"),
        "tp.cat": declared("buffer+", "", *_TYPES),
        "tp.check": declared("pointer boolean?", "boolean", "site", "access", "bytes"),
        "tp.dot": declared("buffer buffer buffer pointer*", "", *_TYPES),
        "tp.extern": declared("any*", "any", "symbol"),
        "tp.flip": declared("any any?", "any?", "dims"),
        "tp.fp_to_fp": declared("float", "float"),
        "tp.gather": declared("buffer+", "", *_TYPES),
        "tp.histogram": declared("buffer+", "", *_TYPES),
        "tp.join": declared("buffer+", "", *_TYPES),
        "tp.lane": declared("", "integer"),
        "tp.map_elementwise": declared("buffer+", "", *_TYPES, regions=1),
        "tp.nest": declared("", "any*", "shape", regions=1),
        "tp.print": declared("any*", "", "prefix"),
        "tp.read": declared("buffer", "tensor"),
        "tp.scan": declared("buffer+", "", "axis", "reverse", *_TYPES, regions=1),
        "tp.scratch": declared("", "buffer", "count", "element"),
        "tp.scratch_count": declared("buffer index boolean?", ""),
        "tp.scratch_load": declared("buffer index", "any"),
        "tp.scratch_store": declared("any buffer index boolean?", ""),
        "tp.sort": declared("any any?", "any?", "first", "last", "order"),
        "tp.split": declared("buffer+", "", *_TYPES),
        "tp.write": declared("tensor buffer", ""),
        "tp.yield": declared("any*", ""),
    }
)
"""Operations of ``tp``, by name."""

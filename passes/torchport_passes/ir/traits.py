"""The table of operations: one row says everything the passes know about an operation by its name.

A new operation is one row here, and one lowering where it is lowered. Sets of names that passes ask for are derived at
the end. ``arith`` and ``math`` operations need a row only where they differ from the rest of their dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from types import MappingProxyType

__all__ = [
    "ANCHORS",
    "ATOMICS",
    "COMBINES",
    "CONVERSIONS",
    "EFFECTS",
    "ELEMENTWISE",
    "ENDS_DEFERRAL",
    "FUNCTIONS",
    "GLOBAL_ACCESSES",
    "INDEX_MAPS",
    "LOADS",
    "MASKS",
    "MEMORY_ACCESSES",
    "ONCE",
    "ORDERED",
    "PLAIN_ACCESSES",
    "POSITIONAL",
    "PROGRAM_IDS",
    "RECOMPUTE_COSTS",
    "REMOVABLE",
    "REPEATS",
    "SAME_MEMORY",
    "SCALAR_EFFECTS",
    "TRAITS",
    "WHOLE_TENSORS",
    "WITHOUT_ARITHMETIC",
    "WRITES",
    "Row",
    "Trait",
    "having",
    "is_elementwise",
]


class Trait(Flag):
    """What may be true of an operation."""

    NONE = 0
    ELEMENTWISE = auto()
    """Lane i of the result depends on lane i of the operands only."""
    INDEX_MAP = auto()
    """The result is the operand, indexed in another way."""
    REPEATS = auto()
    """An index map from an operand with fewer elements, each of which the result repeats."""
    WITHOUT_ARITHMETIC = auto()
    """Computes nothing: constants, indices, and operations that move values."""
    SAME_MEMORY = auto()
    """A pointer that results points into the memory that the first operand points into."""
    POSITIONAL = auto()
    """Its lanes differ by where they stand, in ways that its operands do not tell."""
    PROGRAM_ID = auto()
    """The number of the program instance, or how many there are."""
    LOAD = auto()
    """Reads memory, and is evaluated where its value is needed."""
    WRITE = auto()
    """Changes memory."""
    ATOMIC = auto()
    """Reads and changes memory in one step."""
    GLOBAL = auto()
    """Accesses the memory that kernel arguments point to, as opposed to buffers of a program instance."""
    ANCHOR = auto()
    """Evaluated for its effect or as a reduction; values are computed where an anchor of the loop nest needs them."""
    EFFECT = auto()
    """Observable outside of the program instance."""
    ORDERED = auto()
    """Keeps its place among other operations of this kind."""
    ENDS_DEFERRAL = auto()
    """May observe a store: one that was put off has to happen before it."""
    SCALAR_EFFECT = auto()
    """An effect that has a form on scalars."""
    WHOLE_TENSOR = auto()
    """Lanes of the result depend on other lanes: operands and results are in buffers of their own."""
    COMBINES = auto()
    """Holds a region that combines two elements."""
    REMOVABLE = auto()
    """May be removed from the IR that ``distribute`` leaves if nothing uses its result. MLIR does not know this."""
    CONVERSION = auto()
    """Converts floating-point values to another floating-point type."""
    FUNCTION = auto()
    """A mathematical function that is no operation of the ``math`` dialect."""


ONCE = 1e9
"""Cost of a value that is never computed again."""


@dataclass(frozen=True)
class Row:
    """What is known of one operation.

    ``traits``: what is true of it.
    ``mask``: the number of the operand that masks it, which may be missing; None where it has no mask.
    ``cost``: what computing it again costs, in units of one contiguous vector load; None for what its dialect costs.
    """

    traits: Trait
    mask: int | None = None
    cost: float | None = None


_T = Trait
_MAP = _T.INDEX_MAP | _T.SAME_MEMORY | _T.WITHOUT_ARITHMETIC
_ACCESS = _T.GLOBAL | _T.ORDERED
_STORED = _T.WRITE | _T.ANCHOR | _T.EFFECT | _T.SCALAR_EFFECT
_ATOMIC = _ACCESS | _STORED | _T.ATOMIC | _T.POSITIONAL | _T.ENDS_DEFERRAL
_FUNCTION = _T.ELEMENTWISE | _T.FUNCTION

TRAITS: Mapping[str, Row] = MappingProxyType(
    {
        # Triton: values without operands
        "tt.get_num_programs": Row(_T.PROGRAM_ID),
        "tt.get_program_id": Row(_T.PROGRAM_ID | _T.REMOVABLE),
        "tt.make_range": Row(_T.POSITIONAL | _T.WITHOUT_ARITHMETIC),
        # Triton: elements stay in their lanes
        "tt.addptr": Row(_T.ELEMENTWISE | _T.SAME_MEMORY | _T.REMOVABLE),
        "tt.bitcast": Row(_T.ELEMENTWISE | _T.SAME_MEMORY),
        "tt.clampf": Row(_T.ELEMENTWISE),
        "tt.elementwise_inline_asm": Row(_T.NONE),
        "tt.extern_elementwise": Row(_FUNCTION, cost=12.0),
        "tt.fp_to_fp": Row(_T.ELEMENTWISE | _T.CONVERSION),
        "tt.int_to_ptr": Row(_T.ELEMENTWISE),
        "tt.mulhiui": Row(_T.ELEMENTWISE),
        "tt.precise_divf": Row(_FUNCTION, cost=6.0),
        "tt.precise_sqrt": Row(_FUNCTION, cost=6.0),
        "tt.ptr_to_int": Row(_T.ELEMENTWISE),
        # Triton: elements move
        "tt.broadcast": Row(_MAP | _T.REPEATS),
        "tt.expand_dims": Row(_MAP | _T.REPEATS),
        "tt.reshape": Row(_MAP),
        "tt.splat": Row(_MAP | _T.REPEATS),
        "tt.trans": Row(_MAP),
        "tt.unsplat": Row(_T.SAME_MEMORY | _T.WITHOUT_ARITHMETIC),
        # Triton: elements meet
        "tt.cat": Row(_T.WHOLE_TENSOR),
        "tt.dot": Row(_T.NONE),
        "tt.dot_scaled": Row(_T.NONE),
        "tt.gather": Row(_T.WHOLE_TENSOR),
        "tt.histogram": Row(_T.WHOLE_TENSOR),
        "tt.join": Row(_T.WHOLE_TENSOR),
        "tt.map_elementwise": Row(_T.WHOLE_TENSOR),
        "tt.map_elementwise.return": Row(_T.NONE),
        "tt.reduce": Row(_T.ANCHOR | _T.POSITIONAL | _T.COMBINES, cost=ONCE),
        "tt.reduce.return": Row(_T.NONE),
        "tt.scan": Row(_T.WHOLE_TENSOR | _T.COMBINES),
        "tt.scan.return": Row(_T.NONE),
        "tt.split": Row(_T.WHOLE_TENSOR),
        # Triton: memory and other effects
        "tt.assert": Row(_T.ANCHOR | _T.EFFECT | _T.ORDERED | _T.SCALAR_EFFECT),
        "tt.atomic_cas": Row(_ATOMIC, mask=3, cost=ONCE),
        "tt.atomic_rmw": Row(_ATOMIC, mask=2, cost=ONCE),
        "tt.call": Row(_T.NONE),
        "tt.load": Row(_ACCESS | _T.LOAD | _T.ENDS_DEFERRAL | _T.REMOVABLE, mask=1),
        "tt.print": Row(_T.ANCHOR | _T.EFFECT | _T.ORDERED | _T.ENDS_DEFERRAL),
        "tt.return": Row(_T.NONE),
        "tt.store": Row(_ACCESS | _STORED, mask=2),
        # torchport: between passes of the CPU target
        "tp.add_pairs": Row(_T.NONE),
        "tp.buffer": Row(_T.NONE),
        "tp.cat": Row(_T.NONE),
        "tp.check": Row(_T.ELEMENTWISE),
        "tp.dot": Row(_T.NONE),
        "tp.extern": Row(_T.REMOVABLE),
        "tp.flip": Row(_T.WHOLE_TENSOR),
        "tp.fp_to_fp": Row(_T.REMOVABLE),
        "tp.gather": Row(_T.NONE),
        "tp.histogram": Row(_T.NONE),
        "tp.join": Row(_T.NONE),
        "tp.map_elementwise": Row(_T.NONE),
        "tp.nest": Row(_T.NONE),
        "tp.print": Row(_T.NONE),
        "tp.programs": Row(_T.NONE),
        "tp.read": Row(_T.LOAD | _T.POSITIONAL),
        "tp.scan": Row(_T.NONE),
        "tp.sort": Row(_T.WHOLE_TENSOR),
        "tp.split": Row(_T.NONE),
        "tp.write": Row(_T.WRITE | _T.ANCHOR),
        "tp.yield": Row(_T.NONE),
        # torchport: after elements are distributed over the lanes of a work-group
        "tp.assert": Row(_T.NONE),
        "tp.barrier": Row(_T.NONE),
        "tp.lane": Row(_T.REMOVABLE),
        "tp.scratch": Row(_T.NONE),
        "tp.scratch_count": Row(_T.NONE),
        "tp.scratch_load": Row(_T.REMOVABLE),
        "tp.scratch_store": Row(_T.NONE),
        "tp.shuffle": Row(_T.NONE),
        "tp.vector_load": Row(_T.NONE),
        "tp.vector_store": Row(_T.NONE),
        "tp.wide_load": Row(_T.REMOVABLE),
        "tp.wide_scratch_load": Row(_T.REMOVABLE),
        "tp.wide_scratch_store": Row(_T.NONE),
        "tp.wide_store": Row(_T.NONE),
        # other dialects: where an operation differs from the rest
        "arith.constant": Row(_T.WITHOUT_ARITHMETIC),
        "arith.divf": Row(_T.ELEMENTWISE, cost=6.0),
        "arith.extf": Row(_T.ELEMENTWISE | _T.CONVERSION),
        "arith.remf": Row(_T.ELEMENTWISE, cost=20.0),
        "arith.truncf": Row(_T.ELEMENTWISE | _T.CONVERSION),
        "func.call": Row(_T.EFFECT),
        "llvm.intr.assume": Row(_T.ORDERED),
        "math.sqrt": Row(_T.ELEMENTWISE, cost=6.0),
        "ub.poison": Row(_T.ELEMENTWISE),
    }
)
"""Every operation of ``tt`` and ``tp``, and what is special in other dialects, by name."""


def having(traits: Trait) -> frozenset[str]:
    """Names of the operations that have all of ``traits``."""
    return frozenset(name for name, row in TRAITS.items() if traits in row.traits)


ELEMENTWISE = frozenset(name for name in having(Trait.ELEMENTWISE) if not name.startswith(("arith.", "math.")))
"""Elementwise operations besides ``arith`` and ``math``: ask ``is_elementwise`` for all."""
INDEX_MAPS = having(Trait.INDEX_MAP)
REPEATS = having(Trait.REPEATS)
WITHOUT_ARITHMETIC = having(Trait.WITHOUT_ARITHMETIC)
SAME_MEMORY = having(Trait.SAME_MEMORY)
POSITIONAL = having(Trait.POSITIONAL)
PROGRAM_IDS = having(Trait.PROGRAM_ID)
LOADS = having(Trait.LOAD)
WRITES = having(Trait.WRITE)
ATOMICS = having(Trait.ATOMIC)
MEMORY_ACCESSES = LOADS | WRITES
PLAIN_ACCESSES = MEMORY_ACCESSES - ATOMICS
GLOBAL_ACCESSES = having(Trait.GLOBAL)
ANCHORS = having(Trait.ANCHOR)
EFFECTS = having(Trait.EFFECT)
ORDERED = having(Trait.ORDERED)
ENDS_DEFERRAL = having(Trait.ENDS_DEFERRAL)
SCALAR_EFFECTS = having(Trait.SCALAR_EFFECT)
REMOVABLE = having(Trait.REMOVABLE)
WHOLE_TENSORS = having(Trait.WHOLE_TENSOR)
COMBINES = having(Trait.COMBINES)
CONVERSIONS = having(Trait.CONVERSION)
FUNCTIONS = having(Trait.FUNCTION)
MASKS: Mapping[str, int] = MappingProxyType({name: row.mask for name, row in TRAITS.items() if row.mask is not None})
RECOMPUTE_COSTS: Mapping[str, float] = MappingProxyType(
    {name: row.cost for name, row in TRAITS.items() if row.cost is not None}
)


def is_elementwise(name: str) -> bool:
    """Whether lane i of the result depends on lane i of the operands only. Constants have no operands: not here."""
    return name in ELEMENTWISE or (name.startswith(("arith.", "math.")) and name != "arith.constant")

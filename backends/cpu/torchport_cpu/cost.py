"""Estimates how long one program instance runs, so that small launches stay on one thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from torchport_passes.ir.traits import ATOMICS, PLAIN_ACCESSES

__all__ = ["EstimateCost", "cost_of", "program_cost"]

# Nanoseconds per element on one core at about 3 GHz with 8 f32 lanes; only the order of magnitude matters.
_ARITHMETIC = 0.02
_MEMORY = 0.06
_DIVISION = 0.15
_FUNCTION = 0.6
_UNKNOWN_TRIPS = 16
_PROGRAM = 5.0
_WAITING = 1e4  # enough that the launcher releases the GIL: another Python thread may end the wait


@dataclass(frozen=True)
class EstimateCost:
    """Set ``tp.cost`` on the module: the nanoseconds of one program instance. Takes the output of ``form-nests``."""

    name: ClassVar[str] = "estimate-cost"

    def apply(self, module: Any) -> None:
        from mlir import ir

        with module.context:
            module.operation.attributes["tp.cost"] = ir.FloatAttr.get_f64(program_cost(module))


def cost_of(module: Any) -> float:
    """The nanoseconds that ``estimate-cost`` set."""
    from mlir import ir

    return float(ir.FloatAttr(module.operation.attributes["tp.cost"]).value)


def program_cost(module: Any) -> float:
    """Estimate the nanoseconds of one program instance of a module that ``form-nests`` left."""
    blocks = (block for function in module.body.operations for region in function.regions for block in region.blocks)
    return sum(map(_block, blocks), _PROGRAM)


def _block(block: Any) -> float:
    return sum((cost for view in block.operations for cost in _operation(view.operation)), 0.0)


def _operation(op: Any) -> Iterator[float]:
    """The costs that an operation adds to its block's."""
    if op.name == "tp.nest":
        yield _nest(op)
    elif op.name == "tp.dot":
        yield _ARITHMETIC * _products(op)
    elif op.name.startswith("tp.") and "operand_types" in op.attributes:
        yield from _passes_over(op)
    elif op.name == "scf.for":
        yield _trips(op) * _block(op.regions[0].blocks[0])
    elif op.name == "scf.while":
        yield _UNKNOWN_TRIPS * sum(_block(region.blocks[0]) for region in op.regions)
        yield _WAITING if _may_wait(op) else 0.0
    else:
        yield from (_block(block) for region in op.regions for block in region.blocks)


def _nest(nest: Any) -> float:
    """A loop nest: the cost of one element times the number of elements."""
    from mlir import ir

    elements = int(prod(ir.DenseI64ArrayAttr(nest.attributes["shape"])))
    return elements * sum(_scalar(op.operation) for op in nest.regions[0].blocks[0].operations)


def _scalar(op: Any) -> float:
    """The cost of an operation for one element."""
    if op.name in PLAIN_ACCESSES:
        return _MEMORY
    if op.name in ATOMICS:
        return 8 * _MEMORY
    if op.name in ("arith.divf", "arith.divsi", "arith.remsi", "math.sqrt"):
        return _DIVISION
    if op.name.startswith("math.") or op.name == "tt.extern_elementwise":
        return _FUNCTION
    if op.name.startswith("arith.") and op.name != "arith.constant":
        return _ARITHMETIC
    return 0.0


def _passes_over(op: Any) -> Iterator[float]:
    """The cost of each operand of an operation on buffers, such as a scan or a sort: eight accesses an element."""
    for shape in _operand_shapes(op):
        yield _MEMORY * 8 * prod(shape)


def _products(dot: Any) -> int:
    """Multiplications of a dot: batch * M * N * K."""
    a, _, c = _operand_shapes(dot)
    return int(prod(a) * c[-1])


def _operand_shapes(op: Any) -> list[Sequence[int]]:
    from mlir import ir

    types = ir.ArrayAttr(op.attributes["operand_types"])
    return [ir.RankedTensorType(ir.TypeAttr(type_).value).shape for type_ in types]


def _may_wait(loop: Any) -> bool:
    """Whether a loop reads what other threads write: it may end only after another thread has run."""
    from torchport_passes.ir.ops import matching

    reads = matching(loop, ("tt.load", "tt.atomic_rmw", "tt.atomic_cas").__contains__)
    return any(op.name != "tt.load" or "volatile" in op.attributes for op in reads)


def _trips(loop: Any) -> float:
    from torchport_passes.ir.ops import constant_int

    low, high, step = (constant_int(loop.operands[i]) for i in range(3))
    if low is None or high is None or not step:
        return _UNKNOWN_TRIPS
    return max(0, -(-(high - low) // step))

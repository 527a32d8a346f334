"""Estimates how long one program instance runs, so that small launches stay on one thread."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from torchport_passes.ir.traits import ATOMICS, PLAIN_ACCESSES

__all__ = ["EstimateCost", "cost_of", "program_cost"]

# Nanoseconds an element, for one core at about 3 GHz with 8 f32 lanes; only the order of magnitude matters.
_ARITHMETIC = 0.02
_MEMORY = 0.06
_DIVISION = 0.15
_FUNCTION = 0.6
_UNKNOWN_TRIPS = 16
_PROGRAM = 5.0
_WAITING = 1e4  # enough for the launcher to give up the GIL: another Python thread may end the wait


@dataclass(frozen=True)
class EstimateCost:
    """Set the module's attribute ``tp.cost``: nanoseconds of a program instance. Takes the output of ``form-nests``."""

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
    """Estimated nanoseconds of one program instance of a module after ``form-nests``."""
    total = _PROGRAM
    for function in module.body.operations:
        for region in function.regions:
            for block in region.blocks:
                total += _block(block)
    return total


def _block(block: Any) -> float:
    from mlir import ir

    total = 0.0
    for view in block.operations:
        op = view.operation
        if op.name == "tp.nest":
            elements = prod(ir.DenseI64ArrayAttr(op.attributes["shape"]))
            total += elements * sum(_operation(o.operation) for o in op.regions[0].blocks[0].operations)
        elif op.name == "tp.dot":
            total += _ARITHMETIC * _products(op)
        elif op.name.startswith("tp.") and "operand_types" in op.attributes:
            for attribute in ir.ArrayAttr(op.attributes["operand_types"]):
                total += _MEMORY * 8 * prod(ir.RankedTensorType(ir.TypeAttr(attribute).value).shape)
        elif op.name == "scf.for":
            total += _trips(op) * _block(op.regions[0].blocks[0])
        elif op.name == "scf.while":
            total += _UNKNOWN_TRIPS * sum(_block(region.blocks[0]) for region in op.regions)
            total += _WAITING if _may_wait(op) else 0.0
        else:
            for region in op.regions:
                for inner in region.blocks:
                    total += _block(inner)
    return total


def _operation(op: Any) -> float:
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


def _products(dot: Any) -> int:
    """Multiplications of a dot: batch * M * N * K."""
    from mlir import ir

    a, _, c = (ir.RankedTensorType(ir.TypeAttr(t).value) for t in ir.ArrayAttr(dot.attributes["operand_types"]))
    return int(prod(a.shape) * c.shape[-1])


def _may_wait(loop: Any) -> bool:
    """Whether a loop polls memory that others write: it may end only after another thread has run."""
    from torchport_passes.ir.ops import matching

    reads = matching(loop, ("tt.load", "tt.atomic_rmw", "tt.atomic_cas").__contains__)
    return any(op.name != "tt.load" or "volatile" in op.attributes for op in reads)


def _trips(loop: Any) -> float:
    from torchport_passes.ir.ops import constant_int

    low, high, step = (constant_int(loop.operands[i]) for i in range(3))
    if low is None or high is None or not step:
        return _UNKNOWN_TRIPS
    return max(0, -(-(high - low) // step))

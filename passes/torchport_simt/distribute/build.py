"""Small pieces of IR: i32 and i1 constants, counted loops, and upstream's clean-up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlir import ir, passmanager
from mlir.dialects import arith, scf
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import matching
from torchport_passes.ir.traits import REMOVABLE

__all__ = ["clean_up", "constant", "counted_loop", "flag", "remove_unused"]


def constant(number: int) -> Any:
    """An i32."""
    return arith.ConstantOp(integer_type(32), number).result


def flag(value: bool) -> Any:
    """An i1."""
    return arith.ConstantOp(integer_type(1), int(value)).result


def counted_loop(
    low: int, high: Any, body: Callable[[Any, list[Any]], Sequence[Any]], start: Sequence[Any] = ()
) -> list[Any]:
    """Emit ``for i in range(low, high)`` over an i32; ``high`` is an int or an i32. Returns the carried values.

    ``body(i, carried)`` emits one iteration and returns what it carries to the next; ``start`` is carried into the
    first.
    """
    bounds = [constant(number) if isinstance(number, int) else number for number in (low, high, 1)]
    loop = scf.ForOp(*bounds, list(start))
    with ir.InsertionPoint(loop.body):
        scf.YieldOp(list(body(loop.induction_variable, list(loop.inner_iter_args))))
    return list(loop.results)


def clean_up(module: Any) -> None:
    """Fold constants, hoist loop invariants and merge equal scalar operations."""
    pipeline = f"builtin.module(canonicalize{_without_pairs(module)},loop-invariant-code-motion,cse)"
    passmanager.PassManager.parse(pipeline, module.context).run(module.operation)


_MANY = 64
_PAIRS = "RemoveDuplicateSuccessorInputUses"
"""Upstream's pattern that looks for equal carried values: at all pairs of them, at each change of the loop."""


def _without_pairs(module: Any) -> str:
    """Options of ``canonicalize``: loops that carry very many values take minutes with that pattern, seconds without.

    A pattern has the name that the compiler gave it, GCC's or Clang's.
    """
    most = max((len(op.results) for op in matching(module, _CARRYING.__contains__)), default=0)
    names = f"(anonymous namespace)::{_PAIRS},{{anonymous}}::{_PAIRS}"
    return f"{{disable-patterns={{{names}}}}}" if most > _MANY else ""


_CARRYING = frozenset({"scf.for", "scf.while", "scf.if"})


def remove_unused(module: Any) -> None:
    """Erase loads and address arithmetic that nothing uses, last first."""
    for op in reversed(matching(module, REMOVABLE.__contains__)):
        if "volatile" not in op.attributes and not any(True for r in op.results for _ in r.uses):
            op.erase()

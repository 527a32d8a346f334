"""Recognises flips in the operations that Triton's frontend writes for ``tl.flip``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.ops import matching, owner_of, shape_of
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.tensor.exchange import (
    Exchange,
    collapsed,
    erase_unused,
    exchange_of,
    reshaped_uses,
    used_only_by,
)

__all__ = ["RecognizeFlip"]


@dataclass(frozen=True)
class RecognizeFlip:
    """Replace exchanges along neighbouring axes of two by one ``tp.flip``.

    ``tl.flip`` reshapes ``2^m`` indices to ``m`` axes of two, and exchanges the halves of each by reductions with xor.
    Takes imported TTIR. Leaves ``tp.flip(x) {dims = (outer, n, inner)}``, which flips the middle dimension of its
    operand in the shape ``dims``, and replaces the reshapes around it as well.
    """

    name: ClassVar[str] = "recognize-flip"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            chains: list[list[tuple[Op, Exchange]]] = []
            ends: dict[Value, list[tuple[Op, Exchange]]] = {}
            for op in matching(module, "arith.xori".__eq__):
                exchange = exchange_of(op.results[0])
                if exchange is None:
                    continue
                chain = ends.pop(exchange.source, None)
                if chain is None or not _continues(chain, exchange):
                    chain = []
                    chains.append(chain)
                chain.append((op, exchange))
                ends[op.results[0]] = chain
            for chain in chains:
                _replace(chain)


def _continues(chain: list[tuple[Op, Exchange]], exchange: Exchange) -> bool:
    return chain[-1][1].axis + 1 == exchange.axis and used_only_by(exchange.source, exchange.members)


def _replace(chain: list[tuple[Op, Exchange]]) -> None:
    first = exchange_of(chain[0][0].results[0])  # again: the chain before may have been replaced
    assert first is not None
    source, axis = first.source, first.axis
    result = chain[-1][0].results[0]
    dims = collapsed(shape_of(result) or (), axis, len(chain))
    reshape = owner_of(source)
    if reshape is not None and reshape.name == "tt.reshape":
        source = reshape.operands[0]
    type_, reshapes = reshaped_uses(result)
    flip = ir.Operation.create(
        "tp.flip", [type_], [source], {"dims": ir.DenseI64ArrayAttr.get(list(dims))}, ip=ir.InsertionPoint(chain[-1][0])
    )
    for old in [r.results[0] for r in reshapes] or [result]:
        old.replace_all_uses_with(flip.results[0])
    dead = [member for _, exchange in reversed(chain) for member in exchange.members]
    erase_unused([*reshapes, *dead, *([reshape] if reshape is not None and reshape.name == "tt.reshape" else [])])

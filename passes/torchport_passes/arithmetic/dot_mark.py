"""The attribute ``emulate`` of a dot: what passes that mark dots tell the one that lowers them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from mlir import ir

from torchport.arithmetic.rules import DotRule
from torchport_passes.ir.ops import text_attribute
from torchport_passes.ir.types import Op

__all__ = ["DotMark"]


@dataclass(frozen=True)
class DotMark:
    """A matrix unit's arithmetic for one dot.

    rule: how terms are multiplied and added up.
    least: exponents of the smallest normal numbers of both operands.
    promoted: after how many terms a sum is added in f32; 0: never.
    """

    rule: DotRule
    least: tuple[int, int]
    promoted: int = 0

    @classmethod
    def of(cls, op: Op) -> DotMark:
        """The mark of a dot that has one."""
        found = json.loads(text_attribute(op, "emulate"))
        return cls(DotRule(**found["rule"]), tuple(found["least"]), found["promoted"])

    def attribute(self) -> ir.Attribute:
        """JSON text with sorted keys."""
        return ir.StringAttr.get(json.dumps(asdict(self), sort_keys=True))

"""Computes recorded operator calls again in other arithmetic: products, convolutions and attention."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from torchport.numerics.emulation.dispatch import Emulation
from torchport.numerics.emulation.products import TYPES
from torchport.numerics.verdicts.operators.attention import attention_of
from torchport.numerics.verdicts.operators.calls import OperatorCall, tensors

__all__ = ["computed_by"]


class _Again(Emulation):
    """The emulation of operators. ``backwards``: products add up their terms from the last to the first."""

    def __init__(self, rules: Mapping[str, Any], precision: str, backwards: bool) -> None:
        super().__init__("the profile", json.dumps({"rules": dict(rules)}, sort_keys=True) if rules else "", precision)
        self.backwards = backwards

    def _multiplied(
        self, a: Any, b: Any, bias: Any, alpha: float = 1.0, beta: float = 1.0, dtype: Any = None
    ) -> torch.Tensor:
        if self.backwards:
            a, b = a.flip(-1), b.flip(-2)
        return super()._multiplied(a, b, bias, alpha, beta, dtype)


def computed_by(
    called: OperatorCall,
    rules: Mapping[str, Any],
    precision: str = "ieee",
    *,
    apart: bool = False,
    backwards: bool = False,
) -> tuple[torch.Tensor, ...] | None:
    """The results of an operator by ``rules`` of arithmetic (docs/numerics/rules.md); None if it is not emulated.

    ``precision``: of f32 products, ``ieee`` or ``tf32``; ``apart``: attention is two products and a softmax between
    them, not one kernel (which takes longer to compile); ``backwards``: products add up from their last term.
    """
    mode = _Again(rules, precision, backwards)
    attention = attention_of(called) if apart or backwards else None
    if attention is not None and attention.query.dtype in TYPES:
        return attention.by(lambda a, b: mode._multiplied(a, b, None, dtype=torch.float32))
    result = mode._run(called.function, called.args, dict(called.kwargs))
    return None if mode.noted else tensors(result)

"""Why an operator's numbers differ: products and convolutions in other arithmetic, one cause at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from torchport.numerics.verdicts.attribution import CAUSES, Explained, causes_of, energy, ranked
from torchport.numerics.verdicts.operator_calls import OperatorCall
from torchport.numerics.verdicts.operator_emulation import computed_by
from torchport.numerics.verdicts.references import Reference

__all__ = ["explain_operator"]


def explain_operator(
    called: OperatorCall | None, index: int, got: torch.Tensor, found: Reference, rules: Mapping[str, Any]
) -> tuple[Explained, float]:
    """What explains that ``got``, result ``index`` of an operator, is not the exact one; and the share that ``rules``,
    the target's arithmetic, does altogether (0 where there are none, or the operator is none that can be emulated).

    ``found``: the result's reference. Causes are those of ``rules``, or where there are none what chips are known for.
    """
    assert found.sigma is not None
    sigma = found.sigma.reshape(got.shape)
    total = energy(got, found.native.reshape(got.shape), sigma)
    if not total or called is None:
        return Explained((), 1.0), 0.0

    def share(rules: Mapping[str, Any], precision: str) -> float:
        results = computed_by(called, rules, precision)
        if results is None or results[index].numel() != got.numel():
            return -math.inf
        return 1 - energy(got, results[index].reshape(got.shape), sigma) / total

    causes = causes_of(rules) if rules else [one for one in CAUSES if set(one.rules) == {"dot"}]
    # What a profile's f32 products are in is a setting of the run that nothing recorded.
    precisions = ("ieee", "tf32") if rules and got.dtype == torch.float32 else ("ieee",)
    shares: dict[str, float] = {}
    for cause in causes:
        for precision in precisions:
            name = f"{cause.name}, TF32 inputs" if precision == "tf32" else cause.name
            shares[name] = max(shares.get(name, 0.0), share(cause.rules, precision))
    return ranked(shares), max((share(rules, precision) for precision in precisions), default=0.0) if rules else 0.0

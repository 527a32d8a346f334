"""Explains why an operator's numbers differ: emulates products and convolutions with one cause at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from torchport.numerics.verdicts.attribution import Attribution, energy, ranked
from torchport.numerics.verdicts.causes import CAUSES, causes_of
from torchport.numerics.verdicts.operators.calls import OperatorCall
from torchport.numerics.verdicts.operators.emulation import computed_by
from torchport.numerics.verdicts.references import Reference

__all__ = ["OperatorResult", "attribute_operator"]

_OF_PRODUCTS = tuple(cause for cause in CAUSES if cause.concerns("tt.dot"))


@dataclass(frozen=True)
class OperatorResult:
    """``got``, result ``index`` of the operator ``called`` (None: one that is not known), and what it should be.

    ``rules``: the target's arithmetic. ``own``: the host's.
    """

    called: OperatorCall | None
    index: int
    got: torch.Tensor
    reference: Reference
    rules: Mapping[str, Any]
    own: Mapping[str, Any]


def attribute_operator(result: OperatorResult) -> tuple[Attribution, float]:
    """What explains that a result of an operator is not its reference.

    Also returns the share that ``rules``, or else ``own``, explain together: 0 without either, and for an operator that
    is not emulated. Causes are each of ``rules``, or without rules what chips are known for.
    """
    called, got, reference = result.called, result.got, result.reference
    assert reference.sigma is not None
    sigma = reference.sigma.reshape(got.shape)
    total = energy(got, reference.native.reshape(got.shape), sigma)
    if not total or called is None:
        return Attribution((), 1.0), 0.0

    def share(rules: Mapping[str, Any], precision: str) -> float:
        results = computed_by(called, rules, precision)
        if results is None or results[result.index].numel() != got.numel():
            return -math.inf
        return 1 - energy(got, results[result.index].reshape(got.shape), sigma) / total

    causes = [cause for cause in (causes_of(result.rules) if result.rules else _OF_PRODUCTS) if cause.how == "bits"]
    # Whether a profile's f32 products are in TF32 is a setting of the run that was not recorded.
    precisions = ("ieee", "tf32") if result.rules and got.dtype == torch.float32 else ("ieee",)
    shares: dict[str, float] = {}
    for cause in causes:
        for precision in precisions:
            name = f"{cause.name}, TF32 inputs" if precision == "tf32" else cause.name
            shares[name] = max(shares.get(name, 0.0), share(cause.rules, precision))
    whole = result.rules or result.own
    return ranked(shares), max((share(whole, precision) for precision in precisions), default=0.0) if whole else 0.0

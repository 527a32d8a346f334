"""Verdicts on attention: against what was asked for, and with the name of the fault that explains the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from torchport.numerics.graphs.special import Refused
from torchport.numerics.verdicts.attention.asked import Asked
from torchport.numerics.verdicts.attention.naming import named
from torchport.numerics.verdicts.classes import allowed_classes
from torchport.numerics.verdicts.references import Reference
from torchport.numerics.verdicts.verdict import KernelVerdict

__all__ = ["exact_references", "with_fault"]


def exact_references(asked: Asked, references: Mapping[str, Reference]) -> dict[str, Reference] | None:
    """The references of a kernel's outputs with what attention gives in the place of what the kernel gives in float64.

    How far legal arithmetic moves results, and limits, stay those of the kernel. None if outputs have another shape.
    """
    found = {}
    for name, values in asked.values().items():
        known = references.get(name)
        if known is None or known.sigma is None or known.values.shape != values.shape:
            return None
        allowed = allowed_classes(values, known.sigma, (), known.dtype)
        found[name] = replace(known, values=values, allowed=allowed)
    return found


def with_fault(
    verdict: KernelVerdict, asked: Asked, written: Mapping[str, torch.Tensor], references: Mapping[str, Reference]
) -> KernelVerdict:
    """A bad verdict on attention with the fault that explains ``written``, the launch's results by argument.

    The first of its reasons says what the fault does, or that none is known. Unchanged if results have other shapes.
    """
    try:
        found = named(asked, written, {name: _moved(one) for name, one in references.items()})
    except Refused:
        return verdict
    reasons = (f"attention: {found.says}", *verdict.reasons)
    if found.name is None:
        return replace(verdict, reasons=reasons)
    shares = ((found.name, found.share),)
    return replace(verdict, reasons=reasons, fault=found.name, attribution=shares, residual=1 - found.share)


def _moved(reference: Reference) -> float:
    """How far legal arithmetic moves a result, relative to its size."""
    if reference.sigma is None:
        return 0.0
    finite = torch.isfinite(reference.values)
    size = float(torch.linalg.vector_norm(reference.values[finite]))
    return float(torch.linalg.vector_norm(reference.sigma[finite])) / size if size else float("inf")

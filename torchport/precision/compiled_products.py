"""Measures what becomes of aten's products of bf16 in a compiled graph, whichever kernel computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.compat import reset_dynamo
from torchport.inductor import without_graph_caches
from torchport.precision.prober import DTYPES, TERMS, Prober, Problem
from torchport.runtime import events

__all__ = ["compiled_products"]


def compiled_products(target: str, bf16_products: str) -> dict[str, Any]:
    """Who multiplies matrices of bf16, how it adds up, and which subnormals become zeros; keys as in a passport.

    ``target``, ``bf16_products``: options of torch.compile. The type of the result hides how sums are rounded.
    """
    reset_dynamo()  # else a graph of another option counts as one of the same function's, of which there may be few
    options: dict[str, Any] = {"target": target, "bf16_products": bf16_products}
    prober = _Products({}, torch.compile(torch.mm, backend="torchport", options=options))
    with without_graph_caches(), events.capture() as happened:
        group, within = prober.order("bf16", "")
        fraction = prober.kept("bf16", "") if within == "fused" else None
        flush = prober.flushed("bf16", "", start=False)
    ours = any(isinstance(one, events.Kernel) for one in happened)
    by = "torchport" if ours else "library"
    return {"by": by, "group": group, "within": within, "fraction": fraction, "flush": flush}


@dataclass(frozen=True)
class _Products(Prober):
    """Probes of ``multiply``, a compiled ``torch.mm``."""

    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def dots(self, type_: str, problems: Sequence[Problem], precision: str = "") -> list[float]:
        """Results of ``problems``, which have no accumulator, rounded to ``type_``."""
        results: list[float] = []
        for first in range(0, len(problems), TERMS):
            a, b = torch.zeros(TERMS, TERMS), torch.zeros(TERMS, TERMS)
            some = problems[first : first + TERMS]
            for i, (terms, _) in enumerate(some):
                for k, (left, right) in terms.items():
                    a[i, k], b[k, i] = left, right
            with torch.no_grad():
                product = self.multiply(a.to(DTYPES[type_]), b.to(DTYPES[type_]))
            results += product.diagonal()[: len(some)].tolist()
        return results

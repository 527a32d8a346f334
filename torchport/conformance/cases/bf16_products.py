"""Cases of products of bf16 and denormals: what the option ``bf16_products`` promises (docs/options.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from torchport.capabilities import Capabilities
from torchport.compile import BF16_PRODUCTS
from torchport.conformance.bounds import accumulated, within
from torchport.conformance.case import Bench, Case, Measured, Wrong
from torchport.conformance.cases.graphs import compiled
from torchport.conformance.kernels import evaluate
from torchport.conformance.pairs import added_in_pairs
from torchport.conformance.values import draw, exact, flushed

__all__ = ["cases"]

_SHAPE = (16, 32, 64)  # M, N, K
_DOT = "z = tl.dot(a, b, out_dtype=tl.float32)"


def cases() -> Iterator[Case]:
    """All cases of this file."""
    yield Case("language", "dot", "bf16", _SHAPE, "denormals", _exact, ("bf16",), needs=_fits)
    yield Case("language", "dot_pairs", "bf16", _SHAPE, "denormals", _pairs, ("bf16",), applies=lambda a: a.bf16_pairs)
    for option in BF16_PRODUCTS:
        run = _compiled(option)
        yield Case("inductor", f"products_{option}", "bf16", _SHAPE, "denormals", run, ("bf16",))


def _fits(able: Capabilities) -> str:
    small = any(size < least for size, least in zip(_SHAPE, able.dot_shapes, strict=True))
    return f"the target's least dot is {able.dot_shapes}" if small else ""


def _operands() -> tuple[torch.Tensor, torch.Tensor]:
    """[M, K] and [K, N]: rows of denormals, columns that make products denormal, the rest normal numbers."""
    m, n, k = _SHAPE
    a, b = draw("bf16", (m, k), "randn", "a").float(), draw("bf16", (k, n), "randn", "b").float()
    a[::4] *= 2.0**-130
    a[1::4] *= 2.0**-70
    b[:, ::2] *= 2.0**-60
    return a.bfloat16(), b.bfloat16()


def _dot(bench: Bench) -> torch.Tensor:
    a, b = _operands()
    (got,) = evaluate(bench, _DOT, {"a": a, "b": b}, {"z": ((_SHAPE[0], _SHAPE[1]), torch.float32)})
    return got


def _exact(bench: Bench) -> Measured:
    """``tl.dot`` without the option keeps denormals, unless the capabilities say that the target does not."""
    a, b = (exact(one) for one in _operands())
    alternatives = [(a, b)]
    if "bf16" not in bench.able.denormals:
        alternatives.append((flushed(a, "bf16"), flushed(b, "bf16")))
    wants = [x @ y for x, y in alternatives]
    bounds = [
        accumulated(want, np.abs(x) @ np.abs(y), _SHAPE[2], "fp32", bench.able)
        for want, (x, y) in zip(wants, alternatives, strict=True)
    ]
    return within(_dot(replace(bench, bf16_products="exact")), tuple(wants), tuple(bounds), "fp32", bench.able)


def _pairs(bench: Bench) -> Measured:
    """``tl.dot`` with the option has the bits of the instruction's manual."""
    got = _dot(replace(bench, bf16_products="pairs"))
    wanted = added_in_pairs(*_operands(), torch.zeros(_SHAPE[0], _SHAPE[1]))
    wrong = got.view(torch.int32) != wanted.view(torch.int32)
    if bool(wrong.any()):
        m, n = (int(one) for one in wrong.nonzero()[0])
        raise Wrong(f"element [{m}, {n}] is {got[m, n].item()!r}, not {wanted[m, n].item()!r} as by vdpbf16ps")
    return Measured(0.0, ("bf16_pairs: denormals of operands and sums become zeros",))


def _compiled(option: str) -> Any:
    """A compiled graph's ``torch.mm`` flushes denormals only where the option lets it."""

    def run(bench: Bench) -> Measured:
        a, b = _operands()
        with torch.no_grad():
            got = compiled(replace(bench, bf16_products=option), torch.mm)(a, b)
            flushes = bool((torch.mm(a, b)[::4] == 0).all())
        x, y = exact(a), exact(b)
        kept, zeros = x @ y, flushed(x, "bf16") @ flushed(y, "bf16")
        bound = accumulated(kept, np.abs(x) @ np.abs(y), _SHAPE[2], "bf16", bench.able)
        if not (flushes or (option == "pairs" and bench.able.bf16_pairs)):
            return within(got, kept, bound, "bf16", bench.able)
        least = torch.finfo(torch.bfloat16).tiny * _SHAPE[2]  # each sum on the way may have become zero
        zeros = np.where(np.abs(zeros) < least, 0.0, zeros)
        measured = within(got, (kept, zeros), (bound, bound + least * (np.abs(kept) < least)), "bf16", bench.able)
        note = f'compiled products with bf16_products="{option}" take denormals for zeros'
        return Measured(measured.worst, (note,) if bool((got[::4] == 0).all()) else ())

    return run

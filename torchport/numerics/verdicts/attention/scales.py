"""Faults of attention in its scale: that of scores, and those of gradients."""

from __future__ import annotations

import math

from torchport.numerics.verdicts.attention.fault import Fault, Tries, to
from torchport.numerics.verdicts.attention.reference import Attention, Results
from torchport.numerics.verdicts.attention.solve import factor_between, scale_of

__all__ = ["FACTORS", "SCALES"]


def _scales(right: Attention) -> dict[str, tuple[str, float]]:
    """Wrong scales that have a name, with what is said of them."""
    scale, size, width = right.scale, max(1, right.query.shape[-1]), max(1, right.value.shape[-1])
    return {
        "scale missing": ("1", 1.0),
        "scale twice": (f"{scale:.6g} twice, {_said(scale * scale, size)},", scale * scale),
        "scale of the size": (f"1/d = {1 / size:.6g}", 1 / size),
        "scale of the values' size": (f"1/sqrt(d of values) = {width**-0.5:.6g}", width**-0.5),
        "log2(e) missing": (f"{scale * math.log(2):.6g}, as if exp2 took natural scores,", scale * math.log(2)),
        "log2(e) twice": (f"{scale / math.log(2):.6g}, as if exp took scores for exp2,", scale / math.log(2)),
    }


def _scaled(right: Attention, says: str, scale: float) -> Tries:
    """Attention with another scale of its scores; backward, of its gradients, too, or of its scores alone."""
    says = f"scores are multiplied by {says} in place of {_scale(right)}"
    yield says, to(scale=scale)
    if right.grad is not None and right.scale:
        a, b = (one * scale / right.scale for one in right.factors)
        yield f"{says}, the gradients of queries and keys with them", to(scale=scale, factors=(a, b))


def _said(scale: float, size: int) -> str:
    return f"1/d = {scale:.6g}" if math.isclose(scale, 1 / size, rel_tol=1e-6) else f"{scale:.6g}"


def _scale(right: Attention) -> str:
    usual = math.isclose(right.scale, right.query.shape[-1] ** -0.5, rel_tol=1e-6)
    return f"1/sqrt(d) = {right.scale:.6g}" if usual else f"{right.scale:.6g}"


def _known_scale(name: str) -> Fault:
    def tries(right: Attention, got: Results) -> Tries:
        says, scale = _scales(right)[name]
        same = (right.scale, *((right.scale**2,) if name == "scale of the size" else ()))
        if not any(math.isclose(scale, one, rel_tol=1e-3) for one in same):
            yield from _scaled(right, says, scale)

    return Fault(name, tries)


def _other_scale(right: Attention, got: Results) -> Tries:
    found = scale_of(right, got)
    known = (scale for _, scale in _scales(right).values())
    if found is not None and not any(math.isclose(found, one, rel_tol=0.02) for one in known):
        yield from _scaled(right, f"{found:.4g}", found)


def _factor(name: str, *which: str) -> Fault:
    """Wrong factors of the gradients of query, key or both."""

    def tries(right: Attention, got: Results) -> Tries:
        wanted = [f"grad_{one}" for one in which]
        if right.grad is None or not got.keys() >= set(wanted) or (right.copies and "query" in which):
            return
        exact, factors, says = right.results(), dict(zip(("query", "key"), right.factors, strict=True)), []
        for one, result in zip(which, wanted, strict=True):
            ratio, own = factor_between(got[result], exact[result]), factors[one]
            if not math.isfinite(ratio) or math.isclose(ratio, 1, rel_tol=1e-3):
                return
            factors[one], said = _known_factor(ratio, own)
            says.append(f"the gradient of {one} {said}")
        yield " and ".join(says), to(factors=tuple(factors.values()))

    return Fault(name, tries)


def _known_factor(ratio: float, own: float) -> tuple[float, str]:
    """The factor that gradients have that are ``ratio`` times what they should be, and what to say of it."""
    for factor, said in ((1.0, "is not scaled"), (own * own, "is scaled twice")):
        if math.isclose(factor, own * ratio, rel_tol=1e-2):
            return factor, said
    return own * ratio, f"is {ratio:.4g} times what it should be"


SCALES = (
    *map(_known_scale, ("scale missing", "scale twice", "scale of the size", "scale of the values' size",
                        "log2(e) missing", "log2(e) twice")),
    Fault("scale", _other_scale),
)  # fmt: skip
"""Of scores."""

FACTORS = (
    _factor("scale of the gradient of query", "query"),
    _factor("scale of the gradient of key", "key"),
    _factor("scale of gradients", "query", "key"),
)
"""Of gradients, after the product."""

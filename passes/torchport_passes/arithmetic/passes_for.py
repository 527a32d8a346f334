"""Reads the option ``arithmetic`` of CPU kernels, JSON text that chooses their arithmetic (docs/numerics/rules.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torchport.errors import OptionError
from torchport.pipeline import Pass

__all__ = ["passes_for"]


def passes_for(text: str) -> list[Pass]:
    """The passes that give imported TTIR the arithmetic that ``text`` describes; none for empty text.

    The text is ``{"algebra": true}``, ``{"algebra": true, "order": true}``, ``{"promote": true}`` or
    ``{"rules": ...}``. With ``"noise": {"ulp": {"exp": 2}}`` besides promotion, the kernel takes two more arguments, a
    seed and a scale of noise; ``seed`` and ``scale`` in the text are for the launch. ``"casts": false`` in ``noise``
    leaves out that of conversions. Raises OptionError for text that is not JSON, and for unknown keys.
    """
    if not text:
        return []
    try:
        arithmetic = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"option arithmetic is not JSON ({error}): {text[:80]!r}") from None
    _check("arithmetic", arithmetic, {"algebra", "order", "promote", "noise", "rules"})
    if arithmetic.get("algebra"):
        if not set(arithmetic) <= {"algebra", "order"}:
            raise OptionError("option arithmetic has algebra and something else; payloads are not rounded")
        from torchport_passes.arithmetic.algebra import Algebra
        from torchport_passes.arithmetic.keep_order import KeepOrder

        return [Algebra(roundings=True), KeepOrder()] if arithmetic.get("order") else [Algebra()]
    if "order" in arithmetic:
        raise OptionError("option arithmetic has order without algebra")
    if arithmetic.get("promote"):
        if "rules" in arithmetic:
            raise OptionError("option arithmetic has both promote and rules; rules are for kernels in their own types")
        return [_promotion(arithmetic.get("noise"))]
    if "noise" in arithmetic:
        raise OptionError("option arithmetic has noise without promote")
    if arithmetic.get("rules"):
        from torchport_passes.arithmetic.rules import rule_passes

        return rule_passes(arithmetic["rules"])
    return []


def _promotion(noise: Any) -> Pass:
    from torchport_passes.arithmetic.promote import Promote

    if noise is None:
        return Promote()
    _check("noise", noise, {"seed", "scale", "ulp", "casts"})
    ulp, casts = noise.get("ulp", {}), noise.get("casts", True)
    if not isinstance(casts, bool):
        raise OptionError(f"option arithmetic: casts of noise must be true or false, not {casts!r}")
    if not isinstance(ulp, Mapping) or not all(isinstance(value, (int, float)) for value in ulp.values()):
        raise OptionError(f"option arithmetic: ulp must be a table of numbers by function, not {ulp!r}")
    return Promote(noise=True, ulp=";".join(f"{name}:{ulp[name]}" for name in sorted(ulp)), casts=casts)


def _check(what: str, table: Any, known: set[str]) -> None:
    if not isinstance(table, Mapping):
        raise OptionError(f"option arithmetic: {what} must be a JSON object, not {table!r}")
    if unknown := sorted(set(table) - known):
        raise OptionError(f"option arithmetic: {what} has no {unknown[0]!r}; it knows {', '.join(sorted(known))}")

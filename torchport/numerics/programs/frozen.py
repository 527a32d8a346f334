"""How far results may be apart: where weights were frozen into a graph and folded, they were rounded anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.graphs.evaluate import evaluate
from torchport.numerics.programs.evaluation import TOLERANCE, Pairing, rounding_of
from torchport.numerics.programs.program import Program, Result
from torchport.numerics.programs.sketch import distance, sketch_of

__all__ = ["tolerances"]

_TIMES = 16.0
"""Results may be apart by so many times what one rounding of each frozen weight makes."""


def tolerances(pairing: Pairing, results: list[tuple[Result, Result]]) -> float:
    """How far results may be apart, relative to their norm.

    That is what float64 makes of it; or rounding of frozen weights, or of recorded values that stand for nodes.
    """
    allowed = max(TOLERANCE, rounding_of(pairing.first, pairing.other))
    for program, values, ends in (
        (pairing.a, pairing.values[0], [one.node for one, _ in results]),
        (pairing.b, pairing.values[1], [other.node for _, other in results]),
    ):
        frozen = {name: _rounded(name, values[name]) for name, one in program.externals.items()
                  if one.kind == "constant" and name in values}  # fmt: skip
        frozen.update(_small(program, set(frozen)))
        if frozen:
            exact = _results(program, values, ends, {})
            moved = _results(program, values, ends, frozen)
            apart = [
                distance(sketch_of(exact[end]), sketch_of(moved[end])) for end in ends if end in exact and end in moved
            ]
            allowed = max([allowed, *(_TIMES * one for one in apart if one < 1)])
    return allowed


def _small(program: Program, known: set[str]) -> dict[str, Any]:
    """Frozen weights that are small enough for the graph's description to have them."""
    found = {}
    for node in program.dump["nodes"]:
        constant = program.dump["constants"].get(node["target"]) if node["op"] == "get_attr" else None
        if node["name"] in known or not isinstance(constant, Mapping) or constant.get("values") is None:
            continue
        if "_frozen_param" not in node["target"] or "float" not in constant["dtype"]:
            continue
        value = evaluate(program.dump, {}, wanted=[node["name"]], refused={}).get(node["name"])
        if isinstance(value, torch.Tensor):
            found[node["name"]] = _rounded(node["name"], value.to(getattr(torch, constant["dtype"])))
    return found


def _rounded(name: str, value: Any) -> Any:
    """A weight, off by up to one rounding of its type, float64."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    signs = torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()), dtype=torch.float64)
    return value.double() * (1 + signs * format_of(value.dtype).unit)


def _results(program: Program, values: Mapping[str, Any], ends: list[str], frozen: Mapping[str, Any]) -> dict[str, Any]:
    constants = {name: value for name, value in values.items() if program.externals[name].kind == "constant"}
    return evaluate(program.dump, values, wanted=ends, given={**constants, **frozen}, refused={})

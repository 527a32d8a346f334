"""Pairs what two programs are given: by names in the model, else by content, else by order among those of one shape."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from torchport.numerics.programs.evaluation import made_up
from torchport.numerics.programs.program import External, Program

__all__ = ["LARGEST", "elements", "pair_externals", "values_of"]


def pair_externals(a: Program, b: Program) -> dict[str, str]:
    """Externals of A by externals of B. Several of B may have one of A: a weight that two graphs read."""
    pairs: dict[str, str] = {}
    named: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in a.externals.values():
        if one.name:
            named[_kind(one), one.name].append(one.node)
    for other in b.externals.values():
        if other.name and (found := named.get((_kind(other), other.name))):
            same = [node for node in found if a.externals[node].graph == other.graph]
            pairs[other.node] = (same or found)[0]
    _by_endings(a, b, pairs)
    for key in (_place, _hash, _form):
        _in_order(a, b, pairs, key)
    return pairs


def _by_endings(a: Program, b: Program, pairs: dict[str, str]) -> None:
    """Pair what is called alike in a part of the model and in the whole of it."""
    taken = {a.externals[node].name for node in pairs.values()}
    left = [one for one in a.externals.values() if one.name and one.name not in taken]
    for other in b.externals.values():
        if not other.name or other.node in pairs:
            continue
        alike = [
            one
            for one in left
            if _kind(one) == _kind(other)
            and f".{one.name}".endswith(f".{other.name}") | f".{other.name}".endswith(f".{one.name}")
        ]
        if len({one.name for one in alike}) == 1:
            pairs[other.node] = alike[0].node


def _kind(one: External) -> str:
    return "weight" if one.kind in ("parameter", "buffer") else one.kind


def _place(one: External) -> Any:
    """Name of the node, for runs that have no names in the model and no other order."""
    return None if one.name or one.kind == "constant" else (one.graph, one.node, _form(one))


def _hash(one: External) -> Any:
    summary = one.arg.summary if one.arg is not None else None
    return None if not summary or not one.arg else (summary.get("hash"), one.arg.shape)


def _form(one: External) -> Any:
    """Shape, and whether it is a weight that was frozen: such a one is not another's."""
    return one.kind == "constant", None if one.arg is None or one.arg.role == "scalar" else one.arg.shape


def _in_order(a: Program, b: Program, pairs: dict[str, str], key: Any) -> None:
    taken = set(pairs.values())
    first = [one for one in a.externals.values() if one.node not in taken and key(one) is not None]
    second = [one for one in b.externals.values() if one.node not in pairs and key(one) is not None]
    matcher = difflib.SequenceMatcher(None, [key(one) for one in first], [key(one) for one in second], autojunk=False)
    for block in matcher.get_matching_blocks():
        for index in range(block.size):
            one, other = first[block.a + index], second[block.b + index]
            if not (one.name and other.name and key is _form):  # two names are two things
                pairs[other.node] = one.node


LARGEST = 2**28
"""Elements that a program may be given for it to be evaluated: 2 GiB in float64."""


def elements(program: Program) -> int:
    """How many elements a program is given."""
    return sum(math.prod(one.arg.shape) for one in program.externals.values() if one.arg is not None)


def values_of(a: Program, b: Program, pairs: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of both programs' externals: paired ones of one shape have A's, and what was not recorded is made up."""
    first = {node: _value(a, node, "A") for node in a.externals}
    second = {}
    for node in b.externals:
        twin = first.get(pairs.get(node, ""))
        own = b.externals[node].arg
        fits = not isinstance(twin, torch.Tensor) or (own is not None and tuple(twin.shape) == tuple(own.shape))
        second[node] = twin if twin is not None and fits else _value(b, node, "B")
    return (
        {node: value for node, value in first.items() if value is not None},
        {node: value for node, value in second.items() if value is not None},
    )


def _value(program: Program, node: str, run: str) -> Any:
    value = program.given(node)
    arg = program.externals[node].arg
    if value is not None or arg is None or arg.role == "scalar" or arg.dtype is None or math.prod(arg.shape) > LARGEST:
        return value
    dtype: torch.dtype = getattr(torch, arg.dtype)
    return made_up(f"{run} {node}", arg.shape) if dtype.is_floating_point else torch.zeros(arg.shape, dtype=dtype)

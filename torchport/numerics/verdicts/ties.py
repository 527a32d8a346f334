"""Indices of elements that tie: which of equal elements an argmax or a sort names is nobody's business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.numerics.graphs.dump import references
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.recorded_call import RecordedCall

__all__ = ["are_ties"]

_SINGLE = {"argmax": 1, "argmin": 1}
"""Operations whose result is an index, by the position of the dimension among their arguments."""

_SECOND = {
    "max": (1, -1), "min": (1, -1), "median": (1, -1), "nanmedian": (1, -1), "mode": (1, -1), "kthvalue": (2, -1),
    "sort": (1, -1), "topk": (2, -1), "cummax": (1, -1), "cummin": (1, -1),
}  # fmt: skip
"""Operations whose second result is indices, by the position of the dimension, and the dimension if none is given."""

_COPIES = (
    "prims.convert_element_type.", "aten._to_copy.", "aten.clone.", "aten.view.", "aten.reshape.", "aten._unsafe_view.",
    "aten.squeeze", "aten.unsqueeze", "aten.alias.", "aten.detach.",
)  # fmt: skip
"""Operations that leave indices as they are, and in their order."""

_SAME = 2.0**-40
"""How far elements may be apart in float64, relative to the larger, that are the same number computed twice."""


def are_ties(call: RecordedCall, launch: Launch, node: str, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Where indices ``one`` and ``other``, results of ``node`` of equal shape, name elements of the same value.

    Nowhere if the node is no index, if what is indexed has no float64 value, or if a sort names an element twice.
    """
    none = torch.zeros(one.shape, dtype=torch.bool)
    found = _indexed(call.nodes, node)
    if found is None or one.dtype == torch.bool:
        return none
    source, dim, is_permutation = found
    values = call.reference.inside(launch, [source]).get(source, call.graph.inputs.get(source))
    if not isinstance(values, torch.Tensor):
        return none
    values = values.double() if values.is_floating_point() else values
    shape = _shape(call, node, values.shape, dim)
    if shape is None:
        return none
    values, dim = (values.reshape(-1), 0) if dim is None else (values, dim)
    size = values.shape[dim] if values.dim() else 1
    pair = [indices.reshape(shape).long() for indices in (one, other)]
    inside = ((pair[0] >= 0) & (pair[0] < size) & (pair[1] >= 0) & (pair[1] < size)).reshape(one.shape)
    if values.dim() == 0 or not bool(inside.any()):
        return none
    if is_permutation and not _permutes(pair[0], dim, size):
        return none
    a, b = (torch.gather(values, dim, indices.clamp(0, size - 1)) for indices in pair)
    same = (a == b) | (torch.isnan(a) & torch.isnan(b)) if values.is_floating_point() else a == b
    if values.is_floating_point():
        same |= (a - b).abs() <= _SAME * torch.maximum(a.abs(), b.abs())
    return same.reshape(one.shape) & inside


def _indexed(nodes: Mapping[str, Mapping[str, Any]], node: str) -> tuple[str, int | None, bool] | None:
    """The node whose elements the indices ``node`` name, in which dimension, and whether a sort gave them."""
    while nodes[node]["target"].startswith(_COPIES):
        behind = next(references(nodes[node]["args"]), None)
        if behind is None or behind not in nodes:
            return None
        node = behind
    described = nodes[node]
    name = _name(described["target"])
    if name in _SINGLE:
        given = _argument(described, _SINGLE[name], "dim")
        return _source(described, given if isinstance(given, int) else None, sort=False)
    if described["target"] != "operator.getitem" or described["args"][1] != 1:
        return None
    described = nodes[next(references(described["args"]))]
    name = _name(described["target"])
    if name not in _SECOND:
        return None
    place, usual = _SECOND[name]
    if described["target"] == "aten.sort.stable":
        place += 1
    given = _argument(described, place, "dim")
    return _source(described, given if isinstance(given, int) else usual, sort=name == "sort")


def _name(target: str) -> str:
    return target.removeprefix("aten.").partition(".")[0] if target.startswith("aten.") else ""


def _argument(node: Mapping[str, Any], place: int, name: str) -> Any:
    return node["args"][place] if len(node["args"]) > place else node["kwargs"].get(name)


def _source(node: Mapping[str, Any], dim: int | None, *, sort: bool) -> tuple[str, int | None, bool] | None:
    source = next(references(node["args"]), None)
    return None if source is None else (source, dim, sort)


def _shape(call: RecordedCall, node: str, size: torch.Size, dim: int | None) -> list[int] | None:
    """The shape in which indices are gathered from what they index; None if they have other elements."""
    wanted = call.graph.shape(node)
    if wanted is None:
        return None
    count = torch.Size(wanted).numel()
    if dim is None:
        return [count]
    if not size:
        return None
    others = torch.Size([*size[: dim % len(size)], *size[dim % len(size) + 1 :]]).numel()
    if others == 0 or count % others:
        return None
    shape = list(size)
    shape[dim % len(size)] = count // others
    return shape


def _permutes(indices: torch.Tensor, dim: int, size: int) -> bool:
    ordered = indices.sort(dim).values.movedim(dim, -1)
    return ordered.shape[-1] == size and bool((ordered == torch.arange(size)).all())

"""Weights and inputs that differ in content, and in what way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from torchport.numerics.programs.difference import Difference
from torchport.numerics.programs.program import External, Program

__all__ = ["Given", "compare_data", "in_words"]

_SWAPS = 4
"""Up to how many dimensions of two tensors are tried for a transposition."""


class Given:
    """What two programs were given: ``differences``, and ``notes`` on what does not count as one."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.notes: list[str] = []
        self.converted: dict[str, int] = {}
        self.compared = 0


def compare_data(a: Program, b: Program, pairs: Mapping[str, str]) -> Given:
    """Compare the content of paired externals, each name once, and name those without a partner."""
    found = Given()
    contents = {_bits(one): one.title for one in a.externals.values() if _bits(one) is not None}
    known: set[tuple[bool, str]] = set()
    for node, twin in pairs.items():
        one, other = a.externals[twin], b.externals[node]
        key = (_is_data(other), other.title)
        if key in known:
            continue  # a later graph reads it again, maybe after it was written into
        known.add(key)
        _compare(a, b, one, other, found, contents.get(_bits(other), ""))
    for count, (kind, text) in enumerate(_alone(a, b, pairs)):
        if count < 20:
            found.differences.append(Difference(kind, text.split(" ", 1)[0], text))
    for text, count in found.converted.items():
        found.notes.append(f"{count} of the weights and inputs are {text}: a conversion, not another value")
    return found


def _is_data(one: External) -> bool:
    return one.kind not in ("parameter", "buffer", "constant")


def _bits(one: External) -> Any:
    summary = one.arg.summary if one.arg is not None else None
    return None if not summary or one.arg is None else (summary.get("hash"), one.arg.dtype, one.arg.shape)


def _compare(a: Program, b: Program, one: External, other: External, found: Given, holds: str) -> None:
    """``holds``: what A calls the content of ``other``; empty if it has none like it."""
    kind = "input" if _is_data(other) else "weight"
    if one.arg is None or other.arg is None:
        return
    found.compared += 1
    if one.arg.role == "scalar" or other.arg.role == "scalar":
        text = None if one.arg.value == other.arg.value else f"{one.arg.value} and {other.arg.value}"
    elif one.arg.shape != other.arg.shape:
        text = f"shape {list(one.arg.shape)} and {list(other.arg.shape)}"
    else:
        text = _content(a.tensor(one.arg, one.arg.before), b.tensor(other.arg, other.arg.before), one, other, found)
    if text is None:
        return
    if other.kind == "gradient":
        return  # of a loss that was computed outside of the graphs
    if kind == "input" and other.graph > 0:
        found.notes.append(
            f"input {other.title} of graph {other.graph + 1} differs ({text}): it may follow from what ran before"
        )
        return
    if holds and holds != one.title:
        text += f"; it is A's {holds}"
    found.differences.append(Difference(kind, other.title, f"{other.title}: {text}"))


def _content(x: Any, y: Any, one: External, other: External, found: Given) -> str | None:
    """How the contents of two tensors of one shape differ; None if they do not."""
    assert one.arg is not None and other.arg is not None
    summaries = one.arg.summary, other.arg.summary
    if one.arg.dtype == other.arg.dtype and one.arg.stride == other.arg.stride and all(summaries):
        if summaries[0].get("hash") == summaries[1].get("hash"):  # type: ignore[union-attr]
            return None
        if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)):
            return _in_statistics(*summaries)
    if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)):
        return None  # of other types, and only statistics were kept
    if x.dtype != y.dtype and x.is_floating_point() and y.is_floating_point():
        narrow = x.dtype if torch.finfo(x.dtype).eps > torch.finfo(y.dtype).eps else y.dtype
        if _equal(x.to(narrow), y.to(narrow)):
            text = f"{one.arg.dtype} and {other.arg.dtype}"
            found.converted[text] = found.converted.get(text, 0) + 1
            return None
    return None if _equal(x, y) else in_words(x, y)


def _equal(x: torch.Tensor, y: torch.Tensor) -> bool:
    return (
        torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)) if x.dtype == y.dtype else torch.equal(x, y.to(x.dtype))
    )


def _in_statistics(x: Any, y: Any) -> str:
    sizes = [one.get("mean_square") for one in (x, y)]
    if None in sizes:
        return "other bits"
    return "other bits; root mean square {:.6g} and {:.6g}".format(*(float(size) ** 0.5 for size in sizes))


def in_words(x: torch.Tensor, y: torch.Tensor) -> str:
    """Where and how two tensors of one shape differ."""
    differs = x != y.to(x.dtype) if x.dtype != y.dtype else x != y
    if x.is_floating_point():
        differs &= ~(x.isnan() & y.isnan())
    count = int(differs.sum())
    text = f"{count} of {x.numel()} elements differ{_region(differs)}"
    same_kind = x.dtype == y.dtype
    if same_kind and (how := _rearranged(x, y)) is not None:
        return f"{text}; {how}"
    if x.is_floating_point() and y.is_floating_point():
        wide, other = torch.nan_to_num(x.double()), torch.nan_to_num(y.double())
        energy = float(wide.square().sum())
        if energy > 0:
            factor = float((wide * other).sum()) / energy
            if float((other - factor * wide).norm()) <= 1e-5 * float(other.norm()) and abs(factor - 1) > 1e-4:
                return f"{text}; B's is A's times {factor:.6g}"
            text += f", by {float((other - wide).norm()) / energy**0.5:.2g} (relative L2)"
    return text


def _region(differs: torch.Tensor) -> str:
    """The smallest box that holds what differs, if that is not all."""
    if differs.dim() == 0 or bool(differs.all()):
        return ""
    places = differs.nonzero()
    low, high = places.amin(0).tolist(), places.amax(0).tolist()
    box = ", ".join(
        ":" if one == 0 and last == size - 1 else f"{one}:{last + 1}"
        for one, last, size in zip(low, high, differs.shape, strict=True)
    )
    return f", in [{box}]" if box.strip(":, ") else ""


def _rearranged(x: torch.Tensor, y: torch.Tensor) -> str | None:
    """Whether y has x's elements in another order."""
    dims = x.dim()
    if dims <= _SWAPS:
        for first in range(dims):
            for second in range(first + 1, dims):
                if x.shape[first] == x.shape[second] and torch.equal(x.transpose(first, second), y):
                    return f"B's is A's with dimensions {first} and {second} exchanged"
    for dim in range(min(dims, _SWAPS)):
        rows = [one.movedim(dim, 0).reshape(one.shape[dim], -1) for one in (x, y)]
        if rows[0].shape[1] == 0 or rows[0].dtype == torch.bool:
            continue
        keys = [row.double().nan_to_num() @ _weights(row.shape[1]) for row in rows]
        if torch.equal(*(key.sort().values for key in keys)):
            moved = int((keys[0] != keys[1]).sum())
            return f"B's has A's slices of dimension {dim} in another order ({moved} of {x.shape[dim]} moved)"
    if torch.equal(*(one.reshape(-1).double().nan_to_num().sort().values for one in (x, y))):
        return "B's has A's elements in another order"
    return None


def _weights(count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)


def _alone(a: Program, b: Program, pairs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Named externals of one run that the other does not have."""
    taken = set(pairs.values())
    frozen = a.is_frozen or b.is_frozen
    lists = (("A", a, [one for one in a.externals.values() if one.node not in taken]),
             ("B", b, [one for one in b.externals.values() if one.node not in pairs]))  # fmt: skip
    titles = {"A": {one.title for one in a.externals.values()}, "B": {one.title for one in b.externals.values()}}
    for run, _, left in lists:
        known = titles["B" if run == "A" else "A"]
        for one in left:
            if one.arg is None or one.arg.role == "scalar" or (one.kind == "input" and not one.arg.shape):
                continue  # a size or a number that is a constant of the other graph
            if not one.name or one.kind in ("", "constant", "gradient") or one.name in known:
                continue
            if one.kind != "input" and frozen:
                continue  # a weight that the other run has as a constant
            yield ("input" if one.kind == "input" else "weight"), f"{one.name} is in {run} only"

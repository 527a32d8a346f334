"""Puts the parts of a tensor that ranks hold together: by its placement, or by what fits a shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from torchport.numerics.runs.schema import Placement

__all__ = ["by_placement", "by_shape"]


def by_placement(parts: Mapping[int, torch.Tensor], placement: Placement) -> tuple[torch.Tensor, str] | str:
    """The whole of a DTensor and how it is placed, in words; text if it cannot be told, and why.

    A dimension that is placed on several dimensions of a mesh is divided by them in their order, by those with a
    strided shard last (``torch.distributed.tensor``'s ``_StridedShard``).
    """
    sizes, dims = placement["mesh_shape"], placement["dims"]
    known = ("replicate", "partial", "shard ", "strided shard ")
    if unknown := [one for one in dims if not one.startswith(known)]:
        return f"the placement {unknown[0]} is not known here"
    if absent := [rank for rank in placement["mesh"] if rank not in parts]:
        return f"the part of rank {absent[0]} was not recorded"
    grid: dict[tuple[int, ...], torch.Tensor] = {}
    for rank, place in zip(placement["mesh"], _places(sizes), strict=True):
        grid[place] = parts[rank]
    # What was divided last is put together first.
    order = sorted(range(len(sizes)), key=lambda dim: (dims[dim].startswith("strided"), dim), reverse=True)
    for dim in order:
        merged: dict[tuple[int, ...], torch.Tensor] = {}
        for place in {(*one[:dim], 0, *one[dim + 1 :]) for one in grid}:
            members = [(*place[:dim], index, *place[dim + 1 :]) for index in range(sizes[dim])]
            line = [grid[member] for member in members]
            made = _merged(line, dims[dim])
            if made is None:
                return f"its parts do not fit together: {[list(one.shape) for one in line]}"
            merged[place] = made
        grid = merged
    whole = next(iter(grid.values()))
    if list(whole.shape) != placement["shape"]:
        return f"its parts make {list(whole.shape)}, and it should be {placement['shape']}"
    return whole, ", ".join(dims)


def _places(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    return [
        tuple(one)
        for one in torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, len(sizes)).tolist()
    ]


def _merged(line: Sequence[torch.Tensor], how: str) -> torch.Tensor | None:
    """None if shapes do not fit."""
    if how == "replicate":
        return line[0]
    if how == "partial":
        fits = all(one.shape == line[0].shape for one in line)
        return torch.stack([one.double() for one in line]).sum(0).to(line[0].dtype) if fits else None
    dim = int(how.rpartition(" ")[2])
    rest = [(*one.shape[:dim], *one.shape[dim + 1 :]) for one in line]
    return torch.cat(list(line), dim) if all(one == rest[0] and len(one) >= dim for one in rest) else None


def by_shape(parts: Mapping[int, torch.Tensor], shape: Sequence[int]) -> tuple[torch.Tensor, str] | str:
    """The whole, of a shape, and how it is placed, in words; text if the parts do not make it.

    Parts of the whole's shape are replicas if all have the same bits; else the first stands for them.
    """
    ordered = [parts[rank] for rank in sorted(parts)]
    if all(list(one.shape) == list(shape) for one in ordered):
        same = all(torch.equal(one.nan_to_num(), ordered[0].nan_to_num()) for one in ordered)
        return (ordered[0], "replicate") if same else "the ranks hold other values of the same shape"
    for dim in range(len(shape)):
        others = [[size for place, size in enumerate(one.shape) if place != dim] for one in ordered]
        wanted = [size for place, size in enumerate(shape) if place != dim]
        fits = all(one.dim() == len(shape) for one in ordered) and all(one == wanted for one in others)
        if fits and sum(one.shape[dim] for one in ordered) == shape[dim]:
            return torch.cat(ordered, dim), f"shard {dim}"
    return f"parts of shapes {[list(one.shape) for one in ordered]} do not make {list(shape)}"

"""Follows a launch on a target of torchport's: what each element that it writes was computed from, in which order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from torchport.errors import CompilationError, UnsupportedOperation
from torchport.listing import Lists
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.trees.lanes import Lanes
from torchport.numerics.trees.machine import Machine
from torchport.numerics.trees.memory import Memory, NotFollowed, Region
from torchport.numerics.trees.nodes import NONE, Nodes, Symbols
from torchport.numerics.verdicts.replay import view
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["Followed", "follow"]

_TYPES = {torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16"}
_SCALARS = {"fp32": "f32", "fp64": "f64", "fp16": "f16", "bf16": "bf16"}
CPU = Target("cpu")
PROGRAMS = 4096
STEPS = 3_000_000


@dataclass(frozen=True)
class Followed:
    """A launch that was followed.

    nodes: all operations.
    results: by storage, the node of each element that is of floats and was written; NONE elsewhere.
    arguments: names of the launch's tensors, by storage.
    """

    nodes: Nodes
    results: dict[int, np.ndarray[Any, Any]]
    arguments: dict[int, str]


def follow(
    launch: AlgebraLaunch,
    programs: Iterable[tuple[int, int, int]] | None = None,
    target: Target = CPU,
    *,
    arithmetic: str = "",
    steps: int = STEPS,
) -> Followed:
    """Run a launch on symbols. ``programs``: those that are run; default: all, x fastest.

    Floats of the launch's storages are symbols, integers are taken as they are. ``arithmetic``: the option of CPU
    kernels, for an emulated chip. ``steps``: operations that are followed. Raises NotFollowed with the reason: a
    target that shows no lowered code, a branch, address or mask that depends on floats, too many operations.
    """
    compiler = backend_for(target).compiler(target)
    if not isinstance(compiler, Lists):
        raise NotFollowed(f"target {target} does not show what it makes of a kernel")
    try:
        listing = compiler.listing(launch.ttir, "vectors", arithmetic)
    except (UnsupportedOperation, CompilationError) as error:
        raise NotFollowed(str(error)) from error
    nodes = Nodes()
    memory = Memory(nodes)
    regions = {number: _region(memory, number, storage) for number, storage in launch.storages.items()}
    values: list[Any] = []
    for one in launch.arguments:
        if one.type == "constexpr":
            continue
        if one.storage is None:
            if one.type.startswith("*") or one.value is None:
                raise NotFollowed(f"argument {one.name} is an address, not a tensor")
            type_ = _SCALARS.get(one.type)
            values.append(
                int(one.value)
                if type_ is None
                else Symbols(np.array([nodes.constant(_rounded(one.value, type_), type_)]))
            )
            continue
        storage = launch.storages[one.storage]
        view(one, storage)
        values.append(regions[one.storage].base + one.offset * storage.element_size())
    machine = (Lanes if listing.lanes else Machine)(listing, memory, nodes, steps)
    every = list(_programs(launch.grid)) if programs is None else list(programs)
    if len(every) > PROGRAMS:
        raise NotFollowed(f"a launch of {len(every)} programs has more than are followed")
    for program in every:
        machine.run(values, program, launch.grid)
    results = {number: _written(region) for number, region in regions.items() if region.type}
    names = {one.storage: one.name for one in reversed(launch.arguments) if one.storage is not None}
    return Followed(nodes, results, names)


def _programs(grid: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    if math.prod(grid) > PROGRAMS:
        raise NotFollowed(f"a launch of {math.prod(grid)} programs has more than are followed")
    for z in range(grid[2]):
        for y in range(grid[1]):
            for x in range(grid[0]):
                yield x, y, z


def _rounded(value: float, type_: str) -> float:
    dtype = next(one for one, name in _TYPES.items() if name == type_)
    return float(torch.tensor(float(value), dtype=dtype).double())


def _region(memory: Memory, number: int, storage: torch.Tensor) -> Region:
    if storage.is_floating_point():
        if storage.dtype not in _TYPES:
            raise NotFollowed(f"tensors of {storage.dtype} are not followed")
        return memory.storage(number, storage, _TYPES[storage.dtype])
    if storage.is_complex():
        raise NotFollowed(f"tensors of {storage.dtype} are not followed")
    return memory.storage(number, storage, "")


def _written(region: Region) -> np.ndarray[Any, Any]:
    return np.where(region.written, np.where(region.symbolic, region.cells, NONE), NONE)

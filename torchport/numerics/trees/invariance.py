"""Batch invariance of a kernel, certified from the order of its operations: for all numbers, without running it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from torchport.errors import CompilationError, UnsupportedOperation
from torchport.listing import Lists
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.trees.dependence import Dependence, check_rows
from torchport.numerics.trees.follow import CPU, STEPS, Followed, follow
from torchport.numerics.trees.identity import Identities
from torchport.numerics.trees.memory import NotFollowed
from torchport.numerics.trees.nodes import CONSTANT, LOAD, NONE
from torchport.numerics.trees.values import needed
from torchport.numerics.verdicts.replay import Argument
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["CERTIFIED", "DEPENDS", "NOT_KNOWN", "Invariance", "invariance", "same_rows"]

CERTIFIED, DEPENDS, NOT_KNOWN = "CERTIFIED", "DEPENDS", "NOT KNOWN"
_TRIED = (1, 2, 3, 5, 8)
_LARGE = 257
_MOST_CUTS = 64


@dataclass(frozen=True)
class Invariance:
    """Whether a kernel's results for a row depend on the batch.

    verdict: CERTIFIED, DEPENDS or NOT KNOWN.
    every_size: of CERTIFIED: whether that holds for all batches, or for ``sizes`` only.
    sizes: batches whose trees were compared.
    rows: how many rows that were, of all batches together.
    reason: why it depends, is not known, or is certified for ``sizes`` only.
    """

    verdict: str
    every_size: bool = False
    sizes: tuple[int, ...] = ()
    rows: int = 0
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def invariance(make: Callable[[int], AlgebraLaunch], target: Target = CPU) -> Invariance:
    """Whether a row's results depend on how many other rows there are, where it is among them, and what they are.

    ``make``: the launch for a batch of so many rows. What changes with it tells the batch apart: integers among the
    arguments, the grid, and one dimension of each tensor that has rows, which is a multiple of the batch. Floats that a
    row is computed from must be its own, or of tensors that are the same for every batch.
    """
    launch = functools.cache(make)
    try:
        unknown, lanes = _every_size(launch, target)
        sizes = tuple(sorted({*_TRIED, *(range(1, lanes + 2) if not unknown else ())}))
        rows = _Comparison(launch(1), launch(2), 2, target).all({size: launch(size) for size in sizes})
    except _Depends as found:
        return Invariance(DEPENDS, reason=str(found))
    except (NotFollowed, UnsupportedOperation, CompilationError) as error:
        return Invariance(NOT_KNOWN, reason=str(error))
    return Invariance(CERTIFIED, not unknown, sizes, rows, unknown)


def same_rows(
    alone: AlgebraLaunch, batch: AlgebraLaunch, size: int, target: Target = CPU, *, steps: int = STEPS
) -> Invariance:
    """As ``invariance``, for two launches: one for an example alone, and one for a batch of ``size`` examples.

    They may be of two kernels; their arguments are paired in order.
    """
    try:
        alone, batch = _renumbered(alone), _renumbered(batch)
        tensors = [[one.storage for one in launch.arguments if one.storage is not None] for launch in (alone, batch)]
        if tensors[0] != tensors[1]:
            raise NotFollowed("the kernel of another batch has other tensors")
        rows = _Comparison(alone, batch, size, target, steps).all({1: alone, size: batch})
    except _Depends as found:
        return Invariance(DEPENDS, reason=str(found))
    except (NotFollowed, UnsupportedOperation, CompilationError) as error:
        return Invariance(NOT_KNOWN, reason=str(error))
    return Invariance(CERTIFIED, False, (1, size), rows, "two batches were compared")


def _renumbered(launch: AlgebraLaunch) -> AlgebraLaunch:
    """The launch with its storages numbered in the order of its tensors."""
    tensors = [one.storage for one in launch.arguments if one.storage is not None]
    numbers = {storage: number for number, storage in enumerate(dict.fromkeys(tensors))}
    arguments = tuple(
        one if one.storage is None else replace(one, storage=numbers[one.storage]) for one in launch.arguments
    )
    return replace(launch, arguments=arguments, storages={numbers[n]: launch.storages[n] for n in numbers})


def _every_size(launch: Callable[[int], AlgebraLaunch], target: Target) -> tuple[str, int]:
    """Why batches of any size may differ from those that are compared, or how many rows are masked at once."""
    launches = [launch(size) for size in (1, 2, _LARGE)]
    if len({one.ttir for one in launches}) > 1:
        return "other batches are other kernels: constants of the kernel depend on the batch", 0
    first, *others = launches
    kept = [number for number, one in enumerate(first.arguments) if one.type != "constexpr"]
    sizes = [
        position
        for position, number in enumerate(kept)
        if any(one.arguments[number].value != first.arguments[number].value for one in others)
    ]
    axes = [axis for axis in range(3) if any(one.grid[axis] != first.grid[axis] for one in others)]
    compiler = backend_for(target).compiler(target)
    if not isinstance(compiler, Lists):
        raise NotFollowed(f"target {target} does not show what it makes of a kernel")
    try:
        lanes = check_rows(compiler.listing(first.ttir, "tensors"), sizes, axes or range(3))
    except (Dependence, UnsupportedOperation) as found:
        return str(found), 0
    if lanes > _MOST_CUTS:
        return f"{lanes} rows are masked at once: not every way to cut them off was compared", lanes
    return "", lanes


class _Depends(Exception):
    pass


class _Comparison:
    """Launches for several batches, and what the first row of the first is computed from.

    ``one``, ``other``: two of them, the second for ``times`` as many rows as the first.
    """

    def __init__(
        self, one: AlgebraLaunch, other: AlgebraLaunch, times: int, target: Target, steps: int = STEPS
    ) -> None:
        self._target, self._steps = target, steps
        tensors = [[each for each in launch.arguments if each.storage is not None] for launch in (one, other)]
        self._batched = {
            first.storage: _dimension(first, second, times)
            for first, second in zip(*tensors, strict=True)
            if first.storage is not None and first.shape != second.shape
        }
        self._reference: dict[int, list[tuple[int, int]]] = {}
        self._identities = Identities()

    def all(self, launches: Mapping[int, AlgebraLaunch]) -> int:
        """Compare all rows of all batches, by their size. Returns how many. Raises _Depends."""
        return sum(self.compare(size, launch) for size, launch in sorted(launches.items()))

    def compare(self, size: int, launch: AlgebraLaunch) -> int:
        """Compare all rows of a batch with the first row of the first. Returns how many. Raises _Depends."""
        self._check_atomics(launch)
        followed = follow(launch, target=self._target, steps=self._steps)
        compared = 0
        for storage, roots in followed.results.items():
            written = np.flatnonzero(roots != NONE)
            if not len(written):
                continue
            name = followed.arguments[storage]
            if storage not in self._batched:
                raise _Depends(f"{name} has the same size for every batch: its elements are no results of one row")
            place = _Places(launch, self._batched, size)
            rows, inner = place.split(storage, written)
            self._own_rows(followed, place, roots[written], rows, name)
            found = self._identities.of(followed, roots[written], place.canonical())
            for row in range(size):
                mine = sorted((int(at), one) for at, one, of in zip(inner, found, rows, strict=True) if of == row)
                expected = self._reference.setdefault(storage, mine)
                if mine != expected:
                    raise _Depends(self._difference(name, size, row, mine, expected))
                compared += 1
        if not compared:
            raise NotFollowed("the kernel writes no floats")
        return compared

    def _difference(self, name: str, size: int, row: int, mine: list[Any], expected: list[Any]) -> str:
        where = f"row {row} of {size} in {name}"
        if [at for at, _ in mine] != [at for at, _ in expected]:
            return f"{where} is not written where row 0 of 1 is"
        return f"{where} is computed in another order than row 0 of 1"

    def _own_rows(
        self, followed: Followed, place: _Places, roots: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], name: str
    ) -> None:
        least, most = place.rows_of(followed, roots)
        foreign = (least[roots] != _NO_ROW) & ((least[roots] != rows) | (most[roots] != rows))
        if foreign.any():
            at = int(np.flatnonzero(foreign)[0])
            other = int(least[roots[at]] if least[roots[at]] != rows[at] else most[roots[at]])
            raise _Depends(f"row {int(rows[at])} in {name} is computed from row {other}")

    def _check_atomics(self, launch: AlgebraLaunch) -> None:
        if "tt.atomic" in launch.ttir:
            raise _Depends("atomic operations: programs meet in memory, in an order that depends on how many there are")


_NO_ROW = 1 << 62


class _Places:
    """Places of one launch's storages, by row and place in the row."""

    def __init__(self, launch: AlgebraLaunch, batched: Mapping[int, int], size: int) -> None:
        self._known = {one.storage: one for one in reversed(launch.arguments) if one.storage is not None}
        self._lengths = {number: storage.numel() for number, storage in launch.storages.items()}
        self._batched = batched
        self._size = size

    def split(
        self, storage: int, places: np.ndarray[Any, Any], *, all_inside: bool = True
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Rows, and places in them, counted in the order of the dimensions.

        ``all_inside``: raise NotFollowed for a place that is not the tensor's; otherwise it gets any row.
        """
        argument, dim = self._known[storage], self._batched[storage]
        rest = places - argument.offset
        index = [np.zeros_like(rest) for _ in argument.shape]
        for axis in sorted(range(len(argument.shape)), key=lambda axis: -argument.stride[axis]):
            step = argument.stride[axis]
            if step > 0 and argument.shape[axis] > 1:
                index[axis] = np.minimum(rest // step, argument.shape[axis] - 1)
                rest = rest - index[axis] * step
        if all_inside and (rest.any() or (places < argument.offset).any()):
            raise NotFollowed(f"the storage of {argument.name} has elements that are not the tensor's")
        each = argument.shape[dim] // self._size
        rows, index[dim] = index[dim] // each, index[dim] % each
        inner = np.zeros_like(rest)
        for axis, length in enumerate(argument.shape):
            inner = inner * (each if axis == dim else length) + index[axis]
        return rows, inner

    def canonical(self) -> dict[int, np.ndarray[Any, Any]]:
        """Of the storages that have rows, what counts as each element's place: that in its row."""
        return {
            storage: self.split(storage, np.arange(self._lengths[storage]), all_inside=False)[1]
            for storage in self._batched
        }

    def rows_of(
        self, followed: Followed, roots: np.ndarray[Any, Any]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Of each node that ``roots`` need, the first and the last row that it is computed from; _NO_ROW for none."""
        nodes = followed.nodes
        table = nodes.table()
        least, most = np.full(nodes.count + 1, _NO_ROW), np.full(nodes.count + 1, -1)
        names = [(kind.name, kind.detail) for kind in nodes.kinds]
        loads = np.array([name == LOAD and not detail for name, detail in names], bool)[table[:, 0]]
        for storage in self._batched:
            own = np.flatnonzero(loads & (table[:, 1] == storage))
            if len(own):
                least[own] = most[own] = self.split(storage, table[own, 2])[0]
        wanted = needed(nodes, roots)
        for node, (kind, a, b, c) in zip(wanted.tolist(), table[wanted].tolist(), strict=True):
            name, _ = names[kind]
            if name == CONSTANT or loads[node]:
                continue
            used = (c,) if name == LOAD else (a, b, c)
            least[node] = min(least[one] for one in used if one != NONE)
            most[node] = max(most[one] for one in used if one != NONE)
        least[most == -1] = _NO_ROW
        return least, most


def _dimension(one: Argument, other: Argument, times: int) -> int:
    """The dimension of a tensor that grows with the batch."""
    if len(one.shape) != len(other.shape):
        raise NotFollowed(f"argument {one.name} has another number of dimensions for another batch")
    changed = [axis for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b]
    if len(changed) != 1 or other.shape[changed[0]] != times * one.shape[changed[0]]:
        raise NotFollowed(f"argument {one.name} is not as many times as large as the batch")
    return changed[0]

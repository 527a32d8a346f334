"""Computes a tree in numpy: its sums in its order, rounded as the kernel rounds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torchport.numerics.trees.nodes import Kind
from torchport.numerics.trees.tree import Apply, Constant, Load, Node, Pairs, Run, Tree, leaves, places
from torchport.numerics.trees.values import Doubles, apply, fused

__all__ = ["evaluate"]

_Functions = Mapping[str, Callable[..., Doubles]]


def evaluate(tree: Tree, storages: Mapping[int, torch.Tensor], functions: _Functions = MappingProxyType({})) -> float:
    """The element, from what the launch was given. ``storages``, ``functions``: as of ``values.compute``."""
    data = {number: one.double().numpy() for number, one in storages.items() if one.is_floating_point()}
    return float(_Evaluation(tree, data, functions).value(tree.root, np.array([places(tree.root)], np.int64))[0])


class _Evaluation:
    """Each node is computed for many copies at once: one row of places a copy."""

    def __init__(self, tree: Tree, data: Mapping[int, Doubles], functions: _Functions) -> None:
        self._tree = tree
        self._data = data
        self._functions = functions

    def value(self, node: Node, at: npt.NDArray[np.int64]) -> Doubles:
        found = self._computed(node, at)
        off = self._tree.off_terms
        if any(shape == node.shape for shape, _ in off):
            for row, place in enumerate(at.tolist()):
                instead = off.get((node.shape, tuple(place)))
                found[row] = found[row] if instead is None else instead
        return found

    def _computed(self, node: Node, at: npt.NDArray[np.int64]) -> Doubles:
        if isinstance(node, Constant):
            return np.full(len(at), node.value)
        if isinstance(node, Load):
            return self._load(node, at[:, 0])
        if isinstance(node, Apply):
            parts = self._parts(node.operands, at)
            kind = Kind(node.name, node.type, node.source, node.detail)
            return apply(kind, parts, self._functions)
        if isinstance(node, Run):
            return self._run(node, at)
        if isinstance(node, Pairs):
            return self._pairs(node, at)
        if node.fused:
            width = len(leaves(node.left))
            assert isinstance(node.right, Apply)
            a, b = self._parts(node.right.operands, at[:, width:])
            return fused(a, b, self.value(node.left, at[:, :width]), node.type)
        return self._sum(node.operation, node.type, *self._parts((node.left, node.right), at))

    def _parts(self, nodes: tuple[Node, ...], at: npt.NDArray[np.int64]) -> list[Doubles]:
        found, first = [], 0
        for node in nodes:
            width = len(leaves(node))
            found.append(self.value(node, at[:, first : first + width]))
            first += width
        return found

    def _load(self, node: Load, at: npt.NDArray[np.int64]) -> Doubles:
        data, off = self._data[node.storage], self._tree.off_loads
        inside = (at >= 0) & (at < len(data))
        found = np.where(inside, data[np.where(inside, at, 0)] if len(data) else 0.0, np.nan)
        if off:
            found = np.array([off.get((node.storage, place), x) for place, x in zip(at.tolist(), found, strict=True)])
        return found

    def _skipped(self, node: Node, at: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        left_out = {
            place for (shape, place), value in self._tree.off_terms.items() if value is None and shape == node.shape
        }
        return np.array([tuple(place) in left_out for place in at.tolist()], bool)

    def _copies(self, at: npt.NDArray[np.int64], steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return (at[:, None, :] + steps[None, :, :]).reshape(len(at) * len(steps), at.shape[1])

    def _run(self, node: Run, at: npt.NDArray[np.int64]) -> Doubles:
        count = node.count
        copies = self._copies(at, np.arange(count)[:, None] * np.array(node.step, np.int64).reshape(1, -1))
        skipped = self._skipped(node.body, copies).reshape(-1, count)
        factors: list[Doubles] = []
        if node.fused:
            assert isinstance(node.body, Apply)
            factors = [one.reshape(-1, count) for one in self._parts(node.body.operands, copies)]
        else:
            body = self.value(node.body, copies).reshape(-1, count)
        first = 0 if node.start is not None else 1
        total = body[:, 0] if node.start is None else np.full(len(at), node.start)
        for i in range(first, count):
            if node.fused:
                new = fused(factors[0][:, i], factors[1][:, i], total, node.type)
            else:
                new = self._sum(node.operation, node.type, total, body[:, i])
            total = np.where(skipped[:, i], total, new)
        return total

    def _pairs(self, node: Pairs, at: npt.NDArray[np.int64]) -> Doubles:
        steps = np.zeros((1, at.shape[1]), np.int64)
        for step in node.steps:  # copies that meet first are neighbours
            both: Any = (steps, steps + np.array(step, np.int64)[None, :])
            steps = np.concatenate(both)
        found = self.value(node.body, self._copies(at, steps)).reshape(len(at), -1)
        order = found.reshape(len(at), *([2] * len(node.steps)))  # the last axis is the first step
        for _ in node.steps:
            order = self._sum(node.operation, node.type, order[..., 0], order[..., 1])
        return order.reshape(len(at))

    def _sum(self, operation: str, type_: str, a: Doubles, b: Doubles) -> Doubles:
        return apply(Kind(operation, type_, type_), [a, b], self._functions)

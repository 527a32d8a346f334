"""The summation trees of a Triton kernel on a target of torchport's, one for each kind of element that it writes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchport.errors import OptionError
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.trees.fold import signatures, tree_of
from torchport.numerics.trees.follow import CPU, Followed, follow
from torchport.numerics.trees.nodes import NONE
from torchport.numerics.trees.text import lines
from torchport.numerics.trees.tree import Tree
from torchport.target import Target

__all__ = ["ElementTrees", "kernel_trees"]


@dataclass(frozen=True)
class ElementTrees:
    """Elements of one tensor that are computed in the same order.

    argument: the tensor's name.
    element: the first of them, counted in its storage.
    elements: how many there are.
    tree: that of the first.
    """

    argument: str
    element: int
    elements: int
    tree: Tree

    def lines(self) -> list[str]:
        """The tree as text."""
        return lines(self.tree)

    def as_json(self) -> dict[str, Any]:
        """For JSON: the tree as nested objects, and as text."""
        return {
            "argument": self.argument,
            "element": self.element,
            "elements": self.elements,
            "tree": _kinds(self.tree.root),
            "text": self.lines(),
        }


def kernel_trees(
    launch: AlgebraLaunch, elements: Sequence[tuple[str, int]] = (), target: Target = CPU
) -> list[ElementTrees]:
    """The trees of a launch (``torchport.precision.equal.launch_of``), grouped by their order.

    ``elements``: name of a tensor and place in its storage; default: all that are written. Raises NotFollowed where the
    order is not known, OptionError for an element that the launch does not write.
    """
    followed = follow(launch, target=target)
    if elements:
        return [_one(followed, name, place) for name, place in elements]
    found = []
    for storage, roots in followed.results.items():
        written = np.flatnonzero(roots != NONE)
        groups: dict[Hashable, list[int]] = {}
        for place, signature in zip(written.tolist(), signatures(followed, roots[written]), strict=True):
            groups.setdefault(signature, []).append(place)
        for places in groups.values():
            tree = tree_of(followed, int(roots[places[0]]))
            found.append(ElementTrees(followed.arguments[storage], places[0], len(places), tree))
    return found


def _one(followed: Followed, name: str, place: int) -> ElementTrees:
    for storage, roots in followed.results.items():
        if followed.arguments.get(storage) == name and 0 <= place < len(roots) and roots[place] != NONE:
            return ElementTrees(name, place, 1, tree_of(followed, int(roots[place])))
    raise OptionError(f"the kernel writes no float to {name}[{place}]")


def _kinds(node: Any) -> dict[str, Any]:
    """A node as nested objects, each with its ``kind``."""
    found: dict[str, Any] = {"kind": type(node).__name__.lower()}
    for name, value in ((name, getattr(node, name)) for name in node.__dataclass_fields__ if name != "shape"):
        if isinstance(value, tuple) and value and hasattr(value[0], "__dataclass_fields__"):
            found[name] = [_kinds(one) for one in value]
        else:
            found[name] = _kinds(value) if hasattr(value, "__dataclass_fields__") else value
    return found

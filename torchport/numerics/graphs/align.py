"""Aligns the FX nodes of two runs, whose names, fusion and decompositions may differ."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from torchport.numerics.graphs.dump import Dump, by_name

__all__ = ["Alignment", "add_equal", "add_near", "align_graphs", "align_orders", "same_elements"]

Node = Mapping[str, Any]

_RESHAPES = frozenset(
    f"aten.{name}" for name in (
        "view.default", "reshape.default", "_unsafe_view.default", "squeeze.default", "squeeze.dim", "squeeze.dims",
        "unsqueeze.default", "alias.default", "detach.default", "clone.default",
    )
)  # fmt: skip
_RESTARTS = 8
_RIVAL = 16.0
"""How much further another pair must be, where the nearest one is taken."""
_EQUAL = 1e-9
"""Relative distance (L2) of values in float64 that are the same number, however they were computed."""


@dataclass
class Alignment:
    """Pairs of nodes of graphs A and B.

    pairs: nodes of B by nodes of A
    how: why each node of A is paired: ``same`` (same operation on the same values), ``similar`` (same operation at the
        same place), ``replaced`` (another operation, as of a decomposition, whose result is used at the same place),
        ``equal`` (the same values in float64), ``near`` (almost the same values in float64, and no others as near)
    """

    pairs: dict[str, str] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)

    def add(self, a: str, b: str, how: str) -> None:
        self.pairs[a], self.how[a] = b, how

    @property
    def back(self) -> dict[str, str]:
        """Nodes of A by nodes of B."""
        return {b: a for a, b in self.pairs.items()}


def align_graphs(a: Dump, b: Dump, inputs: Mapping[str, str] | None = None) -> Alignment:
    """Pair the nodes of two dumps. Both nodes of a pair have the same shape and dtype; a node is in at most one pair.

    Names are not trusted if the graphs differ. In turn, nodes are paired that apply the same operation to paired nodes,
    that have the same operation, shape and source line (in order), or that are the same argument of paired nodes.

    ``inputs``: placeholders of A by placeholders of B, if it is known which belong together.
    """
    alignment = Alignment()
    first, second = by_name(a), by_name(b)
    if inputs is None:
        _inputs(first, second, alignment)
    else:
        for other, one in inputs.items():
            if one in first and other in second and one not in alignment.pairs:
                alignment.add(one, other, "same")
    for _ in range(_RESTARTS):
        before = len(alignment.pairs)
        _congruent(first, second, alignment)
        if not alignment.pairs or before == len(alignment.pairs):
            _similar(first, second, alignment)
        _arguments(first, second, alignment)
        if len(alignment.pairs) == before:
            break
    return alignment


def add_equal(
    alignment: Alignment, a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], kind: Callable[[str, str], bool]
) -> None:
    """Pair nodes that are left alone and have the same values in float64, in order.

    ``a``, ``b``: values by node, in the graphs' order. ``kind``: whether a node of A and one of B are of one type.
    """
    back = alignment.back
    left = {name: value for name, value in b.items() if name not in back and _comparable(value)}
    for name, value in a.items():
        if name in alignment.pairs or not _comparable(value):
            continue
        limit = _EQUAL * float(value.double().nan_to_num().norm())
        for other, twin in left.items():
            if twin.shape == value.shape and kind(name, other) and _distance(value, twin) <= limit:
                alignment.add(name, other, "equal")
                del left[other]
                break


def add_near(
    alignment: Alignment,
    a: Mapping[str, torch.Tensor],
    b: Mapping[str, torch.Tensor],
    limit: Callable[[str, str], float],
) -> None:
    """Pair nodes that are left alone and have almost the same values in float64, where no others are nearly as near.

    ``a``, ``b``: values by node. ``limit``: the largest relative distance (L2) of a node of A and one of B; 0 for nodes
    of different types. For gradients: those of a run begin with what its forward pass rounded.
    """
    back = alignment.back
    ours = _distinct({name: value for name, value in a.items() if name not in alignment.pairs and _comparable(value)})
    theirs = _distinct({name: value for name, value in b.items() if name not in back and _comparable(value)})
    near: dict[tuple[str, str], float] = {}
    sizes = [{name: _size(value) for name, value in values.items()} for values in (ours, theirs)]
    for name, value in ours.items():
        size = sizes[0][name]
        for other, twin in theirs.items():
            most = _RIVAL * limit(name, other) * size  # values whose norms are further apart are further apart
            if twin.shape == value.shape and size > 0 and most > 0 and abs(size - sizes[1][other]) <= most:
                near[name, other] = _distance(value, twin) / size
    for (name, other), distance in sorted(near.items(), key=lambda item: item[1]):
        if distance > limit(name, other) or name in alignment.pairs or other in alignment.back:
            continue
        rivals = [
            found for pair, found in near.items() if pair != (name, other) and (pair[0] == name or pair[1] == other)
        ]
        if all(found > _RIVAL * distance and found > limit(name, other) for found in rivals):
            alignment.add(name, other, "near")


def _distinct(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without nodes that have the values of an earlier one: its copies."""
    found: dict[str, tuple[torch.Tensor, float]] = {}
    for name, value in values.items():
        size = _size(value)
        if not any(
            one.shape == value.shape and abs(other - size) <= _EQUAL * size and _distance(one, value) <= _EQUAL * size
            for one, other in found.values()
        ):
            found[name] = value, size
    return {name: value for name, (value, _) in found.items()}


def _size(value: torch.Tensor) -> float:
    return float(value.double().nan_to_num().norm())


def _comparable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 1


def _distance(x: torch.Tensor, y: torch.Tensor) -> float:
    same = (x == y) | (torch.isnan(x) & torch.isnan(y))
    return float(torch.where(same, torch.zeros((), dtype=x.dtype), x - y).double().norm())


def align_orders(a: Sequence[tuple[str, Dump]], b: Sequence[tuple[str, Dump]]) -> list[tuple[int, int]]:
    """Pair the graphs of two lists of (direction, dump), each in the order the graphs first ran. Returns positions.

    Paired graphs are both backward or both not, and in the same order in both lists; identical graphs are paired first.
    """
    # A forward graph differs from one for inference in what it returns besides.
    tokens = [[(direction == "backward", _fingerprint(graph)) for direction, graph in graphs] for graphs in (a, b)]
    pairs: list[tuple[int, int]] = []
    matcher = difflib.SequenceMatcher(None, tokens[0], tokens[1], autojunk=False)
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        if kind == "equal":
            pairs += zip(range(a0, a1), range(b0, b1), strict=True)
        elif kind == "replace":
            pairs += _in_order([token[0] for token in tokens[0]], [token[0] for token in tokens[1]], (a0, a1), (b0, b1))
    return pairs


def _in_order(
    a: list[bool], b: list[bool], first: tuple[int, int], second: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    matcher = difflib.SequenceMatcher(None, a[slice(*first)], b[slice(*second)], autojunk=False)
    for block in matcher.get_matching_blocks():
        for index in range(block.size):
            yield first[0] + block.a + index, second[0] + block.b + index


def same_elements(graph: Dump, name: str) -> list[str]:
    """Nodes that hold the elements of ``name`` in the same order: itself, then reshapes of it and what it reshapes."""
    nodes = by_name(graph)
    users: dict[str, list[str]] = defaultdict(list)
    for user, node in nodes.items():
        if node["target"] in _RESHAPES and node["args"] and (source := _reference(node["args"][0])) is not None:
            users[source].append(user)
    same, todo = [], [name]
    while todo:
        current = todo.pop(0)
        if current in same:
            continue
        same.append(current)
        node = nodes.get(current, {})
        if node and node["target"] in _RESHAPES and node["args"]:
            source = _reference(node["args"][0])
            todo += [source] if source is not None else []
        todo += users[current]
    return same


def _fingerprint(graph: Dump) -> str:
    return json.dumps([[node["target"], _kind(node)] for node in graph["nodes"] if node["op"] == "call_function"])


def _kind(node: Node) -> str:
    """Shapes and dtypes of a node's results, without strides and devices, which differ between targets."""
    value = node["value"]
    several = value if isinstance(value, list) else [value]
    return json.dumps([[each.get("dtype"), each.get("shape")] if isinstance(each, dict) else each for each in several])


def _inputs(a: Mapping[str, Node], b: Mapping[str, Node], alignment: Alignment) -> None:
    first, second = ([node for node in nodes.values() if node["op"] == "placeholder"] for nodes in (a, b))
    others = {node["name"]: node for node in second}
    for node in first:
        twin = others.get(node["name"])
        if twin is not None and _kind(twin) == _kind(node):
            alignment.add(node["name"], node["name"], "same")
            del others[node["name"]]
    left = [node for node in first if node["name"] not in alignment.pairs]
    _sequences(left, list(others.values()), alignment, "similar", _kind)


def _congruent(a: Mapping[str, Node], b: Mapping[str, Node], alignment: Alignment) -> None:
    """Pair nodes that apply one operation to paired nodes."""
    table: dict[str, list[str]] = defaultdict(list)
    for name, node in a.items():
        if node["op"] != "placeholder" and name not in alignment.pairs:
            table[_key(node, None)].append(name)
    back = alignment.back
    for name, node in b.items():
        if node["op"] == "placeholder" or name in back:
            continue
        candidates = table.get(_key(node, back), [])
        if candidates:
            twin = name if name in candidates else candidates[0]
            candidates.remove(twin)
            alignment.add(twin, name, "same")
            back[name] = twin


def _key(node: Node, back: Mapping[str, str] | None) -> str:
    """The operation and its arguments as text. ``back`` renames nodes of B to their partners in A."""
    return json.dumps([node["target"], _kind(node), _renamed([node["args"], node["kwargs"]], back)])


def _renamed(value: Any, back: Mapping[str, str] | None) -> Any:
    if isinstance(value, list):
        return [_renamed(item, back) for item in value]
    if isinstance(value, dict):
        if (name := _reference(value)) is not None:
            return {"node": name if back is None else back.get(name, "?")}  # no node has this name
        return {key: "" if key == "device" else _renamed(item, back) for key, item in value.items()}
    return value


def _similar(a: Mapping[str, Node], b: Mapping[str, Node], alignment: Alignment) -> None:
    """Pair nodes of one operation, shape and source line, in order."""
    back = alignment.back
    first = [node for name, node in a.items() if name not in alignment.pairs and node["op"] != "placeholder"]
    second = [node for name, node in b.items() if name not in back and node["op"] != "placeholder"]
    _sequences(first, second, alignment, "similar", _token)


def _token(node: Node) -> str:
    source = node.get("source") or {}
    return json.dumps([node["target"], _kind(node), source.get("line"), (node.get("module") or {}).get("path")])


def _sequences(a: list[Node], b: list[Node], alignment: Alignment, how: str, token: Any) -> None:
    matcher = difflib.SequenceMatcher(None, [token(node) for node in a], [token(node) for node in b], autojunk=False)
    for block in matcher.get_matching_blocks():
        for index in range(block.size):
            alignment.add(a[block.a + index]["name"], b[block.b + index]["name"], how)


def _arguments(a: Mapping[str, Node], b: Mapping[str, Node], alignment: Alignment) -> None:
    """Pair nodes of the same shape and dtype that are the same argument of paired nodes."""
    back = alignment.back
    for one, other in list(alignment.pairs.items()):
        for x, y in _places(a, b, one, other):
            p, q = _reference(x), _reference(y)
            if p is None or q is None or p in alignment.pairs or q in back or p not in a or q not in b:
                continue
            if _kind(a[p]) == _kind(b[q]):
                same = a[p]["target"] == b[q]["target"]
                alignment.add(p, q, "similar" if same else "replaced")
                back[q] = p


def _places(a: Mapping[str, Node], b: Mapping[str, Node], one: str, other: str) -> Iterator[tuple[Any, Any]]:
    """Arguments of two paired nodes; then of the nodes that they copy, if those apply the same operation."""
    yield from zip(a[one]["args"], b[other]["args"], strict=False)
    behind, beyond = _copied(a, one), _copied(b, other)
    if (behind, beyond) != (one, other) and a[behind]["target"] == b[beyond]["target"]:
        yield from zip(a[behind]["args"], b[beyond]["args"], strict=False)


def _copied(nodes: Mapping[str, Node], name: str) -> str:
    while nodes[name]["target"] == "aten.clone.default" and (source := _reference(nodes[name]["args"][0])) in nodes:
        name = str(source)
    return name


def _reference(value: Any) -> str | None:
    return value["node"] if isinstance(value, dict) and isinstance(value.get("node"), str) else None

"""Which FX node of one run is which of another, though names, fusion and decompositions differ."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchport.numerics.graphs.dump import Dump, by_name

__all__ = ["Alignment", "align_graphs", "align_orders", "same_elements"]

Node = Mapping[str, Any]

_RESHAPES = frozenset(
    f"aten.{name}" for name in (
        "view.default", "reshape.default", "_unsafe_view.default", "squeeze.default", "squeeze.dim", "squeeze.dims",
        "unsqueeze.default", "alias.default", "detach.default", "clone.default",
    )
)  # fmt: skip
_RESTARTS = 8


@dataclass
class Alignment:
    """Nodes of graph B by nodes of graph A. ``how``, for each: ``same`` (the same operation on the same values),
    ``similar`` (the same operation in the same place), ``replaced`` (another operation whose result is used in the
    same place: a decomposition)."""

    pairs: dict[str, str] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)

    def add(self, a: str, b: str, how: str) -> None:
        self.pairs[a], self.how[a] = b, how

    @property
    def back(self) -> dict[str, str]:
        """Nodes of A by nodes of B."""
        return {b: a for a, b in self.pairs.items()}


def align_graphs(a: Dump, b: Dump) -> Alignment:
    """Pair the nodes of two dumps. Pairs have one shape and dtype; a node is in one pair at most.

    Names are not trusted where the graphs differ: nodes pair that apply the same operation to paired nodes, then those
    of the same operation, shape and source line in the same order, then those whose results are the same argument of
    paired nodes.
    """
    found = Alignment()
    first, second = by_name(a), by_name(b)
    _inputs(first, second, found)
    for _ in range(_RESTARTS):
        before = len(found.pairs)
        _congruent(first, second, found)
        if not found.pairs or before == len(found.pairs):
            _similar(first, second, found)
        _arguments(first, second, found)
        if len(found.pairs) == before:
            break
    return found


def align_orders(a: Sequence[tuple[str, Dump]], b: Sequence[tuple[str, Dump]]) -> list[tuple[int, int]]:
    """Positions of graphs that belong together, of two lists of (direction, dump) in the order they first ran.

    Graphs pair in order when their direction is the same, those most alike first where there are several ways.
    """
    tokens = [[(direction, _fingerprint(graph)) for direction, graph in one] for one in (a, b)]
    pairs: list[tuple[int, int]] = []
    matcher = difflib.SequenceMatcher(None, tokens[0], tokens[1], autojunk=False)
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        if kind == "equal":
            pairs += zip(range(a0, a1), range(b0, b1), strict=True)
        elif kind == "replace":
            pairs += _in_order([one[0] for one in tokens[0]], [one[0] for one in tokens[1]], (a0, a1), (b0, b1))
    return pairs


def _in_order(a: list[str], b: list[str], first: tuple[int, int], second: tuple[int, int]) -> Iterator[tuple[int, int]]:
    found = difflib.SequenceMatcher(None, a[slice(*first)], b[slice(*second)], autojunk=False)
    for block in found.get_matching_blocks():
        for index in range(block.size):
            yield first[0] + block.a + index, second[0] + block.b + index


def same_elements(graph: Dump, name: str) -> list[str]:
    """Nodes that hold the elements of ``name`` in the same order, itself first: views behind and before it."""
    nodes = by_name(graph)
    users: dict[str, list[str]] = defaultdict(list)
    for user, node in nodes.items():
        if node["target"] in _RESHAPES and node["args"] and (source := _reference(node["args"][0])) is not None:
            users[source].append(user)
    found, todo = [], [name]
    while todo:
        one = todo.pop(0)
        if one in found:
            continue
        found.append(one)
        node = nodes.get(one, {})
        if node and node["target"] in _RESHAPES and node["args"]:
            source = _reference(node["args"][0])
            todo += [source] if source is not None else []
        todo += users[one]
    return found


def _fingerprint(graph: Dump) -> str:
    return json.dumps([[node["target"], _kind(node)] for node in graph["nodes"] if node["op"] == "call_function"])


def _kind(node: Node) -> str:
    """Shapes and dtypes of what a node gives, without strides and devices: they differ by target."""
    value = node["value"]
    several = value if isinstance(value, list) else [value]
    return json.dumps([[one.get("dtype"), one.get("shape")] if isinstance(one, dict) else one for one in several])


def _inputs(a: Mapping[str, Node], b: Mapping[str, Node], found: Alignment) -> None:
    first, second = ([node for node in one.values() if node["op"] == "placeholder"] for one in (a, b))
    others = {node["name"]: node for node in second}
    for node in first:
        twin = others.get(node["name"])
        if twin is not None and _kind(twin) == _kind(node):
            found.add(node["name"], node["name"], "same")
            del others[node["name"]]
    left = [node for node in first if node["name"] not in found.pairs]
    _sequences(left, list(others.values()), found, "similar", lambda node: _kind(node))


def _congruent(a: Mapping[str, Node], b: Mapping[str, Node], found: Alignment) -> None:
    """Pair nodes that apply one operation to paired nodes."""
    table: dict[str, list[str]] = defaultdict(list)
    for name, node in a.items():
        if node["op"] != "placeholder" and name not in found.pairs:
            table[_key(node, None)].append(name)
    back = found.back
    for name, node in b.items():
        if node["op"] == "placeholder" or name in back:
            continue
        candidates = table.get(_key(node, back), [])
        if candidates:
            twin = name if name in candidates else candidates[0]
            candidates.remove(twin)
            found.add(twin, name, "same")
            back[name] = twin


def _key(node: Node, back: Mapping[str, str] | None) -> str:
    """The operation with its arguments as text; nodes of B by the name of their partner in A."""
    return json.dumps([node["target"], _kind(node), _renamed([node["args"], node["kwargs"]], back)])


def _renamed(value: Any, back: Mapping[str, str] | None) -> Any:
    if isinstance(value, list):
        return [_renamed(one, back) for one in value]
    if isinstance(value, dict):
        if (name := _reference(value)) is not None:
            return {"node": name if back is None else back.get(name, "?")}  # a name of no node
        return {key: "" if key == "device" else _renamed(one, back) for key, one in value.items()}
    return value


def _similar(a: Mapping[str, Node], b: Mapping[str, Node], found: Alignment) -> None:
    """Pair nodes of one operation, shape and source line, in order."""
    back = found.back
    first = [node for name, node in a.items() if name not in found.pairs and node["op"] != "placeholder"]
    second = [node for name, node in b.items() if name not in back and node["op"] != "placeholder"]
    _sequences(first, second, found, "similar", _token)


def _token(node: Node) -> str:
    source = node.get("source") or {}
    return json.dumps([node["target"], _kind(node), source.get("line"), (node.get("module") or {}).get("path")])


def _sequences(a: list[Node], b: list[Node], found: Alignment, how: str, token: Any) -> None:
    matcher = difflib.SequenceMatcher(None, [token(one) for one in a], [token(one) for one in b], autojunk=False)
    for block in matcher.get_matching_blocks():
        for index in range(block.size):
            found.add(a[block.a + index]["name"], b[block.b + index]["name"], how)


def _arguments(a: Mapping[str, Node], b: Mapping[str, Node], found: Alignment) -> None:
    """Pair what paired nodes use in the same place, where it has one shape and dtype."""
    back = found.back
    for one, other in list(found.pairs.items()):
        for x, y in _places(a, b, one, other):
            p, q = _reference(x), _reference(y)
            if p is None or q is None or p in found.pairs or q in back or p not in a or q not in b:
                continue
            if _kind(a[p]) == _kind(b[q]):
                same = a[p]["target"] == b[q]["target"]
                found.add(p, q, "similar" if same else "replaced")
                back[q] = p


def _places(a: Mapping[str, Node], b: Mapping[str, Node], one: str, other: str) -> Iterator[tuple[Any, Any]]:
    """Arguments of paired nodes; also of what one of them is only a copy of, where that is the other's operation."""
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

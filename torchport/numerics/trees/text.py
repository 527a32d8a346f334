"""Trees as text."""

from __future__ import annotations

from collections.abc import Iterator

from torchport.numerics.trees.nodes import LARGEST, SMALLEST
from torchport.numerics.trees.tree import Constant, Load, Meet, Node, Pairs, Run, Step, Tree, leaves, terms

__all__ = ["lines"]

_SYMBOLS = {"arith.addf": "+", "arith.subf": "-", "arith.mulf": "*", "arith.divf": "/"}
_NAMES = {
    "arith.addf": "sum", "arith.maximumf": "largest", "arith.maxnumf": "largest", "arith.minimumf": "smallest",
    "arith.minnumf": "smallest", LARGEST: "largest", SMALLEST: "smallest",
}  # fmt: skip


def lines(tree: Tree) -> list[str]:
    """One line for each level of the tree; sums inside of terms follow, numbered."""
    writer = _Writer(tree)
    found = list(writer.node(tree.root, 0))
    while writer.waiting:
        number, node = writer.waiting.pop(0)
        found += [f"S{number} =", *writer.node(node, 1)]
    masked = len(tree.off_loads) + len(tree.off_terms)
    return [*found, f"masked: {masked}"] if masked else found


def _alike(parts: list[Meet]) -> list[list[Meet]]:
    """Neighbours that add the same."""
    found: list[list[Meet]] = []
    for part in parts:
        last = found[-1][0] if found else None
        if last is not None and (last.right, last.fused, last.type) == (part.right, part.fused, part.type):
            found[-1].append(part)
        else:
            found.append([part])
    return found


class _Writer:
    def __init__(self, tree: Tree) -> None:
        self._names = tree.names
        self.waiting: list[tuple[int, Node]] = []
        self._numbers: dict[Node, int] = {}

    def node(self, node: Node, depth: int) -> Iterator[str]:
        """Lines of a sum, or of a term."""
        indent = "  " * depth
        if isinstance(node, Run) and node.count == 1 and node.start is not None:
            yield f"{indent}{node.start:.9g}"
            yield from self._then(node, node.body, depth, fused=node.fused)
        elif isinstance(node, Run):
            start = "" if node.start is None else f" from {node.start:g}"
            fused = ", fused" if node.fused else ""
            apart = f", {self._step(node.body, node.step)} apart" if any(node.step) else ""
            yield f"{indent}running {_NAMES[node.operation]} of {node.count}{start}{apart} ({node.type}{fused})"
            yield from self.node(node.body, depth + 1)
        elif isinstance(node, Pairs):
            steps = ", ".join(self._step(node.body, step) for step in node.steps)
            apart = f", {steps} apart" if any(map(any, node.steps)) else ""
            yield f"{indent}{_NAMES[node.operation]} of {1 << len(node.steps)} in pairs{apart} ({node.type})"
            yield from self.node(node.body, depth + 1)
        elif isinstance(node, Meet):
            parts = [node]
            while isinstance(parts[-1].left, Meet) and parts[-1].left.operation == node.operation:
                parts.append(parts[-1].left)
            yield from self.node(parts[-1].left, depth)
            for same in _alike(parts[::-1]):
                yield from self._then(same[0], same[0].right, depth, fused=same[0].fused, count=len(same))
        else:
            yield indent + self.term(node)

    def _then(self, node: Run | Meet, right: Node, depth: int, *, fused: bool, count: int = 1) -> Iterator[str]:
        """What is added to the lines before."""
        what = "and then" if node.operation == "arith.addf" else "and with it"
        kind = f"({node.type}, fused)" if fused else f"({node.type})"
        times = f" {count} times" if count > 1 else ""
        indent = "  " * depth
        if isinstance(right, (Run, Pairs, Meet)):
            yield f"{indent}{what}{times} {kind}"
            yield from self.node(right, depth + 1)
        else:
            yield f"{indent}{what}{times} {self.term(right)} {kind}"

    def _step(self, body: Node, step: Step) -> str:
        if len(set(step)) == 1:
            return str(step[0])
        moved: dict[str, set[int]] = {}
        for leaf, by in zip(leaves(body), step, strict=True):
            moved.setdefault(self._name(leaf), set()).add(by)
        moving = {name: by for name, by in moved.items() if by != {0}}
        return "(" + ", ".join(f"{name} {'/'.join(map(str, sorted(by)))}" for name, by in moving.items()) + ")"

    def _name(self, leaf: Load) -> str:
        return self._names.get(leaf.storage, f"storage{leaf.storage}")

    def term(self, node: Node) -> str:
        """On one line; sums of three terms or more by number."""
        if isinstance(node, Load):
            return f"{self._name(node)}[{node.place}]"
        if isinstance(node, Constant):
            return f"{node.value:.9g}"
        if isinstance(node, (Run, Pairs, Meet)):
            if terms(node) < 3 and isinstance(node, Meet):
                symbol = _SYMBOLS.get(node.operation)
                both = self.term(node.left), self.term(node.right)
                return f"({f' {symbol} '.join(both)})" if symbol else f"{_NAMES[node.operation]}({', '.join(both)})"
            if node not in self._numbers:
                self._numbers[node] = len(self._numbers) + 1
                self.waiting.append((self._numbers[node], node))
            return f"S{self._numbers[node]}"
        operands = [self.term(one) for one in node.operands]
        if node.name in _SYMBOLS and len(operands) == 2:
            return f"({f' {_SYMBOLS[node.name]} '.join(operands)})"
        name = node.detail if node.name == "tp.extern" else node.name.partition(".")[2] or node.name
        suffix = f"<{node.type}>" if node.name in ("arith.extf", "arith.truncf", "tp.fp_to_fp") else ""
        return f"{name}{suffix}({', '.join(operands)})"

"""Finds nodes of a dumped graph that write into values of other nodes.

Inductor makes operations work in place if it may; later nodes then read the changed value under the old name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

__all__ = ["Writes"]

_IN_PLACE = re.compile(r"aten\.\w*[^_]_\.\w+")
_ALIAS = tuple(
    f"aten.{name}" for name in (
        "as_strided.", "view.", "reshape.", "_unsafe_view.", "slice.", "select.", "permute.", "transpose.", "t.",
        "expand.", "squeeze", "unsqueeze", "alias.", "detach.", "diagonal.", "unfold.", "split", "unbind",
    )
)  # fmt: skip


class Writes:
    """Which nodes of a graph are written into.

    changed: such nodes, with their writers in order; empty for most graphs.
    """

    def __init__(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        self.changed: dict[str, list[str]] = defaultdict(list)
        self._roots: dict[str, str] = {}
        writers = [name for name, node in nodes.items() if _IN_PLACE.fullmatch(node["target"])]
        if not writers:
            return
        self._nodes = nodes
        self._position = {name: place for place, name in enumerate(nodes)}
        for name, node in nodes.items():
            alias = node["target"].startswith(_ALIAS) or node["target"] == "operator.getitem" or name in writers
            first = node["args"][0] if alias and node["args"] else None
            source = first.get("node") if isinstance(first, Mapping) else None
            self._roots[name] = self.root(source) if isinstance(source, str) else name
        for name in writers:
            self.changed[self.root(name)].append(name)

    def root(self, name: str) -> str:
        """The node whose memory holds a node's value."""
        return self._roots.get(name, name)

    def owned(self, name: str, given: Collection[str]) -> bool:
        """Whether writes into ``name`` change a value of this graph; ``given`` values are final."""
        root = self.root(name)
        return root in self.changed and (root not in given or self._nodes[root]["op"] == "placeholder")

    def before(self, name: str, uses: Collection[str], given: Collection[str]) -> Iterator[str]:
        """Nodes that write into what ``name`` uses before it does."""
        for used in uses if self.changed else ():
            if self.owned(used, given) and (used not in given or self._nodes[used]["op"] == "placeholder"):
                yield from (one for one in self.changed[self.root(used)] if self._position[one] < self._position[name])

    def ever(self, name: str, given: Collection[str]) -> list[str]:
        """All nodes that write into ``name``."""
        return self.changed[self.root(name)] if self.changed and self.owned(name, given) else []

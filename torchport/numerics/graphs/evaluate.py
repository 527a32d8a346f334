"""Evaluates a dumped FX graph in float64, eagerly: the reference of a graph, and a second opinion on a kernel.

Floating-point tensors are widened, what the graph makes itself (constants, factories) is float64, and conversions
between floating-point types do not round, as in a kernel promoted to float64 (docs/numerics/concepts.md). Conversions
to integers, comparisons and indices take the float64 values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch

from torchport.errors import TorchportError
from torchport.numerics.graphs.decode import decode
from torchport.numerics.graphs.dump import Dump, by_name, needed, references
from torchport.numerics.graphs.special import COPIES, Refused
from torchport.numerics.graphs.subgraph import Subgraph, called, constant
from torchport.numerics.graphs.wide_call import Value, widened
from torchport.numerics.graphs.writes import Writes

__all__ = ["NotEvaluated", "Watch", "evaluate"]

_KERNEL = "higher_order.triton_kernel_wrapper_mutation"
_OVERWRITTEN = "a Triton kernel of the user's may have written into it"
_CALL_ERRORS = (
    RuntimeError, TypeError, ValueError, NotImplementedError, LookupError, ArithmeticError, AttributeError,
)  # fmt: skip
"""What calling an operation with arguments that are not its own raises: a dump's need not fit."""


class Watch(Protocol):
    """Sees the values of an evaluation."""

    def seen(self, name: str, value: Value) -> Value:
        """Called with each node's value. Returns the value that the evaluation goes on with."""

    def unknown(self, name: str) -> Value:
        """Called for a node that has no value, or needs one that has none. Returns one, or None."""


class NotEvaluated(TorchportError):
    """A node of an FX graph has no float64 value: ``node``, ``target`` and the ``reason``."""

    def __init__(self, node: str, target: str, reason: str) -> None:
        super().__init__(f"FX node {node} ({target}) has no float64 value: {reason}")
        self.node, self.target, self.reason = node, target, reason


def evaluate(
    graph: Dump,
    inputs: Mapping[str, Value],
    dtype: torch.dtype = torch.float64,
    wanted: Iterable[str] | None = None,
    given: Mapping[str, Value] | None = None,
    refused: dict[str, str] | None = None,
    watch: Watch | None = None,
) -> dict[str, Value]:
    """Values of the nodes ``wanted`` (default: the graph's outputs), by name.

    ``inputs``: values of placeholders, tensors of any dtype or integers. ``given``: values of other nodes; neither they
    nor what only they need is computed. Neither is changed. Values have the graph's shapes; their strides may differ.

    Raises NotEvaluated for a node that has no such value or lacks an input, ArtifactError for a dump or a name that is
    not valid. If ``refused`` is given, it gets the reasons of such nodes, and of those that need them, instead; they
    are not in the result. ``watch`` sees the values of the nodes that are computed, in order.
    """
    given = given or {}
    names = [name for name in graph["outputs"] if name is not None] if wanted is None else list(wanted)
    return _Evaluation(_without_copies(graph), inputs, given, names, dtype, refused, watch).run()


def _without_copies(graph: Dump) -> Dump:
    """The graph without operands that are another operand in a library's own layout, which nothing else can read."""
    if not any(node["target"] in COPIES for node in graph["nodes"]):
        return graph
    nodes = [
        {
            **node,
            "args": [None if place == COPIES.get(node["target"]) else one for place, one in enumerate(node["args"])],
        }
        for node in graph["nodes"]
    ]
    return {**graph, "nodes": nodes}


class _Evaluation:
    """One evaluation of a graph.

    known: values of inputs and of nodes that need not be computed.
    uses: by node that is computed, the nodes it reads.
    values: of nodes that are still needed.
    refused: by node, why it has no value.
    strict: the first such node is an error.
    """

    def __init__(
        self,
        graph: Dump,
        inputs: Mapping[str, Value],
        given: Mapping[str, Value],
        wanted: list[str],
        dtype: torch.dtype,
        refused: dict[str, str] | None,
        watch: Watch | None,
    ) -> None:
        self.watch = watch
        self.graph, self.wanted, self.dtype = graph, wanted, dtype
        self.nodes = by_name(graph)
        self.known = {**inputs, **given}
        self.order = needed(graph, wanted, self.known.keys())
        self.writes = Writes(self.nodes)
        self.overwritten, self.reads_overwritten = _overwritten_by_kernels(graph, given)
        self.uses = {
            name: set(references([self.nodes[name]["args"], self.nodes[name]["kwargs"]])) for name in self.order
        }
        self.last_use = {used: name for name, uses in self.uses.items() for used in uses}
        self.values: dict[str, Value] = {}
        self.strict = refused is None
        self.refused: dict[str, str] = {} if refused is None else refused

    def run(self) -> dict[str, Value]:
        """The values of the wanted nodes."""
        for name in self.order:
            self._visit(name)
            self._drop_after(name)
        for name in self.overwritten.intersection(self.wanted):
            self._refuse(NotEvaluated(name, self.nodes[name]["target"], _OVERWRITTEN), _OVERWRITTEN)
        for name in self.wanted:
            for writer in self.writes.ever(name, self.known):
                if writer in self.refused:
                    self.refused[name] = self.refused[writer]
        return {name: self._value(name) for name in self.wanted if name not in self.refused}

    def _visit(self, name: str) -> None:
        target = self.nodes[name]["target"]
        if name in self.reads_overwritten:
            self._replace_or_refuse(NotEvaluated(name, target, _OVERWRITTEN))
            return
        uses = self.uses[name]
        missing = sorted((uses | set(self.writes.before(name, uses, self.known))) & self.refused.keys())
        if missing:
            self._replace_or_refuse(NotEvaluated(name, target, ""), self.refused[missing[0]])
            return
        try:
            with torch.no_grad():
                value = self._in_own_memory(name, self._compute(name))
                self.values[name] = value if self.watch is None else self.watch.seen(name, value)
        except Refused as error:
            self._replace_or_refuse(NotEvaluated(name, target, str(error)))
        except _CALL_ERRORS as error:
            reason = str(error).strip().split("\n", 1)[0]
            self._replace_or_refuse(NotEvaluated(name, target, reason or type(error).__name__))

    def _replace_or_refuse(self, error: NotEvaluated, reason: str | None = None) -> None:
        value = None if self.watch is None else self.watch.unknown(error.node)
        if value is None:
            self._refuse(error, reason)
        else:
            self.values[error.node] = widened(value, self.dtype)

    def _refuse(self, error: NotEvaluated, reason: str | None = None) -> None:
        if self.strict:
            raise error
        self.refused[error.node] = reason or str(error)

    def _compute(self, name: str) -> Value:
        node = self.nodes[name]
        target: str = node["target"]
        if node["op"] == "placeholder":
            raise Refused("this input was not recorded")
        if node["op"] == "get_attr":
            if (inner := self.graph.get("graphs", {}).get(target)) is not None:
                return Subgraph(inner, self.dtype)
            return widened(constant(self.graph, target), self.dtype)
        if node["op"] != "call_function":
            raise Refused(f"{node['op']} is not an operation of a compiled graph")
        args = [decode(value, self._value) for value in node["args"]]
        kwargs = {key: decode(value, self._value) for key, value in node["kwargs"].items()}
        return called(self._described(node), args, kwargs, self.dtype)

    def _described(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """The node with what is known of its first argument: see ``torchport.numerics.graphs.special.RULES``."""
        first = next(references(node["args"]), None)
        return {
            **node,
            "first": self.nodes[first]["value"] if first is not None else None,
            "own": first is not None and self.writes.owned(first, self.known),
        }

    def _value(self, name: str) -> Value:
        """A node's value; known ones are widened when they are first needed, and copied if they are written into."""
        if name not in self.values:
            value = widened(self.known[name], self.dtype)
            copied = isinstance(value, torch.Tensor) and self.writes.owned(name, self.known)
            self.values[name] = value.clone() if copied else value
        return self.values[name]

    def _in_own_memory(self, name: str, value: Value) -> Value:
        """A value that shares no memory with a node that is written into, unless the graph's does."""
        if not self.writes.changed or self.writes.root(name) != name or not isinstance(value, torch.Tensor):
            return value
        memory = {self.values[node].untyped_storage().data_ptr() for node in self.writes.changed if node in self.values}
        return value.clone() if value.untyped_storage().data_ptr() in memory else value

    def _drop_after(self, name: str) -> None:
        """Forget values whose last use was ``name``."""
        for used in self.uses[name]:
            if self.last_use[used] == name and used not in self.wanted and used not in self.writes.changed:
                self.values.pop(used, None)


def _overwritten_by_kernels(graph: Dump, given: Mapping[str, Value]) -> tuple[set[str], set[str]]:
    """Nodes that user-defined Triton kernels may write into, and those that read such a node afterwards.

    Nodes whose values are ``given`` do not count.
    """
    passed: set[str] = set()
    after: set[str] = set()
    for node in graph["nodes"]:
        uses = set(references([node["args"], node["kwargs"]]))
        if node["target"] == _KERNEL:
            passed |= uses - given.keys()
        elif uses & passed:
            after.add(node["name"])
    return passed, after

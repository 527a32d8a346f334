"""Calls of graphs out of run folders: what was observed of every FX node, and what it should have been in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from torchport.errors import RunError
from torchport.numerics.graphs.dump import Dump, by_name, needed
from torchport.numerics.graphs.evaluate import NotEvaluated, evaluate
from torchport.numerics.graphs.operands import called, operands, results
from torchport.numerics.graphs.sizes import same_order, size_of, symbols_of
from torchport.numerics.graphs.views import ahead, same, source_of, users_of
from torchport.numerics.runs.reader import Arg, Launch, Run

__all__ = ["Call", "Observed", "calls_of", "relative", "tensor_of"]

_RANDOM = (
    "prims.inductor_seed",
    "aten.rand",
    "aten.bernoulli",
    "aten.native_dropout",
    "aten.normal",
    "aten.multinomial",
)


_READS = ("aten._local_scalar_dense.default",)  # reads a number out of a tensor


@dataclass(frozen=True)
class Observed:
    """The value of an FX node that a launch left, in the node's shape; None where only its summary was kept."""

    launch: Launch
    arg: Arg
    value: torch.Tensor | None


def tensor_of(run: Run, arg: Arg, after: bool = True) -> torch.Tensor | None:
    """The tensor of an argument, after the launch or before it; None where it was not kept. Raises RunError."""
    sha = arg.after if after else arg.before
    if sha is None:
        return None
    storage = run.tensor(sha)
    try:
        return storage.as_strided(arg.shape, arg.stride, arg.offset)
    except RuntimeError as error:
        raise RunError(f"tensor {sha} of {run.path} is not one of argument {arg.name}: {error}") from error


def relative(error: torch.Tensor, size: torch.Tensor) -> float:
    """L2 norm of ``error`` in units of that of ``size``; infinite where anything is not finite in the error alone."""
    kept = torch.isfinite(size)
    wrong = torch.where(kept, error, torch.zeros((), dtype=error.dtype))
    top, bottom = float(torch.linalg.vector_norm(wrong)), float(torch.linalg.vector_norm(size[kept]))
    if not math.isfinite(top):
        return math.inf
    return top / bottom if bottom else (math.inf if top else 0.0)


class Call:
    """One call of one graph. ``launches``: its kernels and operators in order; ``observed``: by FX node, what the last
    launch that wrote it left; ``refused``: by FX node, why it has no float64 value."""

    def __init__(self, run: Run, graph: str, number: int, launches: list[Launch]) -> None:
        self.run, self.graph, self.number = run, graph, number
        self.launches = [one for one in launches if one.kind in ("kernel", "extern") and one.operation not in _READS]
        self.refused: dict[str, str] = {}
        self._all = launches
        described = run.graphs.get(graph)
        if described is None:
            raise RunError(f"{run.path} has no graph {graph}, which launches belong to")
        self.dump: Dump = described["fx"]
        self.direction: str = described["direction"]

    @cached_property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """FX nodes by name."""
        return by_name(self.dump)

    @cached_property
    def input_args(self) -> dict[str, Arg]:
        """The graph's tensor inputs as recorded, with their summaries, by placeholder."""
        args = [arg for launch in self._all if launch.kind == "input" for arg in launch.args if arg.role != "scalar"]
        return {str(arg.node or arg.buffer): arg for arg in args}

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Recorded values of the graph's placeholders; those that were not recorded are missing."""
        found: dict[str, Any] = {}
        for launch in self._all:
            for arg in launch.args if launch.kind == "input" else ():
                name = arg.node or arg.buffer or arg.name  # numbers have a name alone
                value = arg.value if arg.role == "scalar" else tensor_of(self.run, arg, after=False)
                if name is not None and value is not None:
                    found[name] = value
        return found

    @cached_property
    def observed(self) -> dict[str, Observed]:
        return {node: one for launch in self.launches for node, one in self.results(launch).items()}

    def results(self, launch: Launch) -> dict[str, Observed]:
        """What a launch left, by FX node: outputs that hold a node's elements in the node's order."""
        return self._results[launch.seq]

    def _left(self, launch: Launch) -> dict[str, Observed]:
        found = {}
        own = results(self.nodes, launch, self._operators[launch.seq]) if launch.seq in self._operators else {}
        for arg in launch.args:
            node = arg.node or own.get(arg.name) or self._handed_over.get((arg.buffer, arg.after))
            # What is as it was was only read: nobody needs the value that would have been written over it.
            wrote = arg.role == "out" or (arg.role == "inout" and (arg.after is None or arg.after != arg.before))
            if not wrote or node is None or node not in self.nodes:
                continue
            shape = self._shape(node)
            if shape is None or math.prod(shape) != math.prod(arg.shape) or not same_order(shape, arg.shape):
                continue
            value = tensor_of(self.run, arg)
            found[node] = Observed(launch, arg, None if value is None else value.reshape(shape))
        return found

    @cached_property
    def _operators(self) -> dict[int, str]:
        """The FX node that a launch of an operator computes, by the launch's number."""
        return called(self.nodes, self.launches)

    def _operands(self, launch: Launch) -> dict[str, str]:
        """The FX node that an argument of an operator holds, by the argument's name."""
        operator = self._operators.get(launch.seq)
        return operands(self.nodes, launch, operator) if operator is not None else {}

    @cached_property
    def _handed_over(self) -> dict[tuple[str | None, str | None], str]:
        """FX nodes by buffer and content, of buffers that only the operators that read them have a node for."""
        return {
            (arg.buffer, arg.before): node
            for launch in self.launches
            for arg in launch.args
            if arg.node is None
            and arg.before is not None
            and (node := self._operands(launch).get(arg.name)) is not None
        }

    def seen_through(self, node: str) -> Observed | None:
        """The value of a node that is a view, or a copy, of one that was kept, or that one of these is; exact."""
        if node not in self.nodes:
            return None
        source = node
        while source not in self.observed:
            behind = source_of(self.nodes, source)
            if behind is None:
                return self._seen_ahead(node)
            source = behind
        kept = self.observed[source]
        if kept.value is None or not kept.value.dtype.is_floating_point:
            return kept if source == node else None
        wide = evaluate(self.dump, {}, wanted=[node], given={source: kept.value}, refused={}).get(node)
        return None if wide is None else replace(kept, value=wide.to(kept.value.dtype))

    def _seen_ahead(self, node: str) -> Observed | None:
        known = {name: one.value for name, one in self.observed.items() if one.value is not None}
        found = ahead(self.dump, self._users, node, self._shape, known)
        return None if found is None else replace(self.observed[found[0]], value=found[1])

    @cached_property
    def _users(self) -> Mapping[str, list[str]]:
        return users_of(self.nodes)

    def _shape(self, node: str) -> tuple[int, ...] | None:
        """The shape of a node; None where it has none, or one that does not follow from the inputs' sizes."""
        value = self.nodes[node]["value"]
        shape = value.get("shape") if isinstance(value, dict) else None
        sizes = [size_of(one, self.symbols) for one in shape] if shape is not None else [None]
        return None if None in sizes else tuple(one for one in sizes if one is not None)

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Values of symbolic sizes in this call, from the inputs."""
        return symbols_of(self.nodes, self.inputs, {name: arg.shape for name, arg in self.input_args.items()})

    @cached_property
    def _drawn(self) -> dict[str, torch.Tensor]:
        """Recorded values of nodes that draw random numbers."""
        return {
            name: one.value
            for name, one in self.observed.items()
            if one.value is not None and self.nodes[name]["target"].startswith(_RANDOM)
        }

    @cached_property
    def outputs(self) -> list[str]:
        """Floating-point results of the graph that it computes."""
        names = [name for name in dict.fromkeys(self.dump["outputs"]) if name is not None]
        return [one for one in names if self.nodes[one]["op"] != "placeholder" and _is_float(self.nodes[one])]

    @cached_property
    def truth(self) -> dict[str, torch.Tensor]:
        """float64 values of observed nodes and of outputs from the graph's recorded inputs alone."""
        wanted = list(dict.fromkeys([*self.observed, *self.outputs]))
        return evaluate(self.dump, self.inputs, wanted=wanted, given=self._drawn, refused=self.refused)

    def known_before(self, launch: Launch) -> dict[str, torch.Tensor]:
        """Recorded values of FX nodes that a launch read, by node."""
        before, given = self._written_before(launch.seq), self._operands(launch)
        found: dict[str, torch.Tensor] = {}
        for arg in launch.args:
            read = self._read(arg, before)
            kept = before[read].value if read is not None else None
            handed = tensor_of(self.run, arg, after=False) if arg.name in given else None
            for node, value in ((read, kept), (given.get(arg.name), handed)):
                if node is not None and value is not None:
                    found[node] = value
                    found.update((one, value) for one in same(self.nodes, node, self._shape))
        return found

    def _read(self, arg: Arg, before: Mapping[str, Observed]) -> str | None:
        """The node whose value an argument held before the launch: what it holds afterwards may be another's."""
        node = arg.node
        if arg.role == "in" and node is not None and node in before and arg.before in (None, before[node].arg.after):
            return node
        if arg.role in ("in", "inout") and arg.before is not None:
            size = math.prod(arg.shape)  # of what was joined in one storage, a part is not all of it
            same = (node for node, one in before.items() if one.arg.after == arg.before)
            return next((node for node in same if math.prod(before[node].arg.shape) >= size), None)
        return None

    def _written_before(self, seq: int) -> Mapping[str, Observed]:
        return {
            node: one for launch in self.launches if launch.seq < seq for node, one in self._results[launch.seq].items()
        }

    @cached_property
    def _results(self) -> dict[int, dict[str, Observed]]:
        return {launch.seq: self._left(launch) for launch in self.launches}

    def golden(
        self, launch: Launch, instead: Mapping[str, torch.Tensor] | None = None, *, assume: bool = False
    ) -> dict[str, torch.Tensor]:
        """float64 values of what a launch computes, from what it read: its FX nodes, evaluated eagerly.

        ``instead``: values of nodes or inputs to take in place of what was read. Empty where an input of the launch
        holds no FX node, unless others do and it is to be computed from what else is known (``assume``), or a node has
        no float64 value.
        """
        known = self.known_before(launch)
        before, operands_ = self._written_before(launch.seq), self._operands(launch)
        if not known and not any(arg.node in self.inputs for arg in launch.args if arg.role == "in"):
            assume = False  # it reads nothing that the graph knows of
        for arg in launch.args:
            if arg.role not in ("in", "inout") or arg.node in self.inputs or arg.name in operands_:
                continue
            if self._read(arg, before) is None:
                if not assume:
                    return {}
                known = {**{node: one.value for node, one in before.items() if one.value is not None}, **known}
        wanted = [name for name, one in self._results[launch.seq].items() if one.value is not None]
        values = {**self._drawn, **known, **(instead or {})}
        given = {name: value for name, value in values.items() if name not in wanted}
        if not assume:  # what it computes must follow from what it read
            read = {arg.node for arg in launch.args}
            inner = needed(self.dump, wanted, given)
            if any(self.nodes[name]["op"] == "placeholder" and name not in read for name in inner):
                return {}
        try:
            return evaluate(self.dump, self.inputs, wanted=wanted, given=given)
        except NotEvaluated:
            return {}

    def results_seen(self) -> dict[str, torch.Tensor]:
        """The outputs as they were; what was not kept follows in float64 from what was."""
        kept = {name: one.value for name, one in self.observed.items() if one.value is not None}
        return evaluate(self.dump, self.inputs, wanted=self.outputs, given=kept, refused={})

    def response(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """float64 values of the outputs, with those of some nodes replaced. Nodes without a value are missing."""
        given = {**self._drawn, **values}
        return evaluate(self.dump, self.inputs, wanted=self.outputs, given=given, refused=dict(self.refused))


def _is_float(node: Mapping[str, Any]) -> bool:
    value = node["value"]
    dtype = value.get("dtype") if isinstance(value, dict) else None
    return dtype is not None and bool(getattr(torch, dtype).is_floating_point)


def calls_of(run: Run) -> Iterator[Call]:
    """The calls of graphs in the order they began. Graphs that could not be read are left out; ``run.damaged`` says."""
    grouped: dict[tuple[str, int], list[Launch]] = {}
    for launch in run.launches:
        grouped.setdefault((launch.graph, launch.call), []).append(launch)
    for (graph, number), launches in grouped.items():
        if graph in run.graphs:
            yield Call(run, graph, number, launches)

"""A recorded run as one graph: the graphs of its calls, one behind another, with what flows between them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from torchport.errors import RunError
from torchport.numerics.graphs.dump import FORMAT, Dump
from torchport.numerics.graphs.operands import operator_nodes, result_nodes
from torchport.numerics.graphs.views import source_of
from torchport.numerics.programs.user_kernels import UserKernel, user_kernel
from torchport.numerics.runs.calls import calls_in
from torchport.numerics.runs.reader import Arg, Launch, Run

__all__ = ["External", "Program", "Result", "program_of"]

_WRAPPER = "higher_order.triton_kernel_wrapper_mutation"


@dataclass(frozen=True)
class External:
    """A value that a program is given.

    node: its node
    kind: ``parameter``, ``buffer``, ``input``, ``gradient`` (of a result), ``constant`` (a weight that was frozen into
        the graph), or empty where the run does not say
    name: in the user's model; empty where the run does not say
    graph: position of the call of a graph among those of the run
    call: how many calls of the same graph there were before
    arg: as recorded; None if it was not
    """

    node: str
    kind: str
    name: str
    graph: int
    call: int
    arg: Arg | None

    @property
    def title(self) -> str:
        """What to call it."""
        return (self.name or self.node) + (f" of call {self.call + 1}" if self.name and self.call else "")


@dataclass(frozen=True)
class Result:
    """A value that a program returns.

    name: empty where the run does not say
    backward: of a backward graph
    state: an input's new content, which the program writes into it
    """

    node: str
    name: str
    backward: bool
    state: bool = False


@dataclass
class Program:
    """A recorded run as one graph.

    User-defined kernels are nodes of their own, one for each tensor that they write: ``triton.FUNCTION``.

    run: the run
    dump: the graph
    externals: by node
    results: in order
    recorded: by node, the argument whose content after its launch is the node's value
    graphs: how many graphs there are that do not run backward
    handed_on: results that a later one of these reads
    """

    run: Run
    dump: Dump
    externals: dict[str, External] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    recorded: dict[str, Arg] = field(default_factory=dict)
    graphs: int = 0
    handed_on: set[str] = field(default_factory=set)

    @property
    def unseen(self) -> int:
        """How many calls of graphs there were of which it was not recorded what they were given."""
        counts = self.run.info.get("counts") or {}
        calls = int(counts.get("calls_seen", 0)) + int(counts.get("calls_unseen", 0))
        return max(0, calls - sum(launch.kind == "input" for launch in self.run.launches))

    @property
    def is_frozen(self) -> bool:
        """Whether its weights are constants, so that their names are gone."""
        return any("_frozen_param" in target for target in self.dump["constants"])

    def given(self, node: str) -> Any:
        """The value of an external: a tensor, a number, or None if it was not recorded."""
        arg = self.externals[node].arg
        if arg is None or arg.role == "scalar":
            return None if arg is None else arg.value
        return self.tensor(arg, arg.before)

    def seen(self, node: str) -> torch.Tensor | None:
        """The recorded value of a node that a launch wrote; None if it was not kept."""
        arg = self.recorded.get(node)
        return None if arg is None else self.tensor(arg, arg.after)

    def tensor(self, arg: Arg, sha: str | None) -> torch.Tensor | None:
        """The tensor of an argument in a stored storage; None if it was not kept, or is damaged."""
        try:
            return None if sha is None else self.run.view(arg, sha)
        except RunError:
            return None  # the run names what is damaged


CALLS = 64
"""Most calls of graphs that a program consists of."""


def program_of(run: Run) -> Program:
    """The calls of graphs of which a run has the inputs, as one program; of other graphs the first call."""
    counts: Counter[str] = Counter()
    calls = []
    for one in sorted(calls_in(run), key=lambda one: one.launches[0].seq):
        graph, launches = one.graph, one.launches
        if graph not in run.graphs or _is_eager_backward(run.graphs[graph]):
            continue
        if not counts[graph] or any(launch.kind == "input" for launch in launches):
            calls.append((graph, counts[graph], launches))
            counts[graph] += 1
    del calls[CALLS:]
    program = Program(run, {"format": FORMAT, "nodes": [], "outputs": [], "constants": {}, "graphs": {}})
    made: dict[tuple[Any, ...], str] = {}
    for position, (graph, number, launches) in enumerate(calls):
        _Merge(
            program, (position, number), "" if len(calls) == 1 else f"g{position}.", run.graphs[graph], launches, made
        ).run()
    program.dump["outputs"] = sorted({result.node for result in program.results})
    return program


def _is_eager_backward(graph: Mapping[str, Any]) -> bool:
    """Whether a graph is the gradients of an eager call: what it was given is not known by node."""
    return bool(graph.get("eager")) and graph["direction"] == "backward"


class _Merge:
    """Adds one call of a graph to a program.

    place: position of the call among all, and how many calls of the same graph there were before
    made: results of earlier calls by content, extended here
    """

    def __init__(
        self,
        program: Program,
        place: tuple[int, int],
        prefix: str,
        graph: Mapping[str, Any],
        launches: Sequence[Launch],
        made: dict[tuple[Any, ...], str],
    ) -> None:
        self.program, self.place, self.prefix, self.graph, self.made = program, place, prefix, graph, made
        self.launches = launches
        self.names: dict[str, str] = {}  # of this graph's nodes in the program
        self.own = {node["name"]: node for node in graph["fx"]["nodes"]}
        self.inputs = {
            str(arg.node or arg.buffer or arg.name): arg for one in launches if one.kind == "input" for arg in one.args
        }
        self.kernels = list(self._kernels())

    def run(self) -> None:
        program, fx = self.program, self.graph["fx"]
        program.graphs += self.graph["direction"] != "backward"
        wrappers = [name for name, node in self.own.items() if node["target"] == _WRAPPER]
        for name, node in self.own.items():
            if node["op"] == "placeholder":
                self._placeholder(name, node)
            elif node["op"] == "get_attr":
                self._attribute(name, node)
            elif node["target"] == _WRAPPER:
                self._kernel(name, node, self._launch_of(name, wrappers))
            else:
                self.names[name] = self.prefix + name
                program.dump["nodes"].append(self._renamed_node(node))
        for what in ("constants", "graphs"):
            program.dump[what].update({self.prefix + key: value for key, value in fx.get(what, {}).items()})
        self._record()
        self._results()

    def _renamed_node(self, node: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **node,
            "name": self.names[node["name"]],
            "args": self._renamed(node["args"]),
            "kwargs": self._renamed(node["kwargs"]),
        }

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._renamed(one) for one in value]
        if isinstance(value, dict):
            if isinstance(name := value.get("node"), str):
                return {"node": self.names.get(name, self.prefix + name)}
            return {key: self._renamed(one) for key, one in value.items()}
        return value

    def _placeholder(self, name: str, node: Mapping[str, Any]) -> None:
        arg = self.inputs.get(name)
        earlier = self.made.get(_content(arg, arg.before)) if arg is not None else None
        kind, _, known = self._name(name).partition(" ")
        if earlier is not None and kind not in ("parameter", "buffer"):
            self.names[name] = earlier  # what an earlier graph computed
            if self.graph["direction"] != "backward":
                self.program.handed_on.add(earlier)
            return
        self.names[name] = self.prefix + name
        self.program.externals[self.prefix + name] = External(self.prefix + name, kind, known, *self.place, arg)
        self.program.dump["nodes"].append({**self._renamed_node(node), "target": self.prefix + name})

    def _name(self, placeholder: str) -> str:
        """Kind and name of an input in the user's model; empty if it is not known."""
        target = str(self.own[placeholder]["target"])
        if self.graph.get("eager"):  # the target is the name of a parameter or a buffer
            return "input" if target == "input" else f"parameter {target}"
        return str(self.graph.get("names", {}).get(placeholder, ""))

    def _attribute(self, name: str, node: Mapping[str, Any]) -> None:
        self.names[name] = full = self.prefix + name
        self.program.dump["nodes"].append({**self._renamed_node(node), "target": self.prefix + node["target"]})
        if (arg := self.inputs.get(name)) is not None:
            self.program.externals[full] = External(full, "constant", "", *self.place, arg)

    def _kernels(self) -> Iterator[tuple[Launch, UserKernel]]:
        for launch in self.launches:
            described = self.program.run.kernels.get(launch.kernel or "")
            kernel = user_kernel(described) if described is not None else None
            if kernel is not None:
                yield launch, kernel

    def _launch_of(self, name: str, wrappers: Sequence[str]) -> tuple[Launch, UserKernel] | None:
        """The launch of a user-defined kernel's node: the only one that names it, else the one in its place."""
        naming = [one for one in self.kernels if name in one[0].nodes]
        if len(naming) == 1:
            return naming[0]
        return self.kernels[wrappers.index(name)] if len(self.kernels) == len(wrappers) else None

    def _kernel(self, name: str, node: Mapping[str, Any], found: tuple[Launch, UserKernel] | None) -> None:
        """A node for each tensor that a user-defined kernel writes; later nodes read these."""
        given = node["kwargs"].get("kwargs")
        tensors = given.get("dict") if isinstance(given, dict) else None
        tensors = tensors if isinstance(tensors, dict) else {}
        launch, kernel = found or (None, None)
        args = {arg.name: arg for arg in launch.args} if launch is not None else {}
        written = [one for one in tensors if one not in args or args[one].role != "in"]
        numbers = {one.name: one.value for one in args.values() if one.role == "scalar"}
        read = {one: value for one, value in tensors.items() if not (one in written and self._is_empty(value))}
        operands = [self._renamed(read), numbers]
        for parameter in written:
            target = str(tensors[parameter].get("node")) if isinstance(tensors[parameter], dict) else ""
            if target not in self.own:
                continue
            full = f"{self.prefix}{name}.{parameter}"
            made = {
                **node, "name": full, "target": f"triton.{kernel.function if kernel else '?'}", "args": operands,
                "kwargs": {"writes": parameter}, "value": self.own[target]["value"],
            }  # fmt: skip
            self.program.dump["nodes"].append(made)
            if parameter in args:
                self.program.recorded[full] = args[parameter]
            self._hold(target, full)

    def _is_empty(self, value: Any) -> bool:
        """Whether a tensor holds nothing yet that a kernel could read."""
        node = self.own.get(str(value.get("node"))) if isinstance(value, dict) else None
        return node is not None and str(node["target"]).startswith("aten.empty")

    def _hold(self, node: str, full: str) -> None:
        """From here on, ``node`` and what it is a view of hold the value of ``full``."""
        self.names[node] = full
        size = self._size(node)
        while (source := source_of(self.own, node)) is not None and size is not None and self._size(source) == size:
            view = f"{full}.{source}"
            described = {**self.own[source], "name": view, "op": "call_function", "target": "aten.view.default"}
            described |= {"args": [{"node": full}, self.own[source]["value"]["shape"]], "kwargs": {}}
            self.program.dump["nodes"].append(described)
            self.names[source], node = view, source

    def _size(self, node: str) -> int | None:
        value = self.own[node]["value"]
        shape = value.get("shape") if isinstance(value, dict) else None
        return math.prod(shape) if shape is not None and all(isinstance(one, int) for one in shape) else None

    def _record(self) -> None:
        """What the last launch that wrote a node left: libraries add to what an earlier launch left there."""
        operators = operator_nodes(self.own, self.launches)
        for launch in self.launches:
            if launch.kind not in ("kernel", "extern"):
                continue
            computed = operators.get(launch.seq)
            nodes = result_nodes(self.own, launch, computed) if computed is not None else {}
            for arg in launch.args:
                node = arg.node or nodes.get(arg.name)
                wrote = arg.role == "out" or (arg.role == "inout" and arg.after != arg.before)
                if wrote and arg.after is not None and node in self.own:
                    self.program.recorded[self.prefix + str(node)] = arg

    def _results(self) -> None:
        outputs = self.graph["fx"]["outputs"]
        backward = self.graph["direction"] == "backward"
        names: list[str | None] = list(self.graph.get("results", ()))
        if len(names) != len(outputs):  # an older run: a forward graph's later outputs may be kept for backward only
            kept = 1 if self.graph["direction"] == "forward" else len(outputs)
            names = [""] * kept + [None] * (len(outputs) - kept)
        for output, name in zip(outputs, names, strict=True):
            if output in self.own and name is not None:
                self.program.results.append(Result(self.names[output], name, backward))
        for buffer, node in self.graph.get("changed", {}).items():
            name = self.graph.get("names", {}).get(buffer, "").partition(" ")[2]
            if node in self.own and name:
                self.program.results.append(Result(self.names[node], f"new {name}", backward, state=True))
        for launch in self.launches:
            for arg in launch.args if launch.kind == "output" else ():
                if arg.node in self.own and arg.role != "scalar" and math.prod(arg.shape) > 1:
                    self.made.setdefault(_content(arg, arg.after), self.names[str(arg.node)])


def _content(arg: Arg, sha: str | None) -> tuple[Any, ...]:
    return (sha, arg.dtype, arg.shape, arg.stride, arg.offset) if sha is not None else (object(),)

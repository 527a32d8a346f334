"""The kernels of a recorded run as candidates for higher precision, those first that move the results most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torchport.errors import OptionError
from torchport.inductor.precision.plan import NamedGraph, NamedKernel, NamedNode
from torchport.numerics.compare.launch_verdict import LaunchVerdict, launch_name
from torchport.numerics.compare.pairs import PairedCalls
from torchport.numerics.compare.rank import RootCause, rank
from torchport.numerics.graphs.align import align_orders
from torchport.numerics.graphs.dump import Dump, references
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of
from torchport.numerics.verdicts.verdict import KernelVerdict

__all__ = ["Candidate", "candidates", "graphs_of"]


@dataclass(frozen=True)
class Candidate:
    """A kernel that may be computed in higher precision.

    kernel: how it is named.
    share: of the difference between the runs' results that its error explains, None if not known.
    effect: relative change of the results by its error alone, None if not known.
    """

    kernel: NamedKernel
    share: float | None
    effect: float | None


def graphs_of(run: Run) -> tuple[NamedGraph, ...]:
    """The graphs of a run, and those that they pass to operations. Raises OptionError if graphs have no keys."""
    found: dict[str, NamedGraph] = {}
    for graph in run.graphs.values():
        if (key := graph["fx"].get("key")) is None:
            eager = "it was recorded eagerly, and only compiled kernels can be computed in higher precision"
            raise OptionError(
                f"the graphs of {run.path} have no keys: "
                f"{eager if graph.get('eager') else 'record it again with this version of torchport'}"
            )
        for one in (key, *_inner(graph["fx"])):
            found.setdefault(one, NamedGraph(one, graph["direction"]))
    return tuple(found.values())


def _inner(graph: Dump) -> Iterator[str]:
    """The keys of graphs that a graph passes to operations."""
    for inner in graph.get("graphs", {}).values():
        if "key" in inner:
            yield inner["key"]
        yield from _inner(inner)


def candidates(a: Run | None, b: Run) -> list[Candidate]:
    """The kernels of run ``b``, best first.

    Their order is that of ``torchport.numerics.compare.rank`` against run ``a``: the share of the difference that a
    kernel's own error explains. Without ``a``, or where the runs' results cannot be compared, it is the size of the
    kernel's effect on the results. What neither is known of comes last. Raises OptionError, RunError.
    """
    known = {graph.key for graph in graphs_of(b)}
    calls = [call for call in _first_calls(b) if call.dump.get("key") in known]
    partners: dict[int, RecordedCall] = {}
    if a is not None:
        others = list(_first_calls(a))
        positions = align_orders(*([(call.direction, call.dump) for call in each] for each in (others, calls)))
        partners = {second: others[first] for first, second in positions}
    found: dict[frozenset[str], tuple[tuple[Any, ...], Candidate]] = {}
    for position, call in enumerate(calls):
        causes = _causes(partners.get(position, call), call, position)
        for launch in call.launches:
            kernel = _named(call, launch)
            if kernel is None:
                continue
            cause = causes.get(launch.seq)
            share, effect = (None, None) if cause is None else (cause.share, cause.effect)
            key = _order(None if cause is None else cause.weight, effect, position, launch.seq)
            identity = frozenset({kernel.graph, *(node.key for node in kernel.nodes)})
            if identity not in found or key < found[identity][0]:
                found[identity] = key, Candidate(kernel, share, effect)
    return [candidate for _, candidate in sorted(found.values(), key=lambda one: one[0])]


def _first_calls(run: Run) -> Iterator[RecordedCall]:
    """The first call of each graph."""
    seen = set()
    for call in calls_of(run):
        if call.key not in seen:
            seen.add(call.key)
            yield call


def _causes(a: RecordedCall, b: RecordedCall, position: int) -> Mapping[int, RootCause]:
    """What is known of B's launches, by number: local errors need no verdict, only the FX nodes in float64."""
    verdicts = {
        name: {
            launch.seq: LaunchVerdict(
                call,
                launch,
                KernelVerdict(launch.seq, launch.kernel, launch.operation, launch.nodes, "UNVERIFIED", None, ()),
            )
            for launch in call.launches
        }
        for name, call in (("A", a), ("B", b))
    }
    pair = PairedCalls.of(position, a, b, verdicts)
    largest = len(a.launches) + len(b.launches)
    return {cause.seq: cause for cause in rank(pair, truth=True, largest=largest) if cause.run == "B"}


def _order(weight: float | None, effect: float | None, position: int, seq: int) -> tuple[Any, ...]:
    """Sorts as ``RootCause.key`` does launches of one level; by effect where there is no share."""
    size = weight if weight is not None else effect
    known = size is not None and not math.isnan(size)
    return not known, -size if known and size is not None else 0.0, position, seq


def _named(call: RecordedCall, launch: Launch) -> NamedKernel | None:
    """A launch by the keys of the nodes that it computes; None if it has none."""
    nodes = call.nodes
    names: dict[str, None] = {}
    for name in launch.nodes:
        node = nodes.get(name)
        if node is not None and node["target"] == "operator.getitem":  # one of several results
            names.update(dict.fromkeys(references(node["args"][0])))
        names[name] = None
    found = [nodes[name] for name in names if name in nodes and nodes[name]["op"] == "call_function"]
    found = [node for node in found if "key" in node and node["target"] != "operator.getitem"]
    if not found:
        return None
    title = (
        f"{launch_name(call.run, launch)} [{', '.join(node['name'] for node in found[:4])}{', ...' * (len(found) > 4)}]"
    )
    return NamedKernel(title, call.dump["key"], "float64", tuple(map(_named_node, found)))


def _named_node(node: Mapping[str, Any]) -> NamedNode:
    value, source = node["value"], node.get("source") or {}
    parts = value if isinstance(value, list) else [value]
    results = [f"{one['dtype']}{one['shape']}" for one in parts if isinstance(one, dict) and "dtype" in one]
    place = f"{source['file']}:{source['line']}" if source.get("file") else ""
    return NamedNode(node["key"], node["target"], ", ".join(results), place)

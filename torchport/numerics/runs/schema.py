"""What the JSON files of a run folder must hold (docs/numerics/run-format.md), as ``torchport.schema`` checks it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict

import torch

from torchport.schema import Mismatch

__all__ = [
    "DTYPES", "CollectiveInfo", "Dtype", "GraphFile", "Hash", "Info", "Kernel", "Operation", "Placement", "RankEntry",
    "RanksInfo", "Repeat", "Source", "StateInfo", "Summary", "check_collective", "check_graph",
    "check_placement", "check_view",
]  # fmt: skip
DTYPES = {name: one for name in dir(torch) if isinstance(one := getattr(torch, name), torch.dtype)}
"""torch's element types by name."""

_SHARD = re.compile(r"(?:strided )?shard ([0-9]{1,3})")
_MOST = 2**62
_LARGE = 2**28  # elements that a view may always have, however few its storage has
Dtype = Annotated[str, frozenset(DTYPES)]
Count = Annotated[int, range(_MOST)]
Hash = Annotated[str, re.compile(r"[0-9A-Za-z_]{1,128}")]
"""Of a stored tensor: it becomes a file's name."""


class _Info(TypedDict):
    format: str


class Environment(TypedDict, total=False):
    """What may explain a difference between two runs."""

    variables: dict[str, Any] | None


class Info(_Info, total=False):
    """run.json."""

    level: str
    complete: bool
    environment: Environment | None
    targets: list[str]
    compilers: dict[str, str]
    flushing: list[str]
    quarantine: list[str]
    operators: dict[str, dict[str, str]]
    notes: list[str | dict[str, Any]]
    counts: dict[str, Count]
    rank: Count
    world_size: Count
    host: str
    failed: str


class RankEntry(TypedDict):
    """What ranks.json says of one rank."""

    folder: Annotated[str, re.compile(r"rank[0-9]{1,9}")]
    host: str | None
    begun: bool
    finished: bool


class RanksInfo(TypedDict):
    """ranks.json."""

    format: str
    world_size: Annotated[int, range(1, 2**20)]
    ranks: list[RankEntry]


Operation = Literal[
    "all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "gather", "scatter", "all_to_all"
]


class CollectiveInfo(TypedDict):
    """What one rank did in a collective.

    operation: its kind
    group: the process group's name, the same on all of its ranks
    ranks: the group's members, as ranks of the job
    number: how many collectives of the group this rank called before
    reduce: ``sum``, ``avg`` ...
    root: the rank that sends or takes all
    sends, takes: elements for each member, of ``all_to_all``
    backward: whether gradients were being computed
    waited: whether its result is known to have been complete
    """

    operation: Operation
    group: str
    ranks: list[Count]
    number: Count
    reduce: str | None
    root: Count | None
    sends: list[Count] | None
    takes: list[Count] | None
    backward: bool
    waited: bool


class Placement(TypedDict):
    """How a DTensor lies on a mesh of ranks: ``mesh`` in the order of memory; ``dims`` by its dimensions."""

    shape: list[Count]
    mesh_shape: list[Count]
    mesh: list[Count]
    dims: list[str]


class StateInfo(TypedDict):
    """Parameters and gradients, before a step of an optimizer (its number), or at the end (null).

    placements: by argument, of those that are DTensors
    reduced: by argument, group and number of the last collective that wrote its memory since the step before
    """

    step: Count | None
    placements: dict[str, Placement]
    reduced: dict[str, tuple[str, Count]]


class Source(TypedDict):
    """A line of the user's."""

    file: str
    line: int
    function: str
    code: str


class KernelNode(TypedDict):
    name: str
    target: str
    stack: Source | None


class _Kernel(TypedDict):
    function: str
    types: dict[str, str]
    target: str
    source: str
    ttir: str | None
    nodes: list[KernelNode]


class Kernel(_Kernel, total=False):
    """kernels/KEY.json."""

    config: str | None
    options: dict[str, Any] | None
    operations: list[str]


class TensorValue(TypedDict):
    dtype: Dtype
    shape: list[Count | str]
    stride: list[Count | str] | None


class Symbol(TypedDict):
    symbol: str


class Module(TypedDict):
    path: str


Value = TensorValue | Symbol | bool | int | None


class _Node(TypedDict):
    name: str
    op: Literal["placeholder", "get_attr", "call_function", "call_method", "call_module"]
    target: str
    args: list[Any]
    kwargs: dict[str, Any]
    value: Value | list[Value | list[Value]]
    source: Source | None
    module: Module | None
    original: str | None


class Node(_Node, total=False):
    """A node of a graph; its arguments are as in ``torchport.numerics.graphs.dump``."""

    key: str


class Constant(TypedDict):
    dtype: Dtype
    shape: list[Count]
    values: list[Any] | None


class _Graph(TypedDict):
    format: str
    nodes: list[Node]
    outputs: list[str | None]
    constants: dict[str, Constant | None]


class Graph(_Graph, total=False):
    """An FX graph, as in ``torchport.numerics.graphs.dump``."""

    graphs: dict[str, Graph]
    key: str


class GraphKernel(TypedDict, total=False):
    """What a graph says of a kernel. ``writes``: buffers that a user-defined one writes."""

    nodes: list[list[str]]
    writes: list[str]


class _GraphFile(TypedDict):
    fx: Graph
    target: str
    direction: Literal["inference", "forward", "backward"]


class GraphFile(_GraphFile, total=False):
    """graphs/SHA.json, as far as it is read back."""

    names: dict[str, str]
    results: list[str | None]
    asked: dict[str, str]
    kernels: dict[str, GraphKernel]
    buffers: dict[str, str]
    changed: dict[str, str]


class Summary(TypedDict, total=False):
    """See ``torchport.numerics.runs.summary``."""

    count: Count
    finite: Count
    nan: Count
    posinf: Count
    neginf: Count
    zero: Count
    denormal: Count
    canary: Count
    min: float | None
    max: float | None
    mean: float | None
    mean_square: float | None
    hash: str
    exponents: list[tuple[int, int, int]]
    step: Count
    top: list[tuple[Count, float]]
    sample: Annotated[str, re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")]


class _Repeat(TypedDict):
    seq: Count
    call: Count
    site: Count
    summaries: list[Summary | None]


class Repeat(_Repeat, total=False):
    """The line of a later launch of a site."""

    flags: list[str]
    before: dict[str, Hash | None]
    after: dict[str, Hash | None]
    unrecorded: str | None


def check_view(shape: tuple[int, ...], stride: tuple[int, ...], offset: int, elements: int) -> None:
    """Raises Mismatch if a view is none, or reaches beyond a storage of so many elements."""
    if len(shape) != len(stride):
        raise Mismatch(f"a shape of {len(shape)} dimensions has {len(stride)} strides")
    if min((*shape, *stride, offset)) < 0:
        raise Mismatch("a shape, a stride or an offset is negative")
    if math.prod(shape) > max(_LARGE, 64 * elements):
        raise Mismatch(f"a storage of {elements} elements is seen as {math.prod(shape)}")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if math.prod(shape) > 0 and last >= elements:
        raise Mismatch(f"it reaches element {last} of a storage of {elements}")


def check_placement(placement: Placement) -> None:
    """Raises Mismatch if a placement is none."""
    mesh, dims = placement["mesh"], placement["dims"]
    if len(mesh) != math.prod(placement["mesh_shape"]) or len(set(mesh)) < len(mesh) or not mesh:
        raise Mismatch("a mesh is none of its shape")
    if len(dims) != len(placement["mesh_shape"]):
        raise Mismatch(f"a mesh of {len(placement['mesh_shape'])} dimensions has {len(dims)} placements")
    for one in dims:
        if (found := _SHARD.fullmatch(one)) and int(found[1]) >= len(placement["shape"]):
            raise Mismatch(f"{one!r} is no dimension of {placement['shape']}")
        if found is None and "shard" in one:
            raise Mismatch(f"{one[:40]!r} is no placement")


def check_collective(info: CollectiveInfo) -> None:
    """Raises Mismatch if what is said of a collective cannot be."""
    if not info["ranks"] or len(set(info["ranks"])) < len(info["ranks"]):
        raise Mismatch("a rank is twice in a group, or the group is empty")


def check_graph(graph: Graph) -> None:
    """Raises Mismatch if a name is there twice, or a node refers to one that is not before it."""
    for inner in graph.get("graphs", {}).values():
        check_graph(inner)
    known: dict[str, Node] = {}
    for node in graph["nodes"]:
        if node["name"] in known:
            raise Mismatch(f"the graph has two nodes {node['name'][:40]!r}")
        for name in _references([node["args"], node["kwargs"]]):
            if name not in known:
                raise Mismatch(f"node {node['name'][:40]!r} refers to {name[:40]!r}, which is not before it")
        known[node["name"]] = node
    if missing := [name for name in graph["outputs"] if name is not None and name not in known]:
        raise Mismatch(f"the graph has an output {missing[0][:40]!r}, but no such node")


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and isinstance(name := value.get("node"), str):
        yield name
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list)):
            yield from _references(inner)

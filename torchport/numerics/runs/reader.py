"""Reads a run folder (docs/numerics/run-format.md), complete or not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from torchport.errors import RunError
from torchport.files import parse_json, read_bytes, read_json
from torchport.numerics.runs.schema import (
    CollectiveInfo,
    Count,
    Dtype,
    GraphFile,
    Hash,
    Info,
    Kernel,
    Repeat,
    Source,
    StateInfo,
    Summary,
    check_collective,
    check_graph,
    check_placement,
    check_view,
)
from torchport.numerics.runs.writer import FORMAT, content_hash
from torchport.schema import Mismatch, conform

__all__ = ["Arg", "Launch", "Run"]

T = TypeVar("T")


@dataclass(frozen=True)
class Arg:
    """One argument of a launch.

    name: in the kernel's signature or the operator's schema
    role: ``in``, ``out``, ``inout`` or ``scalar``
    buffer: its variable in generated code
    node: the FX node whose value it holds
    value: of a scalar

    For tensors only:

    dtype: torch's name of the element type
    shape: in elements
    stride: in elements
    offset: in elements
    storage: the same number for arguments of the launch that share a storage
    summary: statistics of the elements after the launch
    before: hash of the stored storage before the launch, or None
    after: hash of the stored storage after the launch, or None
    """

    name: str
    role: Literal["in", "out", "inout", "scalar"]
    buffer: str | None = None
    node: str | None = None
    value: Any = None
    dtype: Dtype | None = None
    shape: tuple[Count, ...] = ()
    stride: tuple[Count, ...] = ()
    offset: Count = 0
    storage: Count | None = None
    summary: dict[str, Any] | None = None
    before: Hash | None = None
    after: Hash | None = None

    def __post_init__(self) -> None:
        match self.value:
            case {"float": "nan" | "inf" | "-inf" as number}:
                object.__setattr__(self, "value", float(number))


@dataclass(frozen=True)
class Launch:
    """One line of launches.jsonl. Later launches of a site take what their line omits from the first one.

    seq: position in the run
    graph: a key of ``Run.graphs``
    call: number of the graph call
    kind: ``kernel``, ``extern``, ``input``, ``output``, ``collective`` or ``state``
    kernel: a key of ``Run.kernels``
    operation: the aten overload
    grid: program instances in x, y and z
    args: arguments, and results of operators
    nodes: FX nodes computed
    checks: the checks made, ``canary`` and ``repeat``
    flags: what the checks found
    unrecorded: why tensors are missing, or None
    site: number of its site and shapes
    collective: of a collective, what this rank did in it
    state: of parameters and gradients
    source: the user's line, where no graph has it
    """

    seq: Count
    graph: str
    call: Count
    kind: Literal["kernel", "extern", "input", "output", "collective", "state"]
    kernel: str | None = None
    operation: str | None = None
    grid: tuple[Count, ...] | None = None
    args: tuple[Arg, ...] = ()
    nodes: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    unrecorded: str | None = None
    site: Count | None = None
    collective: CollectiveInfo | None = None
    state: StateInfo | None = None
    source: Source | None = None


@dataclass(frozen=True)
class Run:
    """A recorded run.

    path: the run folder
    info: content of run.json
    graphs: by hash
    kernels: by key
    launches: in order
    damaged: why a file or line could not be read, by its name
    trusted: whether the Python source of its kernels may be executed, and their memory accesses go unchecked
        (docs/security.md)
    """

    path: Path
    info: dict[str, Any]
    graphs: dict[str, dict[str, Any]]
    kernels: dict[str, dict[str, Any]]
    launches: list[Launch]
    damaged: dict[str, str] = field(default_factory=dict)
    trusted: bool = field(default=False, kw_only=True)

    @classmethod
    def load(cls, path: str | Path, *, trust: bool = False) -> Run:
        """Read a folder. ``trust``: see ``trusted``.

        Raises RunError if it is not a run folder or has another format version.
        """
        path = Path(path)
        if (path / "ranks.json").exists() and not (path / "run.json").exists():
            raise RunError(f"{path} holds the runs of several ranks: name one of them, such as {path / 'rank0'}")
        info: dict[str, Any] = {**read_json(path / "run.json", Info, RunError)}
        if info["format"] != FORMAT:
            raise RunError(f"{path} has format {info['format'][:40]!r}; this version of torchport reads {FORMAT!r}")
        damaged: dict[str, str] = {}
        graphs = _folder(path / "graphs", GraphFile, damaged)
        for key, graph in list(graphs.items()):
            try:
                check_graph(graph["fx"])
            except Mismatch as problem:
                damaged[f"graphs/{key}.json"] = str(problem)
                del graphs[key]
        kernels = _folder(path / "kernels", Kernel, damaged)
        return cls(path, info, graphs, kernels, _launches(path / "launches.jsonl", damaged), damaged, trusted=trust)

    def tensor(self, sha: str) -> torch.Tensor:
        """The elements of a stored storage, in one dimension. Raises RunError if it is missing or damaged."""
        path = self.path / "tensors" / f"{sha}.safetensors"
        try:
            data = load(read_bytes(path))["data"].reshape(-1)
        except OSError as error:
            raise RunError(f"{self.path} has no tensor {sha} ({error.strerror or error})") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}") from error
        dtype = str(data.dtype).removeprefix("torch.")
        if content_hash(dtype, data.view(torch.uint8).numpy().tobytes() if data.numel() else b"") != sha:
            raise RunError(f"{path} is damaged: its content is not what its name says")
        return data

    def view(self, arg: Arg, sha: str) -> torch.Tensor:
        """The tensor of an argument in a stored storage. Raises RunError if it is missing, damaged or too small."""
        storage = self.tensor(sha)
        try:
            check_view(arg.shape, arg.stride, arg.offset, storage.numel())
        except Mismatch as problem:
            raise RunError(f"tensor {sha} of {self.path} does not fit argument {arg.name}: {problem}") from problem
        return storage.as_strided(arg.shape, arg.stride, arg.offset)


def _folder(path: Path, type_: type[T], damaged: dict[str, str]) -> dict[str, Any]:
    contents = {}
    for file in sorted(path.glob("*.json")):
        try:
            contents[file.stem] = read_json(file, type_, RunError)
        except RunError as error:
            damaged[f"{path.name}/{file.name}"] = str(error)
    return contents


def _launches(path: Path, damaged: dict[str, str]) -> list[Launch]:
    """The launches, without an incomplete last line."""
    try:
        lines = read_bytes(path).split(b"\n")
    except OSError as error:
        damaged[path.name] = str(error)
        return []
    launches: dict[int, Launch] = {}
    sites: dict[int, Launch] = {}
    later: list[tuple[int, Repeat]] = []  # the first launch of a site may be written after another thread's

    def add(number: int, launch: Launch) -> None:
        if launches.setdefault(launch.seq, launch) is not launch:
            damaged[f"{path.name}:{number}"] = f"there are two launches {launch.seq}"

    for number, line in enumerate(lines[:-1], 1):
        where = f"{path.name}:{number}"
        try:
            content = parse_json(line, dict[str, Any], where, RunError)
            if "summaries" in content:
                later.append((number, conform(content, Repeat)))
                continue
            launch = _checked(conform(content, Launch))
        except (RunError, Mismatch) as error:
            damaged[where] = str(error)
            continue
        add(number, launch)
        if launch.site is not None:
            sites[launch.site] = launch
    for number, repeat in later:
        try:
            add(number, _repeated(sites[repeat["site"]], repeat))
        except (Mismatch, LookupError) as error:
            damaged[f"{path.name}:{number}"] = f"it repeats no launch: {error}"
    return sorted(launches.values(), key=lambda launch: launch.seq)


def _checked(launch: Launch) -> Launch:
    """The launch. Raises Mismatch if arguments are no views, or have no names of their own."""
    if len({arg.name for arg in launch.args}) < len(launch.args):
        raise Mismatch("two arguments have one name")
    for arg in launch.args:
        if arg.storage is not None and arg.dtype is None:
            raise Mismatch(f"argument {arg.name} has a storage and no dtype")
        check_view(arg.shape, arg.stride, arg.offset, 2**62)
        if arg.summary is not None:
            conform(arg.summary, Summary, f"the summary of {arg.name}")
    if launch.collective is not None:
        check_collective(launch.collective)
    for placement in launch.state["placements"].values() if launch.state is not None else ():
        check_placement(placement)
    return launch


def _repeated(first: Launch, line: Repeat) -> Launch:
    """A later launch of a site, from its line and the site's first launch. Raises Mismatch."""
    written = [index for index, arg in enumerate(first.args) if arg.role in ("out", "inout")]
    if len(line["summaries"]) != len(written):
        raise Mismatch(f"{len(line['summaries'])} summaries of {len(written)} outputs")
    summaries: dict[int, Any] = dict(zip(written, line["summaries"], strict=True))
    before, after = line.get("before", {}), line.get("after", {})
    args = tuple(
        replace(arg, summary=summaries.get(index), before=before.get(str(index)), after=after.get(str(index)))
        for index, arg in enumerate(first.args)
    )
    return replace(
        first,
        seq=line["seq"],
        call=line["call"],
        args=args,
        checks=(),
        flags=tuple(line.get("flags", ())),
        unrecorded=line.get("unrecorded", None if after else "a later launch of its site"),
    )

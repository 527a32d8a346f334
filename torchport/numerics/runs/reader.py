"""Reads a run folder (docs/numerics/run-format.md), complete or not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from torchport.errors import RunError
from torchport.numerics.runs.writer import FORMAT, content_hash

__all__ = ["Arg", "Launch", "Run"]


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
    role: str
    buffer: str | None = None
    node: str | None = None
    value: Any = None
    dtype: str | None = None
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0
    storage: int | None = None
    summary: dict[str, Any] | None = None
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True)
class Launch:
    """One line of launches.jsonl. Later launches of a site take what their line omits from the first one.

    seq: position in the run
    graph: a key of ``Run.graphs``
    call: number of the graph call
    kind: ``kernel``, ``extern``, ``input`` or ``output``
    kernel: a key of ``Run.kernels``
    operation: the aten overload
    grid: program instances in x, y and z
    args: arguments, and results of operators
    nodes: FX nodes computed
    checks: the checks made, ``canary`` and ``repeat``
    flags: what the checks found
    unrecorded: why tensors are missing, or None
    site: number of its site and shapes
    """

    seq: int
    graph: str
    call: int
    kind: str
    kernel: str | None = None
    operation: str | None = None
    grid: tuple[int, ...] | None = None
    args: tuple[Arg, ...] = ()
    nodes: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    unrecorded: str | None = None
    site: int | None = None


@dataclass(frozen=True)
class Run:
    """A recorded run.

    path: the run folder
    info: content of run.json
    graphs: by hash
    kernels: by key
    launches: in order
    damaged: why a file or line could not be read, by its name
    """

    path: Path
    info: dict[str, Any]
    graphs: dict[str, dict[str, Any]]
    kernels: dict[str, dict[str, Any]]
    launches: list[Launch]
    damaged: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read a folder. Raises RunError if it is not a run folder or has another format version."""
        path = Path(path)
        try:
            info = json.loads((path / "run.json").read_bytes())
        except OSError as error:
            raise RunError(f"{path} is not a run folder: run.json cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise RunError(f"{path} is not a run folder: run.json is no JSON ({error})") from error
        version = info.get("format") if isinstance(info, dict) else None
        if version != FORMAT:
            raise RunError(f"{path} has format {version!r}; this version of torchport reads {FORMAT!r}")
        damaged: dict[str, str] = {}
        return cls(
            path,
            info,
            _folder(path / "graphs", damaged),
            _folder(path / "kernels", damaged),
            _launches(path / "launches.jsonl", damaged),
            damaged,
        )

    def tensor(self, sha: str) -> torch.Tensor:
        """The elements of a stored storage, in one dimension. Raises RunError if it is missing or damaged."""
        path = self.path / "tensors" / f"{sha}.safetensors"
        try:
            data = load(path.read_bytes())["data"]
        except OSError as error:
            raise RunError(f"{self.path} has no tensor {sha} ({error.strerror})") from error
        except (SafetensorError, KeyError) as error:
            raise RunError(f"{path} is damaged: {error}") from error
        dtype = str(data.dtype).removeprefix("torch.")
        if content_hash(dtype, data.view(torch.uint8).numpy().tobytes() if data.numel() else b"") != sha:
            raise RunError(f"{path} is damaged: its content is not what its name says")
        return data


def _folder(path: Path, damaged: dict[str, str]) -> dict[str, dict[str, Any]]:
    contents = {}
    for file in sorted(path.glob("*.json")):
        try:
            contents[file.stem] = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            damaged[f"{path.name}/{file.name}"] = str(error)
    return contents


def _launches(path: Path, damaged: dict[str, str]) -> list[Launch]:
    """The launches, without an incomplete last line."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        damaged[path.name] = str(error)
        return []
    launches: list[Launch] = []
    sites: dict[int, Launch] = {}
    later: list[tuple[int, dict[str, Any]]] = []  # the first launch of a site may be written after another thread's
    for number, line in enumerate(lines[:-1]):
        try:
            content = json.loads(line)
            if "summaries" in content:
                later.append((number, content))
                continue
            launch = _launch(content)
        except (ValueError, TypeError) as error:
            damaged[f"{path.name}:{number + 1}"] = str(error)
            continue
        launches.append(launch)
        if launch.site is not None:
            sites[launch.site] = launch
    for number, content in later:
        try:
            launches.append(_repeated(sites[content["site"]], content))
        except (ValueError, TypeError, LookupError) as error:
            damaged[f"{path.name}:{number + 1}"] = f"{type(error).__name__}: {error}"
    return sorted(launches, key=lambda launch: launch.seq)


def _repeated(first: Launch, line: dict[str, Any]) -> Launch:
    """A later launch of a site, from its line and the site's first launch."""
    summaries = iter(line["summaries"])
    before, after = line.get("before", {}), line.get("after", {})
    args = tuple(
        replace(
            arg,
            summary=next(summaries) if arg.role in ("out", "inout") else None,
            before=before.get(str(index)),
            after=after.get(str(index)),
        )
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


def _launch(line: dict[str, Any]) -> Launch:
    args = tuple(
        Arg(**{**arg, "shape": tuple(arg.get("shape", ())), "stride": tuple(arg.get("stride", ()))})
        for arg in line.pop("args", ())
    )
    for name in ("grid", "nodes", "checks", "flags"):
        if line.get(name) is not None:
            line[name] = tuple(line[name])
    return Launch(args=args, **line)

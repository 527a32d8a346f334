"""Recording what a model's kernels are given and what they make of it: ``torchport.record``."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

import torchport
from torchport.errors import OptionError
from torchport.inductor.description import DESCRIPTION, read_description
from torchport.inductor.observed import generated_code, observing_graphs
from torchport.numerics.sites import buffer_names, is_fresh, launch_number
from torchport.numerics.store import STORABLE, Store
from torchport.numerics.summary import summarize
from torchport.runtime.observation import Observable, observing

__all__ = ["LEVELS", "Recorder", "record"]

LEVELS = ("stats", "full")

_MUTATED = re.compile(r"'mutated_arg_names': \[([^\]]*)\]")


@dataclass
class Graph:
    """A compiled graph that was called: its name in the folder, its description, and how often it was called."""

    sha: str
    description: dict[str, Any]
    calls: int = 0

    def node(self, buffer: str | None, written: bool) -> str | None:
        """The FX node whose value is in a buffer."""
        if buffer is None:
            return None
        changed: str | None = self.description["changed"].get(buffer) if written else None
        held: str | None = self.description["buffers"].get(buffer)
        return changed or held


@dataclass
class GraphCall:
    """A graph that is being called by this thread."""

    graph: Graph
    number: int
    lines: list[str] = field(default_factory=list)


@dataclass
class Site:
    """One place in generated code that launches a kernel. ``roles``: of each argument."""

    names: list[str]
    roles: list[str]
    buffers: list[str | None]
    nodes: list[str]
    fresh: set[int]
    seen: int = 0


class Recorder:
    """Writes what it is shown into a Store. ``calls``: of each site, how many are kept in full at level ``full``."""

    def __init__(self, store: Store, level: str, calls: int) -> None:
        self.store = store
        self.level = level
        self.calls = calls
        self._seq = itertools.count()
        self._lock = threading.Lock()
        self._graphs: dict[int, Graph] = {}
        self._kept: list[Any] = []
        self._thread = threading.local()

    def around(self, compiled: Any, inputs: Sequence[Any], run: Callable[[Sequence[Any]], Any]) -> Any:
        """Run a graph, with what it launches observed."""
        code = generated_code(compiled)
        if code is None:
            self.store.note("a graph ran without torchport's kernels: nothing of it was recorded")
            return run(inputs)
        graph = self._graph(code)
        with self._lock:
            call = GraphCall(graph, graph.calls)
            graph.calls += 1
        before = getattr(self._thread, "call", None)
        self._thread.call = call
        try:
            self._boundary(call, "input", graph.description["inputs"], list(inputs))
            outputs = run(inputs)
            self._boundary(call, "output", graph.description["outputs"], list(outputs))
            return outputs
        finally:
            self._thread.call = before
            self.store.append(call.lines, flush=True)

    def launcher(self, kernel: Observable, launch: Callable[..., None]) -> Callable[..., None]:
        """What generated code calls in place of ``launch``."""
        sites: dict[tuple[Any, int], Site] = {}
        thread = self._thread

        def observed(*args: Any) -> None:
            call: GraphCall | None = getattr(thread, "call", None)
            if call is None:
                launch(*args)
                return
            frame = sys._getframe(1)
            key = (frame.f_code, frame.f_lineno)
            if (site := sites.get(key)) is None:
                with _disable_current_modes():
                    site = sites[key] = self._site(call.graph, kernel, frame, args)
            self._launch(call, site, kernel, launch, args)

        return observed

    def _graph(self, code: dict[str, Any]) -> Graph:
        with self._lock:
            found = self._graphs.get(id(code))
            if found is None:
                description = read_description(code[DESCRIPTION])
                sha = hashlib.sha256(code[DESCRIPTION].encode()).hexdigest()[:32]
                found = self._graphs[id(code)] = Graph(sha, description)
                self._kept.append(code)
        self.store.put_json("graphs", found.sha, found.description)
        return found

    def _site(self, graph: Graph, kernel: Observable, frame: FrameType, args: Sequence[Any]) -> Site:
        variables = [name for name, value in frame.f_globals.items() if value is kernel]
        names = list(kernel.types)[: len(args)]
        found = _MUTATED.search(kernel.source)
        mutated = set(re.findall(r"'(\w+)'", found[1])) if found else set()
        roles = [_role(name, kernel.types[name], mutated) for name in names]
        buffers = buffer_names(frame, list(args))
        code, line = frame.f_code, frame.f_lineno
        nodes: list[str] = []
        for variable in variables[:1]:
            each = graph.description["kernels"].get(variable, {}).get("nodes", [])
            number = launch_number(code, line, variable)
            nodes = each[number] if number < len(each) else []
        fresh = {
            index
            for index, (role, buffer) in enumerate(zip(roles, buffers, strict=True))
            if role == "out" and buffer is not None and is_fresh(code, line, buffer)
        }
        entry = graph.description["kernels"].get(variables[0], {}) if variables else {}
        self._kernel(graph, kernel, entry)
        return Site(names, roles, buffers, nodes, fresh)

    def _kernel(self, graph: Graph, kernel: Observable, entry: dict[str, Any]) -> None:
        by_name = {node["name"]: node for node in graph.description["fx"]["nodes"]}
        nodes = dict.fromkeys(itertools.chain.from_iterable(entry.get("nodes", [])))
        self.store.put_json(
            "kernels",
            kernel.key,
            {
                "function": kernel.name,
                "types": dict(kernel.types),
                "target": kernel.target,
                "source": kernel.source,
                "ttir": None,
                "operations": entry.get("operations", []),
                "config": entry.get("config", ""),
                "nodes": [
                    {"name": name, "target": by_name[name]["target"], "stack": by_name[name]["source"]}
                    for name in nodes
                    if name in by_name
                ],
            },
        )

    def _launch(
        self, call: GraphCall, site: Site, kernel: Observable, launch: Callable[..., None], args: Sequence[Any]
    ) -> None:
        full = self.level == "full" and site.seen < self.calls
        site.seen += 1
        before: list[str | None] = [None] * len(args)
        unrecorded = None if full else f"level {self.level}"
        if full:
            with _disable_current_modes():
                before = [self._keep(one) for one in args]
        launch(*args)
        with _disable_current_modes():
            storages: dict[int, int] = {}
            described = []
            for index, value in enumerate(args):
                name, role = site.names[index], site.roles[index]
                if not isinstance(value, torch.Tensor):
                    described.append({"name": name, "role": "scalar", "value": value})
                    continue
                written = role != "in"
                one = _tensor(name, role, site.buffers[index], call.graph, value, storages)
                one["summary"] = json.loads(summarize(value)[0]) if written else None
                one["before"] = before[index]
                one["after"] = self._keep(value) if full and written else None
                described.append(one)
        if full and any(
            (one["before"] is None or (one["role"] != "in" and one["after"] is None))
            for one in described
            if one["role"] != "scalar"
        ):
            unrecorded = "beyond the budget"
        grid = kernel.grid if isinstance(kernel.grid, tuple) else kernel.grid.of(args)
        self._line(call, "kernel", described, kernel=kernel.key, grid=grid, nodes=site.nodes, unrecorded=unrecorded)

    def _boundary(self, call: GraphCall, kind: str, names: Sequence[str | None], values: Sequence[Any]) -> None:
        if call.number >= self.calls:
            return
        storages: dict[int, int] = {}
        with _disable_current_modes():
            args = []
            for name, value in zip(names, values, strict=False):
                if isinstance(value, torch.Tensor):
                    role = "in" if kind == "input" else "out"
                    one = _tensor(str(name), role, name, call.graph, value, storages)
                    one["summary"] = json.loads(summarize(value)[0])
                    one["before" if kind == "input" else "after"] = self._keep(value) if self.level == "full" else None
                    args.append(one)
                else:
                    args.append({"name": str(name), "role": "scalar", "value": value})
        unrecorded = None if self.level == "full" else f"level {self.level}"
        self._line(call, kind, args, unrecorded=unrecorded)

    def _keep(self, value: Any) -> str | None:
        """Store the storage behind a tensor."""
        if not isinstance(value, torch.Tensor) or value.dtype not in STORABLE:
            return None
        storage = value.untyped_storage()
        nbytes = storage.nbytes() // value.itemsize * value.itemsize
        return self.store.put_tensor(_dtype(value), ctypes.string_at(storage.data_ptr(), nbytes))

    def _line(self, call: GraphCall, kind: str, args: list[dict[str, Any]], **others: Any) -> None:
        line = {"seq": next(self._seq), "graph": call.graph.sha, "call": call.number, "kind": kind, **others}
        call.lines.append(json.dumps({**line, "args": args}))


def _role(name: str, type_: str, mutated: set[str]) -> str:
    if not type_.startswith("*"):
        return "scalar"
    if name.startswith("in_ptr"):
        return "inout" if name in mutated else "in"
    return "out" if name.startswith("out_ptr") and name not in mutated else "inout"


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _tensor(
    name: str, role: str, buffer: str | None, graph: Graph, value: torch.Tensor, storages: dict[int, int]
) -> dict[str, Any]:
    number = storages.setdefault(value.untyped_storage()._cdata, len(storages))
    return {
        "name": name,
        "role": role,
        "buffer": buffer,
        "node": graph.node(buffer, role != "in"),
        "dtype": _dtype(value),
        "shape": list(value.shape),
        "stride": list(value.stride()),
        "offset": value.storage_offset(),
        "storage": number,
    }


@contextmanager
def record(folder: str | Path, level: str = "stats", budget: int = 2 << 30, calls: int = 1) -> Iterator[Recorder]:
    """Record into ``folder``, which must be new or empty, while the context is open."""
    if level not in LEVELS:
        raise OptionError(f"level {level!r} of torchport.record is not valid; valid: {', '.join(LEVELS)}")
    about = {"torchport": torchport.__version__, "torch": torch.__version__, "level": level, "environment": _machine()}
    store = Store(Path(folder), budget, about)
    recorder = Recorder(store, level, calls)
    try:
        with observing(recorder), observing_graphs(recorder.around):
            yield recorder
    finally:
        store.close({"tensors": store.tensors, "bytes": store.stored})


def _machine() -> dict[str, Any]:
    return {"machine": platform.machine(), "system": platform.platform(), "python": platform.python_version()}

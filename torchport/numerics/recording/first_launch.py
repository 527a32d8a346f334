"""The first launch of a kernel at a place in generated code: canaries, a second run, tensors; what is suspicious."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from torchport.numerics.recording.generated_code import buffer_names, is_fresh, launch_number, launched_name
from torchport.numerics.recording.memory import (
    canary_fits,
    fetch,
    fill_canary,
    put_back,
    storage_bytes,
    storage_key,
)
from torchport.numerics.runs.summary import ELEMENTS, plan, summarize
from torchport.runtime.observation import Observable

if TYPE_CHECKING:
    from torchport.numerics.recording.graph_calls import Graph, GraphCall
    from torchport.numerics.recording.recorder import Recorder

__all__ = ["Site", "Variant", "first_launch", "kernel_site", "suspicious"]

Plan = tuple[int, tuple[int, ...], tuple[int, ...]]
"""Element type, sizes and strides of a tensor, as the native summary takes them."""

_MUTATED = re.compile(r"'mutated_arg_names': \[([^\]]*)\]")
_INFINITIES = {'float("-inf")': "neginf", 'float("inf")': "posinf"}
_ATOMIC = re.compile(r"'atomic_add_found': True|\btl\.atomic_")


@dataclass
class Variant:
    """A site with one set of shapes. ``number``: in launches.jsonl; ``plans``: of what it writes, None where there is
    no summary; ``strange``: whether a launch with NaN or Inf was looked into already."""

    number: int
    plans: list[Plan | None]
    strange: bool = False


@dataclass
class Site:
    """One place in generated code that launches a kernel or calls an operator.

    Of each argument ``names``, ``roles``, ``buffers``; ``nodes``: FX nodes computed; ``fresh``: arguments whose memory
    holds nothing yet; ``atomic``: whether the order of additions may change; ``literals``: counts of a summary that are
    no surprise, as the kernel's source has that infinity in it; ``tensors``, ``written``: which arguments
    are tensors and which of them are written; ``entry``: what the graph's description says of the kernel.
    """

    names: list[str]
    roles: list[str]
    buffers: list[str | None]
    nodes: list[str]
    fresh: frozenset[int] = frozenset()
    atomic: bool = False
    literals: frozenset[str] = frozenset()
    tensors: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    variants: dict[Any, Variant] = field(default_factory=dict)
    seen: int = 0
    results: bool = False
    places: list[int | str] = field(default_factory=list)
    entry: dict[str, Any] = field(default_factory=dict)


def kernel_site(graph: Graph, kernel: Observable, frame: FrameType, args: Sequence[Any]) -> Site:
    """What is known of the line that ``frame`` is at, which launches ``kernel`` with ``args``."""
    code, line = frame.f_code, frame.f_lineno
    variable = launched_name(code, line)
    entry = graph.description["kernels"].get(variable, {})
    names = getattr(kernel, "arguments", list(kernel.types))[: len(args)]
    source = kernel.source
    found = _MUTATED.search(source)
    mutated = set(re.findall(r"'(\w+)'", found[1])) if found else set()
    buffers = buffer_names(frame, list(args))
    if (writes := entry.get("writes")) is not None:  # a kernel of the user's, whose arguments' names say nothing
        roles = [_role_in(kernel.types[name], buffer in writes) for name, buffer in zip(names, buffers, strict=True)]
    else:
        roles = [_role(name, kernel.types[name], mutated) for name in names]
    each = entry.get("nodes", [])
    number = launch_number(code, line, variable) if variable is not None else 0
    fresh = frozenset(
        index
        for index, (role, buffer) in enumerate(zip(roles, buffers, strict=True))
        if role == "out" and buffer is not None and is_fresh(code, line, buffer)
    )
    tensors = [index for index, value in enumerate(args) if isinstance(value, torch.Tensor)]
    written = [index for index in tensors if roles[index] != "in"]
    nodes = each[number] if number < len(each) else []
    literals = frozenset(count for text, count in _INFINITIES.items() if text in source)
    atomic = _ATOMIC.search(source) is not None
    return Site(names, roles, buffers, nodes, fresh, atomic, literals, tensors, written, entry=entry)


def _role(name: str, type_: str, mutated: set[str]) -> str:
    """How a kernel of Inductor's uses an argument, from its name: ``arg_`` is what a template's is called."""
    if type_.startswith("*") and name.startswith("out_ptr") and name not in mutated:
        return "out"
    return _role_in(type_, name in mutated or not name.startswith(("in_ptr", "arg_")))


def _role_in(type_: str, written: bool) -> str:
    if not type_.startswith("*"):
        return "scalar"
    return "inout" if written else "in"


def _known(recorder: Recorder, graph: Graph, kernel: Observable, entry: dict[str, Any]) -> str:
    """The kernel's key, under which it is written down. Inductor's have one after their first launch."""
    key = kernel.key
    if key not in recorder.kernels:
        recorder.kernels[key] = content = _kernel(graph, kernel, entry)
        recorder.store.put_json("kernels", key, content)
    return key


def _kernel(graph: Graph, kernel: Observable, entry: dict[str, Any]) -> dict[str, Any]:
    by_name = {node["name"]: node for node in graph.description["fx"]["nodes"]}
    nodes = dict.fromkeys(itertools.chain.from_iterable(entry.get("nodes", [])))
    return {
        "function": kernel.name,
        "types": dict(kernel.types),
        "target": kernel.target,
        "source": kernel.source,
        "ttir": None,
        "options": None,
        "operations": entry.get("operations") or [by_name[name]["target"] for name in nodes if name in by_name],
        "config": entry.get("config", getattr(kernel, "config", "")),
        "nodes": [
            {"name": name, "target": by_name[name]["target"], "stack": by_name[name]["source"]}
            for name in nodes
            if name in by_name
        ],
    }


def first_launch(
    recorder: Recorder,
    call: GraphCall,
    site: Site,
    kernel: Observable,
    launch: Callable[..., None],
    args: Sequence[Any],
    grid_args: Sequence[Any] = (),
) -> Variant:
    """Launch a kernel at a site, or with shapes, for the first time (at level ``full``: for the first times).

    ``grid_args``: as for ``torchport.numerics.recording.kernel_launches.launched``.

    Outputs that hold nothing yet are filled with canaries. The kernel runs twice, on the same values, unless it adds
    with atomics.
    """
    mirrors = call.graph.mirrors
    full = recorder.level == "full" and site.seen < recorder.calls
    site.seen += 1
    checks = _fill(site, args, mirrors)
    storages: dict[int, int] = {}
    described = [
        recorder.argument(call, site.names[index], site.roles[index], site.buffers[index], value, storages)
        for index, value in enumerate(args)
    ]
    if full:
        for index in site.tensors:
            described[index]["before"] = recorder.keep(call, args[index])
    once = {storage_key(args[index]): args[index] for index in site.written}
    held = {key: storage_bytes(tensor, mirrors) for key, tensor in once.items()}
    launch(*args)
    flags = []
    if not site.atomic:
        checks.append("repeat")
        results = {key: storage_bytes(tensor, mirrors) for key, tensor in once.items()}
        for key, tensor in once.items():
            put_back(tensor, held[key], mirrors)
        launch(*args)
        changed = [key for key, tensor in once.items() if storage_bytes(tensor, mirrors) != results[key]]
        names = [site.names[index] for index in site.written if storage_key(args[index]) in changed]
        flags += [f"nondeterministic: a second launch gave other bits in {name}" for name in names]
    for index in site.written:
        described[index]["summary"] = recorder.summary(call, args[index])
    flags += _flags(site, described, args, call)
    if flags and not full:
        for index in site.tensors:
            data = held.get(storage_key(args[index]))
            described[index]["before"] = recorder.keep(call, args[index], data)
    if full or flags:
        for index in site.written:
            described[index]["after"] = recorder.keep(call, args[index])
    grid = kernel.grid if isinstance(kernel.grid, tuple) else kernel.grid.of((*args, *grid_args))
    plans = [plan(args[index]) for index in site.written]
    variant = Variant(recorder.number(), plans, bool(flags))
    recorder.line(
        call,
        "kernel",
        described,
        kernel=_known(recorder, call.graph, kernel, site.entry),
        grid=grid,
        nodes=site.nodes,
        site=variant.number,
        checks=checks,
        flags=flags,
        unrecorded=recorder.missing(described) if full or flags else f"level {recorder.level}",
    )
    return variant


def _fill(site: Site, args: Sequence[Any], mirrors: Any) -> list[str]:
    """Fill outputs that hold nothing, and that share no memory with another argument, with canaries."""
    keys = [storage_key(args[index]) for index in site.tensors]
    filled = False
    for index in site.fresh:
        if canary_fits(args[index]) and keys.count(storage_key(args[index])) == 1:
            fill_canary(args[index], mirrors)
            filled = True
    return ["canary"] if filled else []


def _flags(site: Site, described: Sequence[dict[str, Any]], args: Sequence[Any], call: GraphCall) -> list[str]:
    """What summaries of the outputs say that should not be."""
    flags, strange = [], []
    for index in site.written:
        summary = described[index].get("summary")
        if summary is None:
            continue
        if summary.get("canary"):
            flags.append(f"canary: {summary['canary']} elements of {site.names[index]} were not written")
        if (count := _surprises(site, summary)) > 0:
            strange.append(f"{count} NaN or Inf in {site.names[index]}")
    if strange and _finite_inputs(site, args, call):
        flags += [f"nonfinite: {one}, from inputs that have none" for one in strange]
    return flags


def _surprises(site: Site, summary: dict[str, Any]) -> int:
    """How many elements are NaN, or infinite in a kernel that does not write that infinity as such (masks do)."""
    return sum(summary.get(name, 0) for name in {"nan", "posinf", "neginf"} - site.literals)


def _finite_inputs(site: Site, args: Sequence[Any], call: GraphCall) -> bool:
    """Whether all that was only read is finite. What was overwritten is not looked at."""
    for index in site.tensors:
        if site.roles[index] != "in" or args[index].dtype not in ELEMENTS:
            continue
        if summarize(fetch(args[index], call.graph.mirrors), False)[1]:
            return False
    return True


def suspicious(
    recorder: Recorder,
    call: GraphCall,
    site: Site,
    variant: Variant,
    outputs: Sequence[torch.Tensor],
    args: Sequence[Any],
) -> str:
    """Look into a later launch whose outputs hold NaN or Inf. Returns what its line says of it, if anything."""
    if not args:  # of an operator
        return ""
    summaries = [json.loads(summarize(one, False)[0]) for one in outputs if plan(one) is not None]
    if not any(_surprises(site, one) for one in summaries) or not _finite_inputs(site, args, call):
        return ""
    variant.strange = True  # of one site, one launch is kept
    before = {str(i): recorder.keep(call, args[i]) for i in site.tensors if site.roles[i] == "in"}
    after = {str(i): recorder.keep(call, args[i]) for i in site.written}
    overwritten = [site.names[i] for i in site.written if site.roles[i] == "inout"]
    call.counts["flagged"] += 1
    found = {
        "flags": ["nonfinite: NaN or Inf, from inputs that have none"],
        "before": before,
        "after": after,
        "unrecorded": f"what {', '.join(overwritten)} held before was overwritten" if overwritten else None,
    }
    call.counts["unrecorded"] += bool(overwritten)
    return "," + json.dumps(found)[1:-1]

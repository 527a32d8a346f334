"""Records the launches of a kernel."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch

from torchport.numerics.recording.first_launch import FirstLaunch
from torchport.numerics.recording.graph_calls import Graph, GraphCall
from torchport.numerics.recording.kernel_checks import (
    fill_canaries,
    has_unexpected_nonfinite,
    inputs_are_finite,
    repeat_launch,
    summary_flags,
)
from torchport.numerics.recording.kernel_site import KernelSite, kernel_site
from torchport.numerics.recording.launch_writer import LaunchWriter
from torchport.numerics.recording.memory import put_back, storage_bytes, storage_key, without_dispatch_modes
from torchport.numerics.recording.site import Variant
from torchport.numerics.runs.summary import plan, summarize
from torchport.runtime.observation import Observable

__all__ = ["KernelLaunches"]

VARIANTS = 64
"""Sets of shapes of one site that are told apart; launches with further ones are left out."""


class KernelLaunches:
    """Records the launches of one kernel, at any of its sites."""

    def __init__(self, writer: LaunchWriter, kernel: Observable) -> None:
        self._writer = writer
        self._kernel = kernel
        self._sites: dict[tuple[int, int], KernelSite] = {}

    def launch(
        self,
        call: GraphCall,
        launch: Callable[..., None],
        args: Sequence[Any],
        frame: FrameType,
        grid_args: Sequence[Any] = (),
    ) -> None:
        """Launch the kernel where ``frame`` is, in a graph's code, and record it.

        ``grid_args``: what the kernel's grid depends on besides ``args``.
        """
        place = (id(frame.f_code), frame.f_lineno)  # the recorder keeps the graph's code alive
        site = self._sites.get(place)
        if site is None:
            with without_dispatch_modes():
                site = self._sites[place] = kernel_site(call.graph, self._kernel, frame, args)
        shapes = tuple(args[index].shape for index in site.tensors) if call.graph.dynamic else None
        variant = site.variants.get(shapes)
        if variant is not None and not self._writer.stores_tensors(site):
            launch(*args)
            self._record_repeat(call, site, variant, args)
        elif variant is None and len(site.variants) >= VARIANTS:
            self._writer.store.note(
                f"kernel {self._kernel.name}: launches with more than {VARIANTS} shapes are left out"
            )
            launch(*args)
        else:
            with without_dispatch_modes():
                site.variants[shapes] = self._record_first(call, site, launch, args, grid_args)

    def _record_first(
        self,
        call: GraphCall,
        site: KernelSite,
        launch: Callable[..., None],
        args: Sequence[Any],
        grid_args: Sequence[Any],
    ) -> Variant:
        """Launch with canaries in fresh outputs, and twice unless the kernel adds with atomics; record everything."""
        mirrors = call.graph.mirrors
        canaries = fill_canaries(site, args, mirrors)
        first = FirstLaunch(self._writer, call, site, site.operands(call.graph, args))
        written = {storage_key(args[index]): args[index] for index in site.written}
        originals = {key: storage_bytes(tensor, mirrors) for key, tensor in written.items()}
        if mirrors is not None:  # what the kernel leaves as it is, and nobody wrote yet, is other memory on a device
            for key, tensor in written.items():
                put_back(tensor, originals[key], mirrors)
        launch(*args)
        if canaries:
            first.checks.append("canary")
        if not site.atomic:
            first.checks.append("repeat")
            first.flags += repeat_launch(site, launch, args, originals, mirrors)
        first.summarize()
        first.flags += summary_flags(site, first.written, args, mirrors)
        grid = self._kernel.grid
        return first.write(
            "kernel",
            originals,
            kernel=self._described(call.graph, site),
            grid=grid if isinstance(grid, tuple) else grid.of((*args, *grid_args)),
            nodes=site.nodes,
        )

    def _record_repeat(self, call: GraphCall, site: KernelSite, variant: Variant, args: Sequence[Any]) -> None:
        """Record a later launch: summaries of what it wrote."""
        outputs = [args[index] for index in site.written]
        summaries, nonfinite = self._writer.summaries(call, variant, outputs)
        details = ""
        if nonfinite and not variant.flagged:
            with without_dispatch_modes():
                details = self._examine(call, site, variant, outputs, args)
        self._writer.write_repeat(call, variant, summaries, details)

    def _examine(
        self,
        call: GraphCall,
        site: KernelSite,
        variant: Variant,
        outputs: Sequence[torch.Tensor],
        args: Sequence[Any],
    ) -> str:
        """Store and flag a later launch if its NaN or Inf are unexpected. Returns what its line says of it."""
        summaries = [json.loads(summarize(tensor, False)[0]) for tensor in outputs if plan(tensor) is not None]
        if not has_unexpected_nonfinite(site, summaries) or not inputs_are_finite(site, args, call.graph.mirrors):
            return ""
        variant.flagged = True  # one such launch of a variant is stored
        store = self._writer.store_tensor
        overwritten = [site.names[index] for index in site.written if site.roles[index] == "inout"]
        call.counts["flagged"] += 1
        call.counts["unrecorded"] += bool(overwritten)
        details = {
            "flags": ["nonfinite: NaN or Inf, from inputs that have none"],
            "before": {str(i): store(call, args[i]) for i in site.tensors if site.roles[i] == "in"},
            "after": {str(i): store(call, args[i]) for i in site.written},
            "unrecorded": f"what {', '.join(overwritten)} held before was overwritten" if overwritten else None,
        }
        return "," + json.dumps(details)[1:-1]

    def _described(self, graph: Graph, site: KernelSite) -> str:
        """The key of the kernel, whose description is written. Inductor's kernels have one after a launch."""
        key = self._kernel.key
        if key not in self._writer.kernels:
            self._writer.write_kernel(key, _description(graph, self._kernel, site.entry))
        return key


def _description(graph: Graph, kernel: Observable, entry: dict[str, Any]) -> dict[str, Any]:
    """A kernel as in ``kernels/KEY.json``. ``entry``: what the graph's description says of it."""
    by_name = {node["name"]: node for node in graph.description["fx"]["nodes"]}
    names = dict.fromkeys(itertools.chain.from_iterable(entry.get("nodes", [])))
    nodes = [by_name[name] for name in names if name in by_name]
    return {
        "function": kernel.name,
        "types": dict(kernel.types),
        "target": kernel.target,
        "source": kernel.source,
        "ttir": None,
        "options": None,
        "operations": entry.get("operations") or [node["target"] for node in nodes],
        "config": entry.get("config", getattr(kernel, "config", "")),
        "nodes": [{"name": node["name"], "target": node["target"], "stack": node["source"]} for node in nodes],
    }

"""Writes launches, kernels and tensors to a run folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import torch

from torchport.numerics.recording.graph_calls import GraphCall
from torchport.numerics.recording.memory import dtype_name, on_host, storage_bytes, to_host, without_dispatch_modes
from torchport.numerics.recording.operand import Operand
from torchport.numerics.recording.site import Site, Variant
from torchport.numerics.runs.summary import summarize
from torchport.numerics.runs.writer import STORABLE, Store
from torchport.runtime.launcher import summarize_several

__all__ = ["LEVELS", "LaunchWriter"]

LEVELS = ("stats", "full")


class LaunchWriter:
    """Writes launches, kernels and tensors to a run folder.

    store: the run folder
    level: one of LEVELS
    calls: how many launches of each site are stored with their tensors at level ``full``
    kernels: descriptions of the kernels written so far, by key
    operations: the operators called so far
    """

    def __init__(self, store: Store, level: str, calls: int) -> None:
        self.store = store
        self.level = level
        self.calls = calls
        self.kernels: dict[str, dict[str, Any]] = {}
        self.operations: set[str] = set()
        self._sequence = itertools.count()
        self._variants = itertools.count()

    def stores_tensors(self, site: Site) -> bool:
        """Whether the next launch of a site is stored with its tensors, flagged or not."""
        return self.level == "full" and site.first_launches < self.calls

    def new_variant_number(self) -> int:
        """A number for a new variant of a site."""
        return next(self._variants)

    def summary(self, call: GraphCall, tensor: torch.Tensor, *, detailed: bool = True) -> dict[str, Any] | None:
        """A summary, None for element types without one."""
        try:
            summary: dict[str, Any] = json.loads(summarize(to_host(tensor, call.graph.mirrors), detailed)[0])
        except KeyError:
            self.store.note(f"tensors of {dtype_name(tensor.dtype)} have no summary")
            return None
        return summary

    def summaries(self, call: GraphCall, variant: Variant, outputs: list[torch.Tensor]) -> tuple[str, int]:
        """Short summaries of the tensors that a later launch wrote, as JSON, and how many elements are not finite."""
        if call.graph.mirrors is not None or not all(map(on_host, outputs)):
            with without_dispatch_modes():
                outputs = [to_host(tensor, call.graph.mirrors) for tensor in outputs]
        return summarize_several(outputs, variant.plans)

    def store_tensor(self, call: GraphCall, tensor: torch.Tensor, data: bytes | None = None) -> str | None:
        """Store the memory behind a tensor, or ``data``, its earlier content. Returns its hash.

        Returns None, with a note in the run, for element types that cannot be stored and beyond the budget.
        """
        if tensor.dtype not in STORABLE:
            self.store.note(f"tensors of {dtype_name(tensor.dtype)} cannot be stored")
            return None
        if not self.store.fits(tensor.untyped_storage().nbytes()):
            self.store.note("tensors beyond the budget were not stored")
            return None
        content = storage_bytes(tensor, call.graph.mirrors) if data is None else data
        return self.store.put_tensor(dtype_name(tensor.dtype), content)

    def missing_reason(self, operands: Iterable[Operand]) -> str | None:
        """Why a tensor that should be stored is not; None if all are."""
        for operand in operands:
            if operand.is_tensor and (operand.before if operand.role == "in" else operand.after) is None:
                return self.store.ended or "beyond the budget, or of a type that cannot be stored"
        return None

    def write_kernel(self, key: str, description: dict[str, Any]) -> None:
        """Write a kernel's description."""
        self.kernels[key] = description
        self.store.put_json("kernels", key, description)

    def write_launch(self, call: GraphCall, kind: str, operands: Iterable[Operand], **about: Any) -> None:
        """Write a launch, or the inputs or outputs of a graph, with all operands."""
        if kind in ("kernel", "extern"):
            call.counts["launches"] += 1
        if (operation := about.get("operation")) is not None:
            self.operations.add(operation)
        call.counts["flagged"] += bool(about.get("flags"))
        call.counts["unrecorded"] += bool(about.get("unrecorded"))
        storages: dict[int, int] = {}
        args = [operand.as_json(storages) for operand in operands]
        line = {"seq": next(self._sequence), "graph": call.graph.sha, "call": call.number, "kind": kind, **about}
        call.lines.append(json.dumps({**line, "args": args}, allow_nan=False, default=str))

    def write_repeat(self, call: GraphCall, variant: Variant, summaries: str, details: str = "") -> None:
        """Write a later launch of a site. ``details``: more JSON members, each after a comma."""
        call.counts["launches"] += 1
        head = f'{{"seq":{next(self._sequence)},"call":{call.number},"site":{variant.number}'
        call.lines.append(f'{head},"summaries":{summaries}{details}}}')

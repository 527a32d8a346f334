"""Records parameters and gradients: before each step of an optimizer, and of a model when the recording ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from torchport.compat import OptimizedModule
from torchport.numerics.recording.graph_calls import Graph, GraphCall
from torchport.numerics.recording.launch_writer import LaunchWriter
from torchport.numerics.recording.memory import storage_key, without_dispatch_modes
from torchport.numerics.recording.operand import Operand
from torchport.numerics.recording.overhead import OverheadBudget
from torchport.numerics.runs.schema import Placement
from torchport.runtime.operators import is_plain

__all__ = ["StateRecorder"]


class StateRecorder:
    """Records parameters and gradients, at level ``full`` with their elements for the first steps and at the end.

    Of a DTensor it is this rank's part that is recorded, and how it is placed.
    """

    def __init__(
        self,
        writer: LaunchWriter,
        calls: int,
        model: torch.nn.Module | None,
        written: Callable[[], Mapping[int, tuple[str, int]]] = dict,
    ) -> None:
        """``calls``: steps of an optimizer of which tensors are kept. ``model``: whose parameters have their names.

        written: by memory, group and number of the last collective that wrote it since this was asked before
        """
        self._writer, self._calls, self._written = writer, calls, written
        self._model = None if model is None else _unwrapped(model)
        self._steps = 0
        self._outside = Graph("", {}, {}, None, False, OverheadBudget(math.inf, 1))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record until the context closes; then the model once more."""
        with ExitStack() as stack:
            stack.callback(register_optimizer_step_pre_hook(self._before_step).remove)
            yield
        if self._model is not None:
            named = dict(self._model.named_parameters())
            self._write(named, {name: one.grad for name, one in named.items()}, None, stored=True)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        named = self._named(optimizer)
        gradients = {name: one.grad for name, one in named.items()}
        self._write(named, gradients, self._steps, stored=self._steps < self._calls)
        self._steps += 1

    def _named(self, optimizer: Any) -> dict[str, torch.Tensor]:
        names = {} if self._model is None else {id(one): name for name, one in self._model.named_parameters()}
        found = {}
        for number, group in enumerate(optimizer.param_groups):
            given = group.get("param_names") or [f"{number}.{index}" for index in range(len(group["params"]))]
            found.update({names.get(id(one), name): one for name, one in zip(given, group["params"], strict=True)})
        return found

    def _write(
        self, parameters: Mapping[str, torch.Tensor], gradients: Mapping[str, Any], step: int | None, *, stored: bool
    ) -> None:
        writer, call, placements = self._writer, GraphCall(self._outside, 0), {}
        written, reduced = self._written(), {}
        stored = stored and writer.level == "full"
        operands = []
        with without_dispatch_modes(), torch.no_grad():
            for kind, tensors in (("parameter", parameters), ("gradient", gradients)):
                for name, tensor in tensors.items():
                    if tensor is None:
                        continue
                    local, placement = _local(tensor)
                    if not is_plain(local):
                        writer.store.note(f"{kind}s that are no plain tensors were not recorded")
                        continue
                    operand = Operand(f"{kind} {name}", "in", None, None, local)
                    operand.summary = writer.summary(call, local, detailed=step is None or step < self._calls)
                    operand.before = writer.store_tensor(call, local) if stored else None
                    operands.append(operand)
                    if storage_key(local) in written:
                        reduced[operand.name] = written[storage_key(local)]
                    if placement is not None:
                        placements[operand.name] = placement
            reason = writer.missing_reason(operands) if stored else f"level {writer.level}"
            if not stored and writer.level == "full":
                reason = "a later step"
            about = {"step": step, "placements": placements, "reduced": reduced}
            writer.write_launch(call, "state", operands, state=about, unrecorded=reason)
        writer.store.append(call.lines, flush=True)


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The user's module, whose parameters have the same names on one rank and on several."""
    while True:
        inner = getattr(model, "_orig_mod", None) if isinstance(model, OptimizedModule) else None
        if type(model).__name__ == "DistributedDataParallel":
            inner = model.module
        if not isinstance(inner, torch.nn.Module):
            return model
        model = inner


def _local(tensor: torch.Tensor) -> tuple[torch.Tensor, Placement | None]:
    """This rank's part of a DTensor, and how it is placed; other tensors as they are."""
    placements, mesh = getattr(tensor, "placements", None), getattr(tensor, "device_mesh", None)
    if placements is None or mesh is None:
        return tensor.detach(), None
    members = mesh.mesh
    about: Placement = {
        "shape": list(tensor.shape),
        "mesh_shape": list(members.shape),
        "mesh": members.reshape(-1).tolist(),
        "dims": [_placed(one) for one in placements],
    }
    local: torch.Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return local.detach(), about


def _placed(placement: Any) -> str:
    """``replicate``, ``shard DIM``, ``strided shard DIM`` or ``partial``, as run-format.md has it."""
    if placement.is_replicate():
        return "replicate"
    if placement.is_partial():
        return "partial"
    name = type(placement).__name__
    words = {"Shard": "shard", "_StridedShard": "strided shard"}
    return f"{words.get(name, name)} {placement.dim}"

"""Runs a compiled graph on a device: checks its inputs first, and fetches its results at the end."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchport.compat import autograd_functions
from torchport.runtime import events, observation
from torchport.runtime.devices.assertions import check_assertions
from torchport.runtime.devices.device import mirrors_of
from torchport.runtime.devices.host_operations import HostOperations
from torchport.runtime.devices.mirrors import Mirrors, every_device, version_of
from torchport.runtime.devices.statistics import Statistics, TransferCount
from torchport.runtime.devices.thread import Run, entered

__all__ = ["from_device", "on_device"]

Call = Callable[[list[Any]], Sequence[Any]]


def on_device(target: str, call: Call, results: int | None) -> Call:
    """Wrap ``call``, the generated code of a graph, to copy its tensors to the device of ``target`` and back.

    ``results``: how many of its results the caller may read; those after them are saved for the backward pass, which
    runs on the same device, and stay there. None to fetch all.
    """
    noted: set[str] = set()
    known: list[bool] = []  # whether its transfers are in the events: those of the first run are

    def run(args: list[Any]) -> Sequence[Any]:
        mirrors = mirrors_of(target)
        if mirrors is None:
            return call(args)
        inputs = [(weakref.ref(one), version_of(one)) for one in args if isinstance(one, torch.Tensor)]
        state = Run(target, mirrors, noted)
        before = None if known else _copies(mirrors.statistics)
        with mirrors.lock:
            _begin(mirrors, args)
        outputs: Sequence[Any] = ()
        try:
            with entered(state), HostOperations(state), observation.operations():
                outputs = call(args)
        finally:  # after an error too: inputs that the graph changed must not be left to the device
            with mirrors.lock:
                _end(state, inputs, outputs, results)
        with mirrors.lock:
            check_assertions(mirrors)
        if before is not None:
            known.append(True)
            _record(target, before, _copies(mirrors.statistics))
        return outputs

    return run


def from_device(target: str, call: Call) -> Call:
    """Wrap ``call``, which computes on the host, to fetch first what the device of ``target`` holds for it."""

    def run(args: list[Any]) -> Sequence[Any]:
        mirrors = mirrors_of(target)
        if mirrors is not None:
            with mirrors.lock:
                for one in args:
                    if isinstance(one, torch.Tensor):
                        mirrors.on_host(one, "graph on the host")
        return call(args)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _begin(mirrors: Mirrors, args: Sequence[Any]) -> None:
    others = every_device(but=mirrors)
    for one in args:
        if isinstance(one, torch.Tensor):
            for other in others:
                other.on_host(one, "graph on another device")
            mirrors.check(one)


def _end(
    state: Run,
    inputs: Sequence[tuple[weakref.ref[torch.Tensor], int | None]],
    outputs: Sequence[Any],
    results: int | None,
) -> None:
    """Fetch what the caller may read, and note the state of all tensors."""
    mirrors, others = state.mirrors, every_device(but=state.mirrors)
    shown = [one for one in outputs[:results] if isinstance(one, torch.Tensor)]
    for reference, version in inputs:
        tensor = reference()
        if tensor is None:
            continue
        mirror = mirrors.find(tensor)
        if mirror is None:
            continue
        if mirror.device and not mirror.host:
            mirrors.on_host(tensor, "changed input")
            for other in others:
                other.host_wrote(tensor, "graph on another device")
        # The version of before the run: another thread may have changed the tensor meanwhile.
        mirrors.agree(tensor, version_of(tensor) if id(tensor) in state.host_wrote else version)
    if autograd_functions._top_saved_tensors_default_hooks(False) is not None:  # they look at what is saved, too
        shown = [one for one in outputs if isinstance(one, torch.Tensor)]
    for tensor in shown:
        mirrors.on_host(tensor, "output")
    for tensor in outputs:
        if isinstance(tensor, torch.Tensor):
            mirrors.agree(tensor, version_of(tensor))
    mirrors.sweep()


def _copies(statistics: Statistics) -> dict[tuple[str, str], TransferCount]:
    return {
        (direction, reason): TransferCount(one.copies, one.bytes)
        for direction, reasons in (("upload", statistics.uploads), ("download", statistics.downloads))
        for reason, one in reasons.items()
    }


def _record(
    target: str, before: dict[tuple[str, str], TransferCount], after: dict[tuple[str, str], TransferCount]
) -> None:
    for (direction, reason), now in after.items():
        then = before.get((direction, reason), TransferCount())
        if now.copies > then.copies:
            copies, nbytes = now.copies - then.copies, now.bytes - then.bytes
            events.record(events.Transfer(target, direction, reason, copies, nbytes))

"""Runs a compiled graph on a device: checks its inputs first, and fetches its results at the end."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from torchport.compat import autograd_functions
from torchport.runtime import events, observation
from torchport.runtime.devices.assertions import check_assertions
from torchport.runtime.devices.device import mirrors_of
from torchport.runtime.devices.host_operations import HostOperations
from torchport.runtime.devices.mirrors import Mirror, Mirrors, every_device, version_of
from torchport.runtime.devices.statistics import Statistics, TransferCount
from torchport.runtime.devices.thread import GraphRun, Products, entered

__all__ = ["from_device", "on_device"]

Call = Callable[[list[Any]], Sequence[Any]]


def on_device(target: str, call: Call, results: int | None, products: Products | None = None) -> Call:
    """Wrap ``call``, the generated code of a graph, to copy its tensors to the device of ``target`` and back.

    ``results``: how many of its results the caller may read; those after them are saved for the backward pass, which
    runs on the same device, and stay there. None to fetch all.
    ``products``: as in ``GraphRun``. Then ``call`` is a program's, whose operators bring their tensors to the host
    themselves (``host_operations.operated``); otherwise a mode does so.
    """
    noted: set[str] = set()
    known: list[bool] = []  # holds an item once the transfers of the first run are in the events

    def run(args: list[Any]) -> Sequence[Any]:
        mirrors = mirrors_of(target)
        if mirrors is None:
            return call(args)
        inputs = [(weakref.ref(arg), version_of(arg)) for arg in args if isinstance(arg, torch.Tensor)]
        state = GraphRun(target, mirrors, noted, products=products)
        before = None if known else _copies(mirrors.statistics)
        with mirrors.lock:
            _begin(mirrors, args)
        outputs: Sequence[Any] = ()
        try:
            watching: AbstractContextManager[Any] = HostOperations(state) if products is None else nullcontext()
            with entered(state), watching, observation.operations():
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
                for arg in args:
                    if isinstance(arg, torch.Tensor):
                        mirrors.on_host(arg, "graph on the host")
        return call(args)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _begin(mirrors: Mirrors, args: Sequence[Any]) -> None:
    others = every_device(but=mirrors)
    for arg in args:
        if isinstance(arg, torch.Tensor):
            for other in others:
                other.on_host(arg, "graph on another device")
            mirrors.check(arg)


def _end(
    state: GraphRun,
    inputs: Sequence[tuple[weakref.ref[torch.Tensor], int | None]],
    outputs: Sequence[Any],
    results: int | None,
) -> None:
    """Fetch what the caller may read, and note the state of all tensors."""
    for reference, version in inputs:
        tensor = reference()
        mirror = state.mirrors.find(tensor) if tensor is not None else None
        if tensor is not None and mirror is not None:
            _end_input(state, tensor, mirror, version)
    saved_are_seen = autograd_functions._top_saved_tensors_default_hooks(False) is not None
    tensors = [output for output in outputs if isinstance(output, torch.Tensor)]
    returned = [output for output in outputs[:results] if isinstance(output, torch.Tensor)]
    for tensor in tensors if saved_are_seen else returned:
        state.mirrors.on_host(tensor, "output")
    for tensor in tensors:
        state.mirrors.agree(tensor, version_of(tensor))
    state.mirrors.sweep()


def _end_input(state: GraphRun, tensor: torch.Tensor, mirror: Mirror, version: int | None) -> None:
    """Copy an input back if the device changed it. ``version``: the tensor's before the run."""
    if mirror.device and not mirror.host:
        state.mirrors.on_host(tensor, "changed input")
        for other in every_device(but=state.mirrors):
            other.host_wrote(tensor, "graph on another device")
    # The version from before the run, as another thread may have changed the tensor meanwhile.
    state.mirrors.agree(tensor, version_of(tensor) if id(tensor) in state.host_wrote else version)


def _copies(statistics: Statistics) -> dict[tuple[str, str], TransferCount]:
    return {
        (direction, reason): TransferCount(count.copies, count.bytes)
        for direction, reasons in (("upload", statistics.uploads), ("download", statistics.downloads))
        for reason, count in reasons.items()
    }


def _record(
    target: str, before: dict[tuple[str, str], TransferCount], after: dict[tuple[str, str], TransferCount]
) -> None:
    for (direction, reason), now in after.items():
        then = before.get((direction, reason), TransferCount())
        if now.copies > then.copies:
            copies, nbytes = now.copies - then.copies, now.bytes - then.bytes
            events.record(events.Transfer(target, direction, reason, copies, nbytes))

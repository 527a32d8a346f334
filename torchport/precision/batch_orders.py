"""Batch invariance of a model's kernels, from the order of their operations: beside what was measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from torchport.compat import reset_dynamo
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.emulation.dispatch import only_moves
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.trees.invariance import CERTIFIED, NOT_KNOWN, Invariance, same_rows
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.numerics.verdicts.replay import NotReplayable
from torchport.target import Target

__all__ = ["NOT_COVERED", "KernelOrder", "kernel_orders"]

NOT_COVERED = "NOT COVERED"
"""The verdict on operators of a library: their order is not torchport's."""
_STEPS = 300_000


@dataclass(frozen=True)
class KernelOrder:
    """One launch of a model.

    name: the kernel's function, or the operator.
    nodes: FX nodes that it computes.
    verdict: as of ``Invariance``, for an example alone and in its batch; NOT COVERED for an operator.
    reason: of all verdicts but CERTIFIED.
    """

    name: str
    nodes: tuple[str, ...]
    verdict: str
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def kernel_orders(
    model: Callable[..., Any],
    alone: Sequence[Any],
    batch: Sequence[Any],
    size: int,
    options: Mapping[str, Any] | None = None,
) -> list[KernelOrder]:
    """Compare the order of each kernel of ``model`` on an example ``alone`` with that on a ``batch`` of ``size``.

    Both are recorded. One launch after the other is paired; where the graphs have other launches, none is known.
    """
    with tempfile.TemporaryDirectory() as scratch:
        runs = [_recorded(model, given, dict(options or {}), Path(scratch) / name)
                for name, given in (("alone", alone), ("batch", batch))]  # fmt: skip
        launches = [[one for one in run.launches if one.kind in ("kernel", "extern")] for run in runs]
        same = [[one.operation or "kernel" for one in each] for each in launches]
        target = Target.parse(str(dict(options or {}).get("target", "cpu")))
        found = []
        for number, launch in enumerate(launches[1]):
            other = launches[0][number] if same[0] == same[1] else None
            found.append(_order(runs, other, launch, size, target))
        return found


def _recorded(model: Callable[..., Any], given: Sequence[Any], options: Mapping[str, Any], folder: Path) -> Run:
    reset_dynamo()
    compiled = torch.compile(model, backend="torchport", options=dict(options), dynamic=False)
    with record(folder, "full", overhead=float("inf")), torch.no_grad():
        compiled(*given)
    return Run.load(folder)


def _order(runs: Sequence[Run], alone: Launch | None, batch: Launch, size: int, target: Target) -> KernelOrder:
    if batch.kind == "extern":
        name = batch.operation or "an operator"
        if only_moves(name):
            return KernelOrder(name, tuple(batch.nodes), CERTIFIED, "it only moves elements")
        return KernelOrder(name, tuple(batch.nodes), NOT_COVERED, "a library's order is not known")
    kernel = runs[1].kernels.get(batch.kernel or "", {})
    name, nodes = str(kernel.get("function", batch.kernel)), tuple(node["name"] for node in kernel.get("nodes", ()))
    if alone is None:
        return KernelOrder(name, nodes, NOT_KNOWN, "an example alone has other launches")
    try:
        first, second = (AlgebraLaunch.of(*replay_of(*one)[:2]) for one in zip(runs, (alone, batch), strict=True))
    except NotReplayable as error:
        return KernelOrder(name, nodes, NOT_KNOWN, str(error))
    found: Invariance = same_rows(first, second, size, target, steps=_STEPS)
    return KernelOrder(name, nodes, found.verdict, "" if found.verdict == CERTIFIED else found.reason)

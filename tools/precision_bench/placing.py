"""Faults put into launches of real models, and the place where ``torchport diff`` says they are."""

from __future__ import annotations

import functools
import gc
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from model_zoo import build

import torchport
from torchport.inductor.kernels import LoadedKernel
from torchport.numerics.compare.diff import compare
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.judge import judge

__all__ = ["Placed", "place"]


def _tile(values: torch.Tensor) -> torch.Tensor:
    """Eight neighbours are off by a hundredth."""
    flat = values.reshape(-1).clone()
    start = flat.numel() // 3
    flat[start : start + 8] *= 1.01
    return flat.reshape(values.shape)


def _cut(values: torch.Tensor) -> torch.Tensor:
    """An upcast is lost: all are rounded to bf16."""
    return values.bfloat16().to(values.dtype)


def _toward_zero(values: torch.Tensor) -> torch.Tensor:
    """All are too small in magnitude by 64 units of f32."""
    return values * (1 - 64 * 2.0**-24)


def _dropped(values: torch.Tensor) -> torch.Tensor:
    """The last element is not written."""
    flat = values.reshape(-1).clone()
    flat[-1] = 0
    return flat.reshape(values.shape)


FAULTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tile": _tile, "lost upcast": _cut, "toward zero": _toward_zero, "tail": _dropped,
}  # fmt: skip


@dataclass
class Placed:
    """One recorded run with faults.

    ranks: of each fault's launch among the root causes, without the other faults; None if it is not among them.
    wrong: launches of kernels that are blamed and have no fault.
    """

    model: str
    faults: list[str]
    ranks: list[int | None]
    wrong: int


def place(name: str, trials: int, seed: int = 0) -> list[Placed]:
    """Try ``trials`` runs of a model of the zoo, every third with two faults at once."""
    torch._dynamo.reset()
    built = build(name, "small")
    compiled = torch.compile(built.module, backend="torchport", dynamic=False)
    generator = torch.Generator().manual_seed(seed)
    found = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        call = functools.partial(compiled, **built.inputs)
        call()
        lines: list[int] = []
        with _broken({}, lines):
            call()
        clean = _recorded(Path(folder) / "clean", call)
        kernels = [
            launch for launch in clean.launches if launch.kind == "kernel" and launch.call == kernels_call(clean)
        ]
        places = [(launch, line) for launch, line in zip(kernels, lines, strict=True) if _outputs(launch)]
        for trial in range(trials):
            count = 2 if trial % 3 == 2 else 1
            chosen = torch.randperm(len(places), generator=generator)[:count].tolist()
            kinds = [list(FAULTS)[int(torch.randint(len(FAULTS), (), generator=generator))] for _ in chosen]
            faults = {places[i][1]: (_outputs(places[i][0]), FAULTS[k]) for i, k in zip(chosen, kinds, strict=True)}
            with _broken(faults, []) as changed:
                wrong = _recorded(Path(folder) / str(trial), call)
            if all(changed[line] for line in faults):  # a mask of zeros times anything is no fault
                found.append(_rank(name, clean, wrong, [places[i][0] for i in chosen], kinds))
    return found


def kernels_call(run: Run) -> int:
    """The number of the call whose launches are complete: the first that was seen."""
    return min(launch.call for launch in run.launches if launch.kind == "kernel")


def _outputs(launch: Launch) -> list[int]:
    """Positions of the float tensors that a launch writes."""
    return [
        i for i, arg in enumerate(launch.args)
        if arg.role in ("out", "inout") and arg.dtype in ("float32", "bfloat16", "float16")
    ]  # fmt: skip


def _recorded(folder: Path, call: Callable[[], Any]) -> Run:
    with torchport.record(folder, "full"):
        call()
    return Run.load(folder)


@contextmanager
def _broken(
    faults: dict[int, tuple[list[int], Callable[[torch.Tensor], torch.Tensor]]], lines: list[int]
) -> Iterator[defaultdict[int, bool]]:
    """Kernels launched from these lines of generated code write what a fault makes of it; ``lines`` gets all lines.
    Gives, by line, whether that changed anything."""
    changed: defaultdict[int, bool] = defaultdict(bool)

    def wrap(launch: Callable[..., None]) -> Callable[..., None]:
        def broken(*args: Any) -> None:
            launch(*args)
            frame = sys._getframe(1)
            while frame is not None and "torchport_kernel" not in frame.f_globals:  # the recorder may stand between
                frame = frame.f_back  # type: ignore[assignment]
            lines.append(frame.f_lineno)
            positions, fault = faults.get(frame.f_lineno, ([], _cut))
            for position in positions:
                wrong = fault(args[position])
                changed[frame.f_lineno] |= not torch.equal(wrong, args[position])
                args[position].copy_(wrong)

        return broken

    kernels = [one for one in gc.get_objects() if type(one) is LoadedKernel]
    before = [(one, one.launch) for one in kernels]
    for one, launch in before:
        one.launch = wrap(launch)
    try:
        yield changed
    finally:
        for one, launch in before:
            one.launch = launch


def _rank(name: str, clean: Run, wrong: Run, launches: Sequence[Launch], kinds: list[str]) -> Placed:
    """Compare with the clean run."""
    diff = compare(clean, wrong, judge, truth=True)
    blamed = [root for root in diff.roots if not root.legal]
    seqs = [launch.seq for launch in launches]
    ranks: list[int | None] = []
    for seq in seqs:
        others = [root for root in blamed if root.run != "B" or root.seq == seq or root.seq not in seqs]
        ranks.append(next((i + 1 for i, root in enumerate(others) if root.run == "B" and root.seq == seq), None))
    innocent = sum(root.run == "A" or root.seq not in seqs for root in blamed)
    return Placed(name, kinds, ranks, innocent)

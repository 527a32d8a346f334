"""``torchport record``: records a model's run, compiled or eager, into a folder that ``torchport diff`` compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from torchport.cli.console import standard_error
from torchport.cli.model import load_model
from torchport.numerics.recording.record import record as recording
from torchport.precision.steps import loss_of
from torchport.runtime.ranks import is_job

__all__ = ["record"]


def record(
    model: str, folder: Path, target: str, emulated: str | None, level: str, calls: int, *, eager: bool, train: bool,
    precision: str | None = None,
) -> int:  # fmt: skip
    """Run ``model`` (``FILE.py:FUNCTION``) ``calls`` times and record it into ``folder``. Returns 0.

    precision: the option of that name.

    In a job, as of torchrun, each rank records into a folder of its own below ``folder``. The seed is set to 0 before
    each call, so that random numbers of two recordings of one kind are the same.
    """
    from torchport.cli.working import working

    module, inputs = load_model(model)
    options: dict[str, Any] = {"target": target} | ({"emulate": emulated} if emulated else {})
    options |= {"precision": precision} if precision else {}
    plain = module if isinstance(module, torch.nn.Module) else _Called(module)
    called: Any = plain if eager else torch.compile(module, backend="torchport", options=options)
    console = standard_error()
    recorded = recording(
        folder, level, calls=calls, overhead=float("inf"), eager=plain if eager else None,
        model=plain if train or is_job() else None,
    )  # fmt: skip
    with working("recording", calls, console=console) as work, recorded as recorder:
        for _ in range(calls):
            torch.manual_seed(0)
            with torch.set_grad_enabled(train):
                result = called(*inputs)
                if train:
                    loss_of(result).backward()
            work.step()
    kinds = "eager operators" if eager else "launches"
    console.print(f"{recorder.counts['launches']} {kinds} of {calls} calls are in {folder}", highlight=False)
    return 0


class _Called(torch.nn.Module):
    """A function as a module, whose operators are recorded."""

    def __init__(self, called: Any) -> None:
        super().__init__()
        self.called = called

    def forward(self, *inputs: Any) -> Any:
        return self.called(*inputs)

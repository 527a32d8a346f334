"""Recorded launches of kernels as replays."""

from __future__ import annotations

import torch

from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.runs.schema import DTYPES
from torchport.numerics.verdicts.replay import Argument, NotReplayable, Replay

__all__ = ["replay_of"]


def replay_of(run: Run, launch: Launch) -> tuple[Replay, dict[int, torch.Tensor], list[Argument]]:
    """A launch that can be repeated, its storages before, and the arguments it writes. Raises NotReplayable."""
    kernel = run.kernels.get(launch.kernel or "")
    if kernel is None or not kernel.get("ttir"):
        raise NotReplayable("the kernel's TTIR was not kept")
    if launch.grid is None:
        raise NotReplayable("the configuration that was launched, and so its grid, is not known")
    arguments, storages, outputs = [], {}, []
    for arg in launch.args:
        type_ = kernel["types"].get(arg.name, "constexpr")
        if arg.value is not None and not isinstance(arg.value, (int, float)):
            raise NotReplayable(f"argument {arg.name} is neither a tensor nor a number")
        if arg.role == "scalar" or arg.storage is None:
            arguments.append(Argument(arg.name, type_, arg.value))
            continue
        if arg.before is None:
            raise NotReplayable(f"what argument {arg.name} held before the launch was not kept")
        dtype = DTYPES[str(arg.dtype)]
        argument = Argument(arg.name, type_, None, arg.storage, dtype, arg.shape, arg.stride, arg.offset)
        arguments.append(argument)
        storages[arg.storage] = run.tensor(arg.before)
        if arg.role in ("out", "inout"):
            outputs.append(argument)
    if not 1 <= len(launch.grid) <= 3:
        raise NotReplayable(f"a grid of {len(launch.grid)} axes is none")
    x, y, z = (*launch.grid, 1, 1)[:3]
    return Replay(kernel["ttir"], arguments, (x, y, z), trusted=run.trusted), storages, outputs

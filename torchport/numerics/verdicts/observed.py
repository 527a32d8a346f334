"""Tensors as they were recorded: one argument's, and a node's that a launch left."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torchport.numerics.runs.reader import Arg, Launch, Run

__all__ = ["Observed", "tensor_of"]


@dataclass(frozen=True)
class Observed:
    """The value of an FX node that a launch left.

    value: in the node's shape; None if only its summary was kept.
    """

    launch: Launch
    arg: Arg
    value: torch.Tensor | None


def tensor_of(run: Run, arg: Arg, after: bool = True) -> torch.Tensor | None:
    """The tensor of an argument, after the launch or before it; None if it was not kept. Raises RunError."""
    sha = arg.after if after else arg.before
    return None if sha is None else run.view(arg, sha)

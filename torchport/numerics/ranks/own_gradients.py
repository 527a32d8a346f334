"""What a rank computed itself for the gradients that it gives away: zeros may be right."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from torchport.errors import RunError
from torchport.numerics.runs.reader import Launch, Run

__all__ = ["computed_zeros"]


def computed_zeros(run: Run, launch: Launch) -> bool | None:
    """Whether all gradients that backward graphs of a rank returned before ``launch`` are zeros.

    Of the calls since the collective before it: a loss that counts none of the rank's rows, or an expert that was given
    none, has gradients of zeros. None where no compiled backward graph ran there, or its results were not kept.
    """
    since = max((one.seq for one in run.launches if one.kind == "collective" and one.seq < launch.seq), default=-1)
    found = list(_results(run, since, launch.seq))
    if not found or any(one is None for one in found):
        return None
    return not any(bool(one.any()) for one in found if one is not None)


def _results(run: Run, after: int, before: int) -> Iterator[torch.Tensor | None]:
    """The floats that backward graphs returned, as the launches between two others left them."""
    for launch in run.launches:
        graph = run.graphs.get(launch.graph)
        if not after < launch.seq < before or graph is None or graph["direction"] != "backward":
            continue
        returned = {name for name in graph["fx"]["outputs"] if name is not None}
        for arg in launch.args:
            if arg.role in ("out", "inout") and arg.node in returned and arg.dtype is not None:
                try:
                    tensor = None if arg.after is None else run.view(arg, arg.after)
                except RunError:
                    tensor = None
                if tensor is None or tensor.dtype.is_floating_point:
                    yield tensor

"""Functions of ranks: compilations that only one rank, or all of them, do again."""

from __future__ import annotations

import time
import warnings

import torch
import torch.distributed as dist
from compiling import compiled

from torchport.runtime import alone, events


def smaller_batches(ranks: list[int]) -> list[str]:
    """Calls of which the second has another size on some ranks; what torchport says of it."""
    alone.PATIENCE = 1.0

    def step(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        dist.all_reduce(total := y.sum())
        return y + total

    call = compiled(step)
    with events.capture() as found, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        call(torch.ones(8, 4))
        size = 3 if dist.get_rank() in ranks else 8
        assert call(torch.ones(size, 4)).shape == (size, 4)
        time.sleep(2.0)
    alone.PATIENCE = 5.0
    return [str(event) for event in found if isinstance(event, events.CompiledAlone)]

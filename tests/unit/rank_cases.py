"""Runs of several ranks for tests: small jobs, each with one fault put into it, recorded one after the other.

``python rank_cases.py RANK WORLD_SIZE FOLDER`` runs all of them as one rank.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

import torchport

Patch = Callable[[Any, list[Any]], Any]


class Faulty(TorchDispatchMode):
    """Below a recording: an operator does something else. ``patch`` gets the operator and its arguments."""

    def __init__(self, name: str, patch: Patch) -> None:
        super().__init__()
        self.name, self.patch = name, patch

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.endswith(f"::{self.name}"):
            return self.patch(func, list(args))
        return func(*args, **(kwargs or {}))


def values(rank: int, size: int = 64, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What a rank gives: other numbers on each."""
    return torch.randn(size, generator=torch.Generator().manual_seed(100 + rank)).to(dtype)


def before(change: Callable[[torch.Tensor], Any], place: int = 0) -> Patch:
    """A patch that changes the first tensor that a collective reads."""

    def patch(func: Any, args: list[Any]) -> Any:
        tensor = args[place][0] if isinstance(args[place], list) else args[place]
        change(tensor)
        return func(*args)

    return patch


def after(change: Callable[[Any], Any]) -> Patch:
    """A patch that changes what a collective wrote: its first argument."""

    def patch(func: Any, args: list[Any]) -> Any:
        result = func(*args)
        work = dist.Work.unbox(result[-1] if isinstance(result, tuple) else result)
        work.wait()
        change(args[0])
        return result

    return patch


def reduce(rank: int, dtype: torch.dtype = torch.float32) -> None:
    tensor = values(rank, dtype=dtype)
    dist.all_reduce(tensor)


def average(rank: int) -> None:
    dist.all_reduce(values(rank), op=dist.ReduceOp.AVG)


def gather(rank: int) -> None:
    dist.all_gather_into_tensor(torch.empty(64 * dist.get_world_size()), values(rank))


def scatter(rank: int) -> None:
    dist.reduce_scatter_tensor(torch.empty(64 // dist.get_world_size()), values(rank))


def swapped(tensor: torch.Tensor) -> None:
    tensor.copy_(torch.cat(tensor.chunk(dist.get_world_size())[::-1]))


def zeroed(tensor: torch.Tensor) -> None:
    tensor.zero_()


def doubled(tensor: torch.Tensor) -> None:
    tensor.mul_(2)


def on(rank: int, own: int, name: str, patch: Patch) -> Any:
    """The patch on one rank, nothing on the others."""
    return Faulty(name, patch) if rank == own else nullcontext()


@contextmanager
def recorded(folder: Path, **about: Any) -> Iterator[None]:
    with torchport.record(folder, "full", calls=8, overhead=float("inf"), ttir=False, **about):
        yield


def collectives(rank: int, folder: Path) -> None:
    """Single collectives, right and wrong."""
    jobs: dict[str, tuple[Any, Callable[[], None]]] = {
        "right": (nullcontext(), lambda: [one(rank) for one in (reduce, average, gather, scatter)]),  # type: ignore[dict-item]
        "lost": (on(rank, 1, "allreduce_", before(zeroed)), lambda: reduce(rank)),
        "doubled": (on(rank, 1, "allreduce_", before(doubled)), lambda: reduce(rank)),
        "shard": (on(rank, 0, "_allgather_base_", after(swapped)), lambda: gather(rank)),
        "part": (Faulty("_reduce_scatter_base_", before(swapped, 1)), lambda: scatter(rank)),
        "bfloat16": (nullcontext(), lambda: reduce(rank, torch.bfloat16)),
    }
    for name, (fault, run) in jobs.items():
        with fault, recorded(folder / name):
            run()


def main(rank: int, world_size: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    collectives(rank, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

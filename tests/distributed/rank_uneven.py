"""Ranks that do not do the same, right and wrong: other numbers of steps, stages with the same names, NaN again."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from rank_cases import batch, net, own, recorded, values
from torch.nn.parallel import DistributedDataParallel


def joined(folder: Path) -> None:
    """Rank 1 has a batch more; ``join`` gives the others its parameters at the end."""
    plain = net()
    model = DistributedDataParallel(plain)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    with recorded(folder, model=plain), model.join():
        for step in range(2 + (dist.get_rank() == 1)):
            optimizer.zero_grad()
            model(batch(step, dist.get_rank(), dist.get_world_size())).square().mean().backward()
            optimizer.step()


def skipped(folder: Path) -> None:
    """Rank 1 leaves out one step of the optimizer."""
    plain = net()
    model = DistributedDataParallel(plain)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    with recorded(folder, model=plain):
        for step in range(3):
            optimizer.zero_grad()
            model(batch(step, dist.get_rank(), dist.get_world_size())).square().mean().backward()
            if dist.get_rank() != 1 or step != 1:
                optimizer.step()


def accumulated(folder: Path) -> None:
    """The recording ends in the middle of the next sum of gradients, after a loss was averaged."""
    plain = net()
    model = DistributedDataParallel(plain)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    with recorded(folder, model=plain):
        for step in range(3):
            with nullcontext() if step == 1 else model.no_sync():
                loss = model(batch(step, dist.get_rank(), dist.get_world_size())).square().mean()
                loss.backward()
            if step == 1:
                optimizer.step()
                optimizer.zero_grad()
            dist.all_reduce(loss.detach())


def staged(folder: Path) -> None:
    """Each rank trains a part of its own; the names are the same, and normalisations begin with the same numbers."""
    torch.manual_seed(dist.get_rank())
    stage = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 8))
    optimizer = torch.optim.SGD(stage.parameters(), lr=0.1)
    with recorded(folder, model=stage):
        for step in range(3):
            optimizer.zero_grad()
            loss = (stage(values(10 * step + dist.get_rank(), 4, 8)) - 1).square().mean()
            loss.backward()
            dist.all_reduce(loss.detach())
            optimizer.step()


def nan_again(folder: Path) -> None:
    """Rank 1 gives NaN twice, which are the same bits."""
    with recorded(folder):
        for step in range(2):
            given = own() + step
            dist.all_reduce(given.fill_(float("nan")) if dist.get_rank() == 1 else given)


def beside(folder: Path) -> None:
    """While a row is reduced, other rows are written."""
    with recorded(folder):
        rows = values(dist.get_rank(), 2, 64)
        work = dist.all_reduce(rows[0], async_op=True)
        rows[1].add_(1)
        work.wait()


def main(folder: str) -> None:
    joined(Path(folder) / "joined")
    skipped(Path(folder) / "skipped")
    accumulated(Path(folder) / "accumulated")
    staged(Path(folder) / "staged")
    nan_again(Path(folder) / "nan-again")
    beside(Path(folder) / "beside")

"""The example of docs/distributed.md: a small model is trained on several ranks and recorded, right or with a fault.

    torchrun --nproc-per-node 2 tools/ranks_example.py runs/two
    torchrun --nproc-per-node 2 tools/ranks_example.py runs/lost lost
    torchport diff runs/lost --ranks

Faults: ``lost`` (the gradients of rank 1 do not arrive), ``stale`` (rank 1 keeps the gradients of the first step),
``moved`` (a parameter of rank 1 changes between steps), ``data`` (all ranks read the same rows).
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import torchport

STEPS = 3
FAULTS = ("none", "lost", "stale", "moved", "data")


class Net(torch.nn.Module):
    """Two products, and an activation between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 64), torch.nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The results of rows ``x``."""
        return self.second(torch.nn.functional.gelu(self.first(x)))  # type: ignore[no-any-return]


def main() -> None:
    """Train for three steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the folder to record into")
    parser.add_argument("fault", nargs="?", default="none", choices=FAULTS)
    asked = parser.parse_args()
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    plain = Net()
    model = DistributedDataParallel(plain)
    if asked.fault == "lost":
        model.register_comm_hook(None, lose_rank_1)
    compiled: Any = torch.compile(model, backend="torchport")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = torch.randn(STEPS, 32, 16)
    kept: list[torch.Tensor] = []
    with torchport.record(asked.folder, "full", calls=STEPS, overhead=float("inf"), model=model):
        for step in range(STEPS):
            part = 0 if asked.fault == "data" else rank
            optimizer.zero_grad()
            compiled(rows[step].chunk(ranks)[part]).square().mean().backward()
            weight = plain.first.weight
            kept.append(weight.grad.clone())
            if asked.fault == "stale" and rank == 1:
                weight.grad.copy_(kept[0])
            optimizer.step()
            if asked.fault == "moved" and rank == 1 and step == 0:
                weight.data[3] += 1e-3
    dist.destroy_process_group()


def lose_rank_1(state: Any, bucket: Any) -> Any:
    """A hook of DistributedDataParallel with a bug: what rank 1 computed is gone."""
    gradients = bucket.buffer()
    if dist.get_rank() == 1:
        gradients.zero_()
    gradients /= dist.get_world_size()
    return dist.all_reduce(gradients, async_op=True).get_future().then(lambda future: future.value()[0])


lose_rank_1.__annotations__.clear()  # they are texts here; DistributedDataParallel asks for types

if __name__ == "__main__":
    main()

"""Functions of ranks: devices that have memory of their own."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from compiling import STRICT, Blocks, batches, close, train
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

OPTIONS = {**STRICT, "target": "opencl"}


def written_by_collectives() -> None:
    """A large tensor of which a collective changes a number that no sample has, between two calls, and inside one."""
    rank, size = dist.get_rank(), dist.get_world_size()
    call = torch.compile(lambda x: x * 2, backend="torchport", options=OPTIONS)
    x = torch.zeros(65536)
    x[1001] = rank + 1
    assert call(x)[1001] == 2 * (rank + 1)
    dist.broadcast(x, size - 1)
    assert call(x)[1001] == 2 * size
    work = dist.all_reduce(x, async_op=True)
    work.wait()
    assert call(x)[1001] == 2 * size * size

    def changes(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        dist.all_reduce(x)
        return y + x

    inside = torch.compile(changes, backend="torchport", fullgraph=True, options=OPTIONS)
    for _ in range(2):
        x.fill_(0)
        x[1001] = rank + 1
        total = size * (size + 1) // 2
        assert inside(x)[1001] == rank + 2 + total
        assert x[1001] == total and call(x)[1001] == 2 * total


def gathered_by_fsdp() -> None:
    """Parameters that FSDP writes without a trace: the device has those of this step."""
    model = Words()
    model.compile(backend="torchport", options=OPTIONS)
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    # Each rank has a part of the table; of it one row, which is in no sample, changes.
    table = model.table.weight.to_local()
    tokens = torch.arange(dist.get_world_size()) * len(table) + 1
    for step in range(6):  # sooner or later a gathered table is where that of the last step was
        with torch.no_grad():
            table[1] = step + 1.0
            expected = model.table.weight.full_tensor()[tokens] @ model.head.weight.full_tensor().T
            expected = 3 * (expected + model.head.bias.full_tensor())
            assert (model(tokens) - expected).abs().max() < 1e-4, step
            model.reshard()


def several_targets(targets: list[str]) -> list[float]:
    """Data parallel training in which each rank has a chip of its own; the losses."""
    torch.manual_seed(0)
    model = Blocks(2)
    eager = copy.deepcopy(model).double()
    target = targets[dist.get_rank() % len(targets)]
    inputs = batches(dist.get_rank(), dtype=torch.float32)
    call = torch.compile(DistributedDataParallel(model), backend="torchport", options={**STRICT, "target": target})
    got = train(call, list(model.parameters()), inputs)
    expected = train(DistributedDataParallel(eager), list(eager.parameters()), [x.double() for x in inputs])
    close([one.double() for one in got], expected, 1e-5)
    for parameter in model.parameters():  # ranks have the same bits, whatever computed their gradients
        theirs = parameter.detach().clone()
        dist.broadcast(theirs, 0)
        assert theirs.equal(parameter.detach())
    return [float(loss) for loss in got[:3]]


def one_device_each() -> str:
    """Tensors on the torch device: graphs run, a collective needs them on the host."""
    import torchport

    device = torchport.device("opencl")
    x = torch.full((4,), float(dist.get_rank() + 1), device=device)
    with pytest.raises(RuntimeError, match="No backend type associated with device type torchport"):
        dist.all_reduce(x)

    def staged(x: torch.Tensor) -> torch.Tensor:
        total = functional.all_reduce((x * 2).cpu(), "sum", dist.group.WORLD)
        return total.to(x.device) + x

    call = torch.compile(staged, backend="torchport", fullgraph=True)
    size = dist.get_world_size()
    assert call(x).cpu().equal(torch.full((4,), float(size * (size + 1) + dist.get_rank() + 1)))
    return str(device)


class Words(nn.Module):
    """Of a large table each step changes a few rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(4096, 16), nn.Linear(16, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(tokens)) * 3

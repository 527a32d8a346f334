"""Functions of ranks: collectives inside graphs, and checkpoints of parts."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
import torch.distributed.checkpoint as checkpoint
from compiling import STRICT, Blocks, batches, close, compiled, compiling, train
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor


def _mine(*shape: int) -> torch.Tensor:
    """Random numbers, others on each rank."""
    made = torch.Generator().manual_seed(dist.get_rank())
    return torch.randn(*shape, generator=made, dtype=torch.float64)


def all_kinds(target: str) -> None:
    group, size = dist.group.WORLD, dist.get_world_size()

    def call(x: torch.Tensor) -> list[torch.Tensor]:
        y = x.sin() * 2
        return [
            functional.all_reduce(y, "sum", group).exp(),
            functional.all_reduce(y + 1, "max", group) * 3,
            functional.all_gather_tensor(y.cos(), 0, group).square(),
            functional.reduce_scatter_tensor(y * 4, "sum", 0, group) - 1,
            functional.all_to_all_single(y - 2, None, None, group).relu(),
            functional.broadcast(y + 5, 0, group).sqrt().sum(),
        ]

    x = _mine(4 * size, 8)
    with compiling(1):
        got = torch.compile(call, fullgraph=True, backend="torchport", options={**STRICT, "target": target})(x)
    close([one.detach() for one in got], [one + 0 for one in call(x)])


def in_place(target: str) -> None:
    """torch.distributed's own functions, which Dynamo makes functional ones of, and a work that is waited for."""

    def call(x: torch.Tensor) -> Any:
        y = x * 2
        dist.all_reduce(y)
        out = torch.empty(dist.get_world_size() * y.numel(), dtype=y.dtype)
        dist.all_gather_into_tensor(out, (y + 1).flatten())
        return y.sin(), out.cos()

    def waited(x: torch.Tensor) -> torch.Tensor:
        y = x * 3
        work = dist.all_reduce(y, async_op=True)
        z = x.exp()  # meanwhile
        work.wait()
        return y + z

    x = _mine(4, 8)
    options = {"target": target} if target != "cpu" else {}
    with compiling(2):
        close(list(compiled(call, **options)(x)), list(call(x)))
        close([compiled(waited, **options)(x)], [waited(x)])


class Sharded(nn.Module):
    """A parametrization as SimpleFSDP has: a parameter in parts is gathered where it is used, inside the graph."""

    def forward(self, parameter: DTensor) -> torch.Tensor:
        return parameter.redistribute(placements=[Replicate()]).to_local(grad_placements=[_Partial])


_Partial: Any = None


def simple_fsdp() -> None:
    """As SimpleFSDP: parameters are DTensors in parts, and one graph has all gathers and their gradients."""
    global _Partial
    from torch.distributed.tensor import Partial
    from torch.nn.utils.parametrize import register_parametrization

    _Partial = Partial("avg")
    plain = Blocks(2).double()
    model, mesh = copy.deepcopy(plain), init_device_mesh("cpu", (dist.get_world_size(),))
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(0)])))
            register_parametrization(module, name, Sharded(), unsafe=True)
    inputs = batches(dist.get_rank())
    with compiling(2):
        call = torch.compile(model, fullgraph=True, backend="torchport", options=STRICT)
        got = train(call, list(model.parameters()), inputs)
    everyone = [torch.cat(one) for one in zip(*(batches(r) for r in range(dist.get_world_size())), strict=True)]
    names = [name.replace("parametrizations.", "").removesuffix(".original") for name, _ in model.named_parameters()]
    close(got[3:], train(plain, [plain.get_parameter(name) for name in names], everyone)[3:])


def saved_and_loaded(folder: str, first: str, second: str) -> None:
    """A checkpoint of parts that is written while training for one target, and read to go on for another."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    inputs = batches(dist.get_rank(), 4, dtype=torch.float32)

    def fresh(seed: int) -> Blocks:
        torch.manual_seed(seed)
        model = Blocks(1)
        fully_shard(model, mesh=mesh)
        return model

    model = fresh(0)
    train(compiled(model, target=first), list(model.parameters()), inputs[:2])
    checkpoint.save({"model": model.state_dict()}, checkpoint_id=folder)
    torch._dynamo.reset()
    other = fresh(1)
    state = {"model": other.state_dict()}
    checkpoint.load(state, checkpoint_id=folder)
    other.load_state_dict(state["model"])
    got = train(compiled(other, target=second), list(other.parameters()), inputs[2:])
    torch._dynamo.reset()
    close(got, train(model, list(model.parameters()), inputs[2:]), 1e-5)

"""Functions of ranks: one model in parts, by tensors, by layers and by the sequence."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from compiling import STRICT, Block, Blocks, close, compiled, compiling, train, whole
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn.attention.flex_attention import flex_attention


def _mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (dist.get_world_size(),))


def _same(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Random numbers, the same on all ranks."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=dtype)


def tensor_parallel(sequence: bool) -> None:
    plain, mesh = Blocks(2).double(), _mesh()
    model = copy.deepcopy(plain)
    for layer in model.layers:
        if sequence:  # between products each rank has a part of the sequence
            plan = {
                "norm": SequenceParallel(),
                "up": ColwiseParallel(input_layouts=Shard(1)),
                "down": RowwiseParallel(output_layouts=Shard(1)),
            }
        else:
            plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        parallelize_module(layer, mesh, plan)
    if sequence:
        parallelize_module(model, mesh, {"head": SequenceParallel(use_local_output=True)})
    inputs = [_same(2, 8, 16) * (step + 1) for step in range(3)]
    expected = train(plain, list(plain.parameters()), inputs)
    if sequence:
        inputs = [x.chunk(dist.get_world_size(), 1)[dist.get_rank()] for x in inputs]

    def call(x: torch.Tensor) -> torch.Tensor:
        y = step(x)
        return gathered(y) if sequence else y

    step = compiled(model)
    with compiling(2):
        got = train(call, list(model.parameters()), inputs)
    close(got, expected)


def gathered(part: torch.Tensor) -> torch.Tensor:
    """A sequence whose parts ranks have, differentiable."""
    return DTensor.from_local(part, _mesh(), [Shard(1)]).full_tensor()


def loss_in_parts() -> None:
    mesh, size = _mesh(), 8 * dist.get_world_size()
    plain = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, size)).double()
    model = copy.deepcopy(plain)
    parallelize_module(model, mesh, {"2": ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)})
    x, labels = _same(6, 16), torch.arange(6)

    def step(model: nn.Module) -> list[torch.Tensor]:
        model.zero_grad()
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, distribute_tensor(labels, mesh) if shared(logits) else labels)
        loss.backward()
        return [whole(loss.detach()), *(whole(p.grad) for p in model.parameters())]

    def shared(tensor: torch.Tensor) -> bool:
        return isinstance(tensor, DTensor)

    expected = step(plain)
    with loss_parallel():
        eager = step(model)
        with compiling(2):
            got = step(compiled(model))
    close(eager, expected)
    close(got, expected)


def pipeline(schedule: str) -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    layers = nn.ModuleList(Block(16) for _ in range(size)).double()
    whole_model = copy.deepcopy(nn.Sequential(*layers))
    x, target = _same(8, 16), _same(8, 16) * 0.5
    parts = 2 * size

    def loss(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (y - target).square().mean()

    stage = PipelineStage(compiled(layers[rank]), rank, size, torch.device("cpu"))
    chosen = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}[schedule](stage, parts, loss_fn=loss)
    losses: list[torch.Tensor] = []
    with compiling(2):
        if rank == 0:
            chosen.step(x)
        elif rank == size - 1:
            chosen.step(target=target, losses=losses)
        else:
            chosen.step()
    expected = [loss(y, t) for y, t in zip(whole_model(x).chunk(parts), target.chunk(parts), strict=True)]
    torch.stack(expected).mean().backward()
    close([p.grad for p in layers[rank].parameters()], [p.grad for p in whole_model[rank].parameters()])
    if rank == size - 1:
        close([one.detach() for one in losses], [one.detach() for one in expected])


def context_parallel() -> None:
    """torch's context_parallel needs a rule for the CPU's attention, which torch has not: eager cannot do it either."""
    from torch.distributed.tensor.experimental import context_parallel as in_parts

    parts = [_same(2, 4, 16, 8) for _ in range(3)]
    refused = pytest.raises(NotImplementedError, match="does not have a sharding strategy registered")
    with in_parts(_mesh(), buffers=parts, buffer_seq_dims=[2, 2, 2]), refused:
        nn.functional.scaled_dot_product_attention(*parts, is_causal=True)


def context_by_gathering() -> None:
    """Each rank has the queries of a part of the sequence, and gathers keys and values: FlexAttention, one graph."""
    rank, size = dist.get_rank(), dist.get_world_size()
    wide = [_same(1, 2, 16 * size, 16).roll(n).requires_grad_() for n in range(3)]
    first = 16 * rank

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        k, v = (functional.all_gather_tensor_autograd(one, 2, dist.group.WORLD) for one in (k, v))
        return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: torch.where(i + first >= j, s, -float("inf")))

    expected = nn.functional.scaled_dot_product_attention(*wide, is_causal=True)
    expected.square().sum().backward()
    parts = [one.detach().float().chunk(size, 2)[rank].clone().requires_grad_() for one in wide]
    with compiling(2):
        out = torch.compile(attention, fullgraph=True, backend="torchport", options=STRICT)(*parts)
        out.square().sum().backward()
    close([out.detach().double()], [expected.detach().chunk(size, 2)[rank]], 1e-5)
    close([one.grad.double() for one in parts], [one.grad.chunk(size, 2)[rank] for one in wide], 1e-4)

"""Functions of ranks: data parallel training, with whole and with sharded parameters."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from compiling import Blocks, batches, close, compiled, compiling, train
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint


class HigherOrder(nn.Module):
    """FlexAttention; with ``more`` also a branch that depends on data, and a block that backward computes again."""

    def __init__(self, more: bool, width: int = 256) -> None:
        super().__init__()
        self.more = more
        self.plain = False  # eager FlexAttention has no gradients on the CPU
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.block, self.head = Blocks(1, width), nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (one.unflatten(-1, (-1, 16)).transpose(1, 2) for one in self.qkv(x).chunk(3, -1))
        if self.plain:
            attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            attended = flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: torch.where(i >= j, score, -1e9))
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        if not self.more:
            return self.head(x + self.block(x))
        x = x + checkpoint(self.block, x, use_reentrant=False)
        return self.head(torch.cond(x.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (x,)))


def _one_process(model: nn.Module, width: int = 16) -> list[torch.Tensor]:
    """Training on the batches of all ranks in one process: the mean of the losses, and the parameters."""
    inputs = zip(*(batches(rank, width=width) for rank in range(dist.get_world_size())), strict=True)
    return train(model, list(model.parameters()), [torch.cat(one) for one in inputs])


def _mean(losses: list[torch.Tensor]) -> list[torch.Tensor]:
    """The mean of each loss over ranks."""
    for loss in losses:
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    return losses


def ddp(bucket_megabytes: float, width: int, graphs: int) -> None:
    model = Blocks(3, width).double()
    eager, alone = copy.deepcopy(model), copy.deepcopy(model)
    inputs = batches(dist.get_rank(), width=width)
    wrapped = DistributedDataParallel(model, bucket_cap_mb=bucket_megabytes)
    with compiling(graphs):
        got = train(compiled(wrapped), list(model.parameters()), inputs)
    close(got, train(DistributedDataParallel(eager), list(eager.parameters()), inputs))
    close([*_mean(got[:3]), *got[3:]], _one_process(alone, width))


def ddp_higher_order(graphs: int, more: bool) -> None:
    model = HigherOrder(more)
    eager = copy.deepcopy(model).double()
    eager.plain = True
    made = torch.Generator().manual_seed(dist.get_rank())
    inputs = [torch.randn(2, 8, 256, generator=made) for _ in range(3)]
    wrapped = DistributedDataParallel(model, bucket_cap_mb=1)
    with compiling(graphs), torch._dynamo.config.patch(optimize_ddp=graphs > 2):
        got = train(compiled(wrapped), list(model.parameters()), inputs)
    expected = train(DistributedDataParallel(eager), list(eager.parameters()), [x.double() for x in inputs])
    close([one.double() for one in got], expected, 2e-5)


def _sharded(model: Blocks, **settings: Any) -> Blocks:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, **settings)
    fully_shard(model, mesh=mesh, **settings)
    return model


def fsdp(per_block: bool) -> None:
    model = Blocks(2).double()
    eager, alone = copy.deepcopy(model), copy.deepcopy(model)
    inputs = batches(dist.get_rank())
    if per_block:
        for layer in model.layers:
            layer.compile(backend="torchport", options={"fallback": "error"})
    model = _sharded(model)
    with compiling(2):
        got = train(model if per_block else compiled(model), list(model.parameters()), inputs)
    eager = _sharded(eager)
    close(got, train(eager, list(eager.parameters()), inputs))
    close([*_mean(got[:3]), *got[3:]], _one_process(alone))


def fsdp_settings(offload: bool, mixed: bool) -> None:
    settings: dict[str, Any] = {}
    if offload:
        settings["offload_policy"] = CPUOffloadPolicy(pin_memory=False)
    if mixed:
        settings["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = Blocks(2)
    eager, wide = copy.deepcopy(model), copy.deepcopy(model).double()
    inputs = batches(dist.get_rank(), dtype=torch.float32)
    for layer in model.layers:
        layer.compile(backend="torchport", options={"fallback": "error"})
    model, eager = _sharded(model, **settings), _sharded(eager, **settings)
    with compiling(2):
        got = train(model, list(model.parameters()), inputs)
    theirs = train(eager, list(eager.parameters()), inputs)
    wide = _sharded(wide)
    exact = train(wide, list(wide.parameters()), [x.double() for x in inputs])
    for mine, other, right in zip(got, theirs, exact, strict=True):
        allowed = 2 * (other - right).abs().max() + 1e-6 * right.abs().max()
        assert (mine - right).abs().max() <= allowed

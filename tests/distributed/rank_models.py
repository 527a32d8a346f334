"""Models that ranks compile while they are recorded, for tests: right, or with one fault put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from rank_cases import batch, before, net, on, recorded, values
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel


def compiled(model: Any, target: str = "cpu") -> Any:
    return torch.compile(model, backend="torchport", options={"target": target})


def summed(x: torch.Tensor) -> torch.Tensor:
    total = functional.all_reduce(x * 2, "sum", dist.group.WORLD)
    return torch.tanh(total)


def dropped(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.dropout(x, 0.5) * 2


def normed(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(x, (64,)).exp()


def functions(folder: Path, opencl: bool) -> None:
    """Compiled functions."""
    rank = dist.get_rank()
    own = values(rank, 4, 64)
    call = compiled(summed)
    with recorded(folder / "functional"):
        call(own)
    with on(1, "all_reduce_", before(torch.Tensor.zero_)), recorded(folder / "functional-lost"):
        call(own)
    call = compiled(dropped)
    for name, seed in (("seeds", rank), ("one-seed", 0)):
        torch.manual_seed(seed)
        with recorded(folder / name):
            call(values(7, 4, 64))
    call = compiled(normed, "opencl" if opencl and rank == 1 else "cpu")
    with recorded(folder / "targets"):
        call(values(7, 4, 64))


def models(folder: Path) -> None:
    """Models that are parallel in every way: two steps."""
    rank, size = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cpu", (size,))

    def fsdp() -> torch.nn.Module:
        model = net()
        fully_shard(model.first, mesh=mesh)
        return fully_shard(model, mesh=mesh)  # type: ignore[no-any-return]

    def tensor_parallel() -> torch.nn.Module:
        return parallelize_module(net(), mesh, {"first": ColwiseParallel(), "second": RowwiseParallel()})

    def swapped() -> torch.nn.Module:
        """Each rank has the other's part of a weight."""
        model = tensor_parallel()
        weight: Any = model.get_parameter("first.weight")
        part = weight.to_local()
        part.data.copy_(net().first.weight.detach().chunk(size)[size - 1 - rank])
        return model

    def two_meshes() -> torch.nn.Module:
        """Two ranks share rows, two weights: each half of a weight is divided again."""
        both = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("rows", "weights"))
        plan = {"first": ColwiseParallel(), "second": RowwiseParallel()}
        model: Any = parallelize_module(net(), both["weights"], plan)
        return fully_shard(model, mesh=both["rows"])  # type: ignore[no-any-return]

    whole, parts, pairs = (0, 1), (rank, size), (rank // (size // 2), 2)  # which part of the rows, of how many
    kinds: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, int]]] = {
        "ddp": (lambda: DistributedDataParallel(net()), parts), "fsdp": (fsdp, parts), "tp": (tensor_parallel, whole),
        "swapped": (swapped, whole),
    }  # fmt: skip
    if size == 4:
        kinds["two-meshes"] = two_meshes, pairs
    for name, (make, part) in kinds.items():
        model = make()
        call = model if name == "swapped" else compiled(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with recorded(folder / name, model=model):
            for step in range(2):
                optimizer.zero_grad()
                call(batch(step, *part)).square().mean().backward()
                optimizer.step()
    masked(folder / "masked")


def masked(folder: Path) -> None:
    """The loss counts none of rank 1's rows, as where all its labels are ignored: its gradients are zeros by right."""
    model = DistributedDataParallel(net())
    call, counted = compiled(model), float(dist.get_rank() != 1)
    with recorded(folder, model=model):
        (call(batch(0, dist.get_rank(), dist.get_world_size())) * counted).square().mean().backward()


def main(folder: str, opencl: bool) -> None:
    functions(Path(folder), opencl)
    models(Path(folder))

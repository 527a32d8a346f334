"""What ranks do while they are recorded, for tests: right, or with one fault put into it. Each case has a folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
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


def before(change: Callable[[torch.Tensor], Any], place: int = 0) -> Patch:
    """A patch that changes the first tensor that a collective reads."""

    def patch(func: Any, args: list[Any]) -> Any:
        change(args[place][0] if isinstance(args[place], list) else args[place])
        return func(*args)

    return patch


def after(change: Callable[[torch.Tensor], Any]) -> Patch:
    """A patch that changes what a collective wrote: its first argument."""

    def patch(func: Any, args: list[Any]) -> Any:
        result = func(*args)
        dist.Work.unbox(result[-1] if isinstance(result, tuple) else result).wait()
        change(args[0][0] if isinstance(args[0], list) else args[0])
        return result

    return patch


def on(rank: int, name: str, patch: Patch) -> Any:
    """The patch on one rank, nothing on the others."""
    return Faulty(name, patch) if dist.get_rank() == rank else nullcontext()


@contextmanager
def recorded(folder: Path, **about: Any) -> Iterator[None]:
    with torchport.record(folder, "full", calls=8, overhead=float("inf"), **about):
        yield


def values(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape or (64,), generator=torch.Generator().manual_seed(100 + seed)).to(dtype)


def own() -> torch.Tensor:
    """What a rank gives: other numbers on each."""
    return values(dist.get_rank())


def swapped(tensor: torch.Tensor) -> None:
    tensor.copy_(torch.cat(tensor.chunk(dist.get_world_size())[::-1]))


def reduce() -> None:
    dist.all_reduce(own())


def gather() -> None:
    dist.all_gather_into_tensor(torch.empty(64 * dist.get_world_size()), own())


def scatter() -> None:
    dist.reduce_scatter_tensor(torch.empty(64 // dist.get_world_size()), own())


def exchange() -> None:
    dist.all_to_all_single(torch.empty(64), own())


def broadcast() -> None:
    dist.broadcast(own(), 1)


def everything() -> None:
    """Every collective that is recorded, as eager code calls it."""
    size, rank = dist.get_world_size(), dist.get_rank()
    for run in (reduce, gather, scatter, exchange, broadcast):
        run()
    dist.all_reduce(own(), op=dist.ReduceOp.AVG)
    dist.all_reduce(own(), op=dist.ReduceOp.MAX)
    dist.all_reduce(torch.arange(9) * (rank + 1))
    dist.all_gather([torch.empty(64) for _ in range(size)], own())
    dist.reduce(own(), 1)
    dist.gather(own(), [torch.empty(64) for _ in range(size)] if rank == 0 else None, 0)
    dist.scatter(torch.empty(64), [values(50 + one) for one in range(size)] if rank == 0 else None, 0)
    work = dist.all_reduce(own(), async_op=True)
    assert work is not None
    work.wait()


def reordered(func: Any, args: list[Any]) -> Any:
    """An all-reduce that adds from the last rank to the first."""
    (tensor,) = args[0]
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.clone())
    total = parts[-1]
    for part in parts[-2::-1]:
        total = total + part
    result = func(*args)
    dist.Work.unbox(result[-1]).wait()
    tensor.copy_(total)
    return result


def collectives(folder: Path) -> None:
    """Single collectives, right and wrong."""
    jobs: dict[str, tuple[Any, Callable[[], None]]] = {
        "right": (nullcontext(), everything),
        "lost": (on(1, "allreduce_", before(torch.Tensor.zero_)), reduce),
        "doubled": (on(1, "allreduce_", before(lambda one: one.mul_(2))), reduce),
        "factor": (Faulty("allreduce_", after(lambda one: one.div_(dist.get_world_size()))), reduce),
        "element": (on(0, "allreduce_", after(lambda one: one[:3].add_(1))), reduce),
        "shard": (on(0, "_allgather_base_", after(swapped)), gather),
        "part": (Faulty("_reduce_scatter_base_", before(swapped, 1)), scatter),
        "exchange": (on(1, "alltoall_base_", after(swapped)), exchange),
        "broadcast": (on(0, "broadcast_", after(lambda one: one.copy_(values(0)))), broadcast),
        "bfloat16": (nullcontext(), lambda: dist.all_reduce(values(dist.get_rank(), 640, dtype=torch.bfloat16))),
        "order": (Faulty("allreduce_", reordered), reduce),
    }
    for name, (fault, run) in jobs.items():
        with fault, recorded(folder / name):
            run()


class Net(torch.nn.Module):
    """Two products: Dynamo compiles it inside of DistributedDataParallel, as it does no module of torch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def batch(step: int, rank: int | None = None, size: int = 0) -> torch.Tensor:
    """Eight rows; of a rank its part of them."""
    rows = values(1000 + step, 8, 8)
    return rows if rank is None else rows.chunk(size)[rank]


def train(
    folder: Path,
    *,
    steps: int = 2,
    given: Callable[[int], torch.Tensor] | None = None,
    hook: Any = None,
    between: Callable[[int, torch.nn.Module], None] = lambda step, model: None,
    before_step: Callable[[int, torch.nn.Module], None] = lambda step, model: None,
) -> None:
    """A data-parallel model's training. ``between``: after each step, ``before_step``: after backward."""
    rank, size = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(net())
    if hook is not None:
        model.register_comm_hook(None, hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorded(folder, model=model):
        for step in range(steps):
            optimizer.zero_grad()
            model(given(step) if given else batch(step, rank, size)).square().mean().backward()
            before_step(step, model)
            optimizer.step()
            between(step, model)


def single(folder: Path) -> None:
    """The same training in one process."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorded(folder, model=model):
        for step in range(2):
            optimizer.zero_grad()
            model(batch(step)).square().mean().backward()
            optimizer.step()


class Late:
    """A patch that reads the gradients of the first call again in the second."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []

    def __call__(self, func: Any, args: list[Any]) -> Any:
        (tensor,) = args[0]
        self.kept.append(tensor.clone())
        if len(self.kept) > 1:
            tensor.copy_(self.kept[0])
        return func(*args)


def trainings(folder: Path) -> None:
    """Training steps, right and wrong."""
    rank = dist.get_rank()
    kept: list[torch.Tensor] = []

    def stale(step: int, model: torch.nn.Module) -> None:
        weight = next(model.parameters())
        assert weight.grad is not None
        kept.append(weight.grad.clone())
        if rank == 1 and step == 1:
            weight.grad.copy_(kept[0])

    def moved(step: int, model: torch.nn.Module) -> None:
        if rank == 1 and step == 0:
            next(model.parameters()).data[0, 0] += 1e-3

    def nan(step: int) -> torch.Tensor:
        rows = batch(step, rank, dist.get_world_size())
        return rows * float("nan") if rank == 1 and step == 1 else rows

    train(folder / "training")
    train(folder / "stale-gradient", before_step=stale)
    train(folder / "diverged", between=moved)
    train(folder / "nan", given=nan)
    train(folder / "same-data", given=lambda step: batch(step, 0, dist.get_world_size()))
    with on(1, "allreduce_", Late()):
        train(folder / "stale-part")
    hidden_zeros(folder / "zeros")
    averaged(folder / "by-hand")
    early(folder / "early")
    statistics(folder / "statistics")
    eager(folder / "eager")
    train(folder / "compressed", hook=compressed)


def compressed(state: Any, bucket: Any) -> Any:
    """A hook that sends gradients as bfloat16; torch's own is refused for gloo."""
    tensor = bucket.buffer()
    work = dist.all_reduce(tensor.bfloat16() / dist.get_world_size(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: tensor.copy_(future.value()[0]))


compressed.__annotations__.clear()  # they are texts here, and DistributedDataParallel asks for types


def averaged(folder: Path) -> None:
    """Gradients that are averaged by hand; what rank 1 computed is lost before."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorded(folder, model=model):
        model(batch(0, dist.get_rank(), dist.get_world_size())).square().mean().backward()
        for one in model.parameters():
            assert one.grad is not None
            if dist.get_rank() == 1:
                one.grad.zero_()
            dist.all_reduce(one.grad)
            one.grad /= dist.get_world_size()
        optimizer.step()


def early(folder: Path) -> None:
    """Rank 0 reads a result before it waits for it, and before rank 1 has given anything."""
    with recorded(folder):
        if dist.get_rank() == 1:
            time.sleep(0.5)
        tensor = own()
        work = dist.all_reduce(tensor, async_op=True)
        assert work is not None
        if dist.get_rank() == 0:
            tensor.sum()
        work.wait()


def statistics(folder: Path) -> None:
    with torchport.record(folder, "stats"):
        reduce()


def eager(folder: Path) -> None:
    """A model that is recorded operator by operator, with a collective inside."""
    model = Summed()
    with recorded(folder, eager=model):
        model(values(dist.get_rank(), 4, 8))


class Summed(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x).detach()
        dist.all_reduce(hidden)
        return self.second(torch.tanh(hidden))


def hidden_zeros(folder: Path) -> None:
    """A hook of DistributedDataParallel that loses what rank 1 computed."""
    model = DistributedDataParallel(net())

    def hook(state: Any, bucket: Any) -> Any:
        tensor = bucket.buffer()
        if dist.get_rank() == 1:
            tensor.zero_()
        work = dist.all_reduce(tensor, async_op=True)
        assert work is not None
        return work.get_future().then(lambda future: future.value()[0])

    hook.__annotations__.clear()  # they are texts here, and it asks for types
    model.register_comm_hook(None, hook)
    with recorded(folder):
        model(batch(0, dist.get_rank(), dist.get_world_size())).square().mean().backward()


def ended(folder: Path) -> None:
    """Rank 1 fails after it took part in a reduction; ranks that send to each other."""
    with suppress(ZeroDivisionError), recorded(folder / "failed"):
        reduce()
        if dist.get_rank() == 1:
            raise ZeroDivisionError
    with recorded(folder / "thread"):
        reduce()
        thread = threading.Thread(target=lambda: dist.all_reduce(torch.ones(3)))
        thread.start()
        thread.join()
    with recorded(folder / "sent"):
        reduce()
        if dist.get_rank() == 0:
            dist.send(own(), 1)
        elif dist.get_rank() == 1:
            dist.recv(torch.empty(64), 0)


def main(folder: str) -> None:
    collectives(Path(folder))
    trainings(Path(folder))
    ended(Path(folder))

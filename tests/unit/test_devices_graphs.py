"""Compiled graphs on a device with memory of its own: what is copied, what runs on the host, and what comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from emulated_device import Emulated, installed

import torchport
from torchport.runtime import devices, events
from torchport.runtime.devices import Statistics

OPTIONS = {"target": "emulated", "fallback": "error"}


@pytest.fixture(autouse=True)
def backend() -> Iterator[Emulated]:
    with installed() as found:
        yield found


def compiled(function: Any, **options: Any) -> Any:
    return torch.compile(function, backend="torchport", options={**OPTIONS, **options.pop("options", {})}, **options)


def counted(function: Callable[..., Any], *args: Any) -> tuple[Any, Statistics]:
    """A call's result and what was counted meanwhile."""
    devices.reset_statistics("emulated")
    result = function(*args)
    return result, devices.statistics("emulated")


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(32, 48), torch.nn.Linear(48, 32)
        self.norm = torch.nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.nn.functional.gelu(self.first(self.norm(x))))


PARAMETERS = 4 * (32 * 48 + 48 + 48 * 32 + 32 + 32 + 32)


def test_parameters_stay_and_intermediates_never_move() -> None:
    model, x = Block().requires_grad_(False), torch.randn(8, 32)
    run = compiled(model)
    first, counts = counted(run, x)
    torch.testing.assert_close(first, model(x))
    assert counts.upload_bytes == PARAMETERS + x.nbytes
    assert {name: one.bytes for name, one in counts.downloads.items()} == {"output": first.nbytes}
    again, counts = counted(run, x)
    assert torch.equal(again, first)
    assert (counts.upload_copies, counts.download_bytes) == (0, first.nbytes)
    _, counts = counted(run, torch.randn(8, 32))
    assert counts.upload_bytes == x.nbytes
    assert not counts.host_operations


@pytest.mark.parametrize("how", ["in place", "load_state_dict", "data", "new storage"])
def test_changed_parameters_are_copied_again(how: str) -> None:
    model, x = Block().requires_grad_(False), torch.randn(8, 32)
    run = compiled(model)
    run(x)
    if how == "in place":
        model.first.weight.mul_(2)
    elif how == "data":
        model.first.weight.data.mul_(2)
    elif how == "new storage":
        model.first.weight.data = model.first.weight * 2
    else:
        model.load_state_dict({name: value * 2 for name, value in model.state_dict().items()})
    got, counts = counted(run, x)
    torch.testing.assert_close(got, model(x))
    assert counts.upload_bytes == (PARAMETERS if how == "load_state_dict" else 4 * 32 * 48)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_training(optimizer: Any) -> None:
    model, twin = Block(), Block()
    twin.load_state_dict(model.state_dict())
    run = compiled(model)
    x = torch.randn(8, 32)
    for step in range(3):
        counts = Statistics()
        for one, forward in ((model, run), (twin, twin)):
            rule = optimizer(one.parameters(), lr=0.01)
            devices.reset_statistics("emulated")
            forward(x).square().sum().backward()
            counts = devices.statistics("emulated") if one is model else counts
            rule.step()
        for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad)
            torch.testing.assert_close(mine, other)
            mine.grad = other.grad = None
        # activations for the backward pass stay: what comes back is the result and the gradients
        assert counts.download_bytes == x.nbytes + PARAMETERS
        assert set(counts.downloads) == {"output"}
        assert counts.upload_bytes == PARAMETERS + x.nbytes * (1 if step else 2)  # and a gradient of the result's size


def test_hooks_of_saved_tensors_see_their_values() -> None:
    model, x = Block(), torch.randn(8, 32)
    run = compiled(model)
    seen: list[torch.Tensor] = []

    def pack(saved: torch.Tensor) -> torch.Tensor:
        seen.append(saved.clone())
        return saved.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        loss = run(x).square().sum()
    loss.backward()
    got = [one.grad.clone() for one in model.parameters() if one.grad is not None]
    model.zero_grad()
    model(x).square().sum().backward()
    for mine, eager in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(mine, eager.grad)
    assert seen


def test_a_host_operation_is_counted_and_its_reason_recorded() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.sort(x.sin() * 2).values.exp()

    x = torch.randn(7, 33)
    run = compiled(function)
    with events.capture() as happened:
        got, counts = counted(run, x)
    torch.testing.assert_close(got, function(x))
    (operation,) = counts.host_operations
    assert "sort" in operation
    assert counts.downloads[f"host operation {operation}"].bytes == x.nbytes
    (fallback,) = [one for one in happened if isinstance(one, events.Fallback)]
    assert (fallback.to, fallback.operation) == ("host", operation)
    assert fallback.reason == f"target emulated has no kernel for {operation}"
    with events.capture() as happened:
        counted(run, x)
    assert not [one for one in happened if isinstance(one, (events.Fallback, events.Transfer))]  # once a graph


def test_explain_shows_transfers() -> None:
    report = torchport.explain(lambda x: x.sin() @ x, torch.randn(8, 8), options=OPTIONS)
    moved = {(one.direction, one.reason): (one.copies, one.bytes) for one in report.transfers}
    assert moved == {("upload", "argument"): (1, 256), ("download", "output"): (1, 256)}
    assert "1 copies, 256 bytes from emulated: output" in str(report)


def test_mutated_inputs() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        y[1:3] = x[0]
        return x * y

    mine, eager = ([torch.ones(5), torch.arange(5.0)] for _ in range(2))
    run = compiled(function)
    for _ in range(3):
        torch.testing.assert_close(run(*mine), function(*eager))
        for got, expected in zip(mine, eager, strict=True):
            assert torch.equal(got, expected)
            got.mul_(3), expected.mul_(3)  # the host's turn


def test_buffers_of_modules() -> None:
    mine, eager = torch.nn.BatchNorm1d(6), torch.nn.BatchNorm1d(6)
    run = compiled(mine)
    for _ in range(3):
        x = torch.randn(10, 6)
        torch.testing.assert_close(run(x), eager(x))
        torch.testing.assert_close(mine.running_mean, eager.running_mean)
        torch.testing.assert_close(mine.num_batches_tracked, eager.num_batches_tracked)


@pytest.mark.parametrize(
    "inputs",
    [
        lambda: torch.randn(6, 4).t(),
        lambda: torch.randn(5, 1).expand(5, 7),
        lambda: torch.randn(20)[3:15:2],
        lambda: torch.randn(10).as_strided((4, 4), (2, 1)),
        lambda: torch.randn(3, 0, 2),
        lambda: torch.tensor(2.5),
        lambda: torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    ],
    ids=["transposed", "expanded", "strided", "overlapping", "empty", "0-dim", "channels last"],
)
def test_layouts(inputs: Callable[[], torch.Tensor]) -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x * 2 + 1, x.sum(), x.reshape(-1)

    x = inputs()
    for got, expected in zip(compiled(function)(x), function(x), strict=True):
        torch.testing.assert_close(got, expected)
        assert got.stride() == expected.stride()


def test_outputs_that_are_inputs_and_views() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2
        return x, y, y.t(), x[1:], y.view(-1)[2:5]

    x = torch.randn(4, 4)
    got, expected = compiled(function)(x), function(x)
    for mine, eager in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, eager)
    got[1].add_(1)
    torch.testing.assert_close(got[2], got[1].t())


def test_results_of_one_graph_go_into_the_next() -> None:
    first, second = compiled(lambda x: x.sin()), compiled(lambda x: x.cos() * 2)
    x = torch.randn(100)
    middle = first(x)
    got, counts = counted(second, middle)
    torch.testing.assert_close(got, x.sin().cos() * 2)
    assert counts.upload_copies == 0
    middle.zero_()
    assert (second(middle) == 2).all()


def test_what_the_host_looks_at_inside_a_graph() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x[: int((x * 2).sum().item())] * 3

    x = torch.ones(20)[:4] * 0.5
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        torch.testing.assert_close(compiled(function)(x), function(x))


def test_changing_sizes() -> None:
    model = Block().requires_grad_(False)
    run = compiled(model, dynamic=True)
    for rows in (2, 5, 1, 0, 7):
        x = torch.randn(rows, 32)
        torch.testing.assert_close(run(x), model(x))


def test_random_numbers_are_those_of_the_seed() -> None:
    run = compiled(lambda x: torch.nn.functional.dropout(x, 0.5))
    x = torch.ones(1000)
    torch.manual_seed(3)
    first = run(x)
    torch.manual_seed(3)
    assert torch.equal(run(x), first)
    assert 350 < int((first == 0).sum()) < 650


def test_inference_mode() -> None:
    model = Block()
    run = compiled(model)
    with torch.inference_mode():
        x = torch.randn(8, 32)
        run(x)
        x.mul_(2)
        got, counts = counted(run, x)
        torch.testing.assert_close(got, model(x))
        assert counts.upload_bytes == x.nbytes  # it has no counter; parameters do


@triton.jit  # type: ignore[untyped-decorator]
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, i < n) + tl.load(y + i, i < n), i < n)


def test_kernels_of_the_user_run_on_the_host() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y, out = x.sin(), torch.empty_like(x)
        add_kernel[(4,)](x, y, out, x.numel(), 32)
        return out * 2

    x = torch.randn(100)
    got, counts = counted(compiled(function), x)
    torch.testing.assert_close(got, (x + x.sin()) * 2)
    assert any("add_kernel" in name for name in counts.host_operations)


def test_branches_run_on_the_host() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: t.sin() + 1, lambda t: t.cos() * 2, (x,)) * 2

    run = compiled(function, options={"fallback": "auto"})
    for sign in (1, -1):
        x = sign * torch.rand(10)
        torch.testing.assert_close(run(x), function(x))


def test_an_error_inside_a_graph_leaves_its_inputs_whole() -> None:
    @torch.library.custom_op("torchport_test::refuses", mutates_args=())
    def refuses(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    refuses.register_fake(torch.empty_like)

    def function(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return refuses(x * 2)

    x = torch.zeros(5)
    with pytest.raises(ValueError, match="no"):
        compiled(function)(x)
    assert set(x.tolist()) <= {0.0, 1.0}


def test_threads_share_parameters() -> None:
    model = Block().requires_grad_(False)
    run = compiled(model)
    inputs = [torch.randn(8, 32) for _ in range(4)]
    run(inputs[0])
    devices.reset_statistics("emulated")
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            if not torch.allclose(run(inputs[number]), model(inputs[number]), atol=1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert devices.statistics("emulated").upload_copies == 3  # the inputs that were not there yet


def test_several_targets_in_one_process() -> None:
    model, x = Block().requires_grad_(False), torch.randn(8, 32)
    here = torch.compile(model, backend="torchport", options={"target": "cpu", "fallback": "error"})
    there = compiled(model)
    for _ in range(2):
        torch.testing.assert_close(here(x), there(x))
        model.first.weight.mul_(2)


def test_memory_of_what_is_gone_is_given_back() -> None:
    model = Block().requires_grad_(False)
    run = compiled(model)
    for _ in range(10):
        run(torch.randn(64, 32))
    counts = devices.statistics("emulated")
    assert counts.mirrored <= 2 * PARAMETERS
    devices.release("emulated")
    counts = devices.statistics("emulated")
    assert (counts.mirrored, counts.pooled) == (0, 0)
    x = torch.randn(64, 32)
    torch.testing.assert_close(run(x), model(x))

"""The torch device ``torchport``: tensors in a target's memory, eager operators, compiled graphs."""

from __future__ import annotations

import copy
import gc
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.testing._utils import freeze_rng_state

import torchport
from torchport.errors import TargetError
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    """The first device."""
    torchport.fallbacks(reset=True)
    yield torchport.device(0)


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 8), torch.nn.Softmax(-1)
    )


def in_a_process(code: str, **environment: str) -> str:
    """What ``code`` prints in a Python process of its own, which ends without an error."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    return done.stdout


LAYOUTS: dict[str, Any] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.t(),
    "offset": lambda x: x[1:, 2:],
    "strided": lambda x: x[::2, ::3],
    "expanded": lambda x: x[:1].expand(4, -1),
    "scalar": lambda x: x[1, 1],
    "empty": lambda x: x[:0],
    "flipped": lambda x: x.flip(0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_keep_every_layout(device: torch.device, layout: str) -> None:
    host = torch.arange(42.0).reshape(6, 7)
    view = LAYOUTS[layout]
    assert view(host.to(device)).cpu().equal(view(host))
    assert view(host).to(device).cpu().equal(view(host))
    assert view(host.to(device)).contiguous().cpu().equal(view(host).contiguous())
    if layout != "expanded":
        target, wanted = torch.zeros_like(host).to(device), torch.zeros_like(host)
        view(target).copy_(view(host))
        view(wanted).copy_(view(host))
        assert target.cpu().equal(wanted if layout != "flipped" else torch.zeros_like(host))


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint16, torch.complex128,
    ],
)  # fmt: skip
def test_every_type_goes_there_and_back(device: torch.device, dtype: torch.dtype) -> None:
    host = (torch.arange(12) % 5).to(torch.float32).reshape(3, 4).to(dtype)
    there = host.to(device)
    assert there.device == device and there.dtype == dtype
    assert there.cpu().view(torch.uint8).equal(host.view(torch.uint8))
    assert there.t().contiguous().cpu().view(torch.uint8).equal(host.t().contiguous().view(torch.uint8))


def test_a_number_of_an_operator_needs_no_code_of_its_own(device: torch.device) -> None:
    from torchport.runtime import events

    x = torch.randn(5, 7)
    there = x.to(device)
    assert (there * 0.25).cpu().equal(x * 0.25)
    torch.testing.assert_close(there.clone().add_(there, alpha=0.25).cpu(), x * 1.25)
    with events.capture() as happened:
        for number in (0.1, -3.5, float("inf"), float("nan"), 1e30):
            assert (there * number).cpu().equal(x * number) or number != number
            torch.testing.assert_close(
                there.clone().add_(there, alpha=number).cpu(), x.add(x, alpha=number), equal_nan=True
            )
    assert not [e for e in happened if isinstance(e, events.Kernel)]


def test_counting_needs_no_code_for_each_number(device: torch.device) -> None:
    """A position is a length, a Python integer, and what is added to it."""
    from torchport.runtime import events

    def counted(n: int) -> list[torch.Tensor]:
        x = torch.arange(-3, 4)
        there = x.to(device)
        host = [x + n, x - n, n - x, x * n, x < n, x == n, x.masked_fill(x < 0, n), x.clone().fill_(n), x.clamp(n)]
        mine = [
            there + n, there - n, n - there, there * n, there < n, there == n, there.masked_fill(there < 0, n),
            there.clone().fill_(n), there.clamp(n),
        ]  # fmt: skip
        assert all(a.cpu().equal(b) and a.dtype == b.dtype for a, b in zip(mine, host, strict=True)), n
        return mine

    counted(7)
    with events.capture() as happened:
        for n in (0, 1, -1, *range(30, 50), 2**31, -(2**40) - 1):
            counted(n)
    assert not [e for e in happened if isinstance(e, events.Kernel)] and not torchport.fallbacks()
    assert (torch.arange(4).to(device) + True).cpu().equal(torch.arange(4) + True)


def test_sizes_need_no_code_of_their_own(device: torch.device) -> None:
    from torchport.runtime import events

    (torch.randn(3, 5).to(device).softmax(-1)).cpu()
    with events.capture() as happened:
        for rows, columns in ((7, 11), (2, 1021), (257, 3)):
            x = torch.randn(rows, columns)
            torch.testing.assert_close(x.to(device).softmax(-1).cpu(), x.softmax(-1))
    assert not [e for e in happened if isinstance(e, events.Kernel)]


def test_sizes_that_happen_to_be_equal_need_no_code_of_their_own(device: torch.device) -> None:
    """As the length of a sequence that grows past the width of its elements."""
    from torchport.runtime import events

    def joined(length: int) -> bool:
        cache, new = torch.randn(3, length, 5), torch.randn(3, 2, 5)
        there = torch.cat([cache.to(device), new.to(device)], 1)
        return there.cpu().equal(torch.cat([cache, new], 1)) and (there * there).sum(-1).shape == (3, length + 2)

    assert joined(4)
    with events.capture() as happened:
        assert all([joined(length) for length in (2, 3, 5, 7)])
    assert not [e for e in happened if isinstance(e, events.Kernel)]


def test_gradients_of_slices_need_no_code_for_each_length(device: torch.device) -> None:
    from torchport.runtime import events

    def gradient(where: Any, length: int) -> torch.Tensor:
        x = torch.arange(2.0 * length).view(length, 2).to(where).requires_grad_()
        loss = x[:-1].square().sum() + x.select(0, length - 2).sum() + x[::2].exp().sum() + x.diagonal(1).cos().sum()
        loss.backward()
        assert x.grad is not None
        return x.grad.cpu()

    gradient(device, 5)
    with events.capture() as happened:
        for length in (4, 6, 8):
            torch.testing.assert_close(gradient(device, length), gradient("cpu", length))
    assert not [e for e in happened if isinstance(e, events.Kernel)] and not torchport.fallbacks()


def test_strides_that_follow_other_sizes_get_other_code(device: torch.device) -> None:
    square = torch.randn(9, 9)
    for size, stride in ((4, 4), (4, 5), (3, 9), (5, 2)):
        row = square.as_strided((1, size), (1, stride), 6)
        there = square.to(device).as_strided((1, size), (1, stride), 6)
        for rows in (5, size, stride):
            column = torch.randn(rows, 1)
            assert (column.to(device) * there).cpu().equal(column * row)


def test_gradients_are_the_hosts(device: torch.device) -> None:
    model, x = small_model(), torch.randn(5, 16)
    there = copy.deepcopy(model).to(device)
    model(x).square().sum().backward()
    there(x.to(device)).square().sum().backward()
    for mine, other in zip(model.parameters(), there.parameters(), strict=True):
        assert other.grad is not None and other.grad.device == device
        torch.testing.assert_close(other.grad.cpu(), mine.grad)
    assert not torchport.fallbacks()


def test_compiled_graphs_run_on_the_device_without_copies(device: torch.device) -> None:
    from torchport.runtime.devices import statistics

    model, x = small_model(), torch.randn(5, 16)
    there = copy.deepcopy(model).to(device)
    model(x).square().sum().backward()
    compiled = torch.compile(there, backend="torchport", fullgraph=True)
    argument = x.to(device)
    compiled(argument).square().sum().backward()
    before = statistics(targets()[0]).upload_bytes
    result = compiled(argument)
    assert statistics(targets()[0]).upload_bytes == before
    torch.testing.assert_close(result.cpu(), model(x))
    for mine, other in zip(model.parameters(), there.parameters(), strict=True):
        assert other.grad is not None
        torch.testing.assert_close(other.grad.cpu(), mine.grad)


def test_numbers_in_place_of_tensors(device: torch.device) -> None:
    x = torch.linspace(-3, 3, 7)

    def function(x: torch.Tensor) -> Any:
        return x // 2, x % 2.5, torch.fmod(x, 2), torch.arange(7, device=x.device) % 3

    for run in (function, torch.compile(function, backend="torchport", fullgraph=True)):
        for mine, other in zip(run(x.to(device)), function(x), strict=True):
            assert mine.device == device and mine.cpu().equal(other)


def test_another_target_than_the_tensors_is_refused(device: torch.device) -> None:
    compiled = torch.compile(lambda x: x + 1, backend="torchport", options={"target": "cpu"})
    with pytest.raises(TargetError, match="leave it out"):
        compiled(torch.ones(3, device=device))


def test_what_the_device_lacks_runs_on_the_host_and_is_counted(device: torch.device) -> None:
    x = torch.randn(4, 4)
    torch.testing.assert_close(torch.linalg.qr(x.to(device))[1].cpu(), torch.linalg.qr(x)[1])
    assert torchport.fallbacks()["aten.linalg_qr.default"] == 1
    assert x.to(device).nonzero().cpu().equal(x.nonzero())


def test_fallbacks_can_be_errors(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHPORT_DEVICE_FALLBACK", "error")
    with pytest.raises(torchport.UnsupportedOperation, match="linalg_qr"):
        torch.linalg.qr(torch.randn(4, 4).to(device))


@pytest.mark.parametrize("where", ["torchport:0", "cpu", None])
def test_state_is_saved_and_loaded(device: torch.device, where: str | None) -> None:
    model = small_model().to(device)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, map_location=where)
    for name, value in model.state_dict().items():
        assert str(loaded[name].device) == (where or "torchport:0")
        assert loaded[name].cpu().equal(value.cpu())


OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda p, **how: torch.optim.SGD(p, lr=0.1, weight_decay=0.01, **how),
    "momentum": lambda p, **how: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True, **how),
    "Adam": lambda p, **how: torch.optim.Adam(p, lr=0.1, weight_decay=0.01, amsgrad=True, **how),
    "AdamW": lambda p, **how: torch.optim.AdamW(p, lr=0.1, weight_decay=0.01, **how),
}


@pytest.mark.parametrize(
    "optimizer", ["momentum", *(pytest.param(name, marks=pytest.mark.slow) for name in ("AdamW", "SGD", "Adam"))]
)
def test_fused_optimizers_take_the_hosts_steps(device: torch.device, optimizer: str) -> None:
    """With a loss that is scaled: a step whose gradients overflow is left out, and the scale halved."""
    model, x = small_model(), torch.randn(5, 16)
    there = copy.deepcopy(model).to(device)
    mine, theirs = OPTIMIZERS[optimizer](there.parameters(), fused=True), OPTIMIZERS[optimizer](model.parameters())
    scaler = torch.amp.GradScaler("torchport")
    torchport.fallbacks(reset=True)
    for factor in (1.0, 1.0, float("inf"), 1.0):
        mine.zero_grad()
        theirs.zero_grad()
        scaler.scale(there(x.to(device)).square().sum() * factor).backward()
        scaler.step(mine)
        scaler.update()
        if factor == 1.0:
            model(x).square().sum().backward()
            theirs.step()
    assert scaler.get_scale() == 2.0**15
    assert not torchport.fallbacks()
    for each, other in zip(there.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(each.detach().cpu(), other.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("foreach", [pytest.param(False, marks=pytest.mark.slow), True])
def test_optimizers_take_the_hosts_steps(device: torch.device, optimizer: str, foreach: bool) -> None:
    model, x = small_model(), torch.randn(5, 16)
    there = copy.deepcopy(model).to(device)
    for each, inputs in ((model, x), (there, x.to(device))):
        step = getattr(torch.optim, optimizer)(each.parameters(), lr=0.1, weight_decay=0.01, foreach=foreach)
        for _ in range(3):
            step.zero_grad()
            each(inputs).square().sum().backward()
            step.step()
    for mine, other in zip(model.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(other.detach().cpu(), mine.detach(), rtol=1e-4, atol=1e-5)


def test_conjugates_and_negatives_that_are_not_written_yet(device: torch.device) -> None:
    z = torch.tensor([[1 + 2j, -3j], [2.5 - 1j, 4 + 0j]])
    there = z.to(device)
    assert there.conj().cpu().equal(z.conj()) and (there.conj() * there).cpu().equal(z.conj() * z)
    assert there.conj().resolve_conj().cpu().equal(z.conj()) and there.conj().clone().cpu().equal(z.conj())
    assert (there.conj().imag + 1).cpu().equal(z.conj().imag + 1)
    for target in (torch.zeros_like(there), torch.zeros_like(there).conj()):
        assert target.copy_(there.t()).cpu().equal(z.t()) and target.copy_(there.conj()).cpu().equal(z.conj())
        assert target.copy_(z.conj()).cpu().equal(z.conj())


def test_copies_of_objects_have_storages_of_their_own(device: torch.device) -> None:
    x = torch.arange(6.0).reshape(2, 3).to(device)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).to(device)
    pair, twin = copy.deepcopy([x, x.t()]), copy.deepcopy(model)
    x.zero_()
    assert pair[0].device == device and pair[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    pair[0][0, 1] = 9
    assert pair[1][1, 0].item() == 9, "views of one tensor stay views of one"
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    made = torch.UntypedStorage([1, 2, 3], device=device)
    assert made.device == device and made.tolist() == [1, 2, 3] == made.cpu().tolist() == made.clone().tolist()
    assert len(torch.UntypedStorage(5, device=device)) == 5 and torch.UntypedStorage(4).device.type == "cpu"


def test_states_of_random_numbers_are_not_traced(device: torch.device) -> None:
    """torch's own tools set them while a compiled function runs, with fake tensors turned off."""

    def function(x: torch.Tensor) -> torch.Tensor:
        with freeze_rng_state():
            y = torch.rand(3)
        return x + y

    torch.manual_seed(5)
    found = torch.compile(function, backend="torchport")(torch.ones(3))
    torch.manual_seed(5)
    torch.testing.assert_close(found, 1 + torch.rand(3))


def test_random_numbers_follow_the_seed(device: torch.device) -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append([torch.rand(999, device=device).cpu(), torch.randn(999, device=device).cpu()])
    assert drawn[0][0].equal(drawn[1][0]) and drawn[0][1].equal(drawn[1][1])
    assert not torch.rand(999, device=device).cpu().equal(drawn[0][0])
    uniform, normal = drawn[0]
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.05
    assert abs(normal.mean()) < 0.15 and abs(normal.std() - 1) < 0.1
    state = torch.torchport.get_rng_state()  # type: ignore[attr-defined]
    first = torch.rand(9, device=device).cpu()
    torch.torchport.set_rng_state(state)  # type: ignore[attr-defined]
    assert torch.rand(9, device=device).cpu().equal(first)
    assert sorted(torch.randperm(50, device=device).tolist()) == list(range(50))


def test_checkpointed_dropout_repeats(device: torch.device) -> None:
    from torch.utils.checkpoint import checkpoint

    x = torch.randn(64, 64).to(device).requires_grad_()
    out = checkpoint(lambda t: torch.nn.functional.dropout(t, 0.5), x, use_reentrant=False)
    out.sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).cpu().equal((out != 0).cpu() | (x == 0).cpu())


def test_memory_is_given_back(device: torch.device) -> None:
    module = torch.torchport  # type: ignore[attr-defined]
    gc.collect()
    before = module.memory_allocated()
    held = [torch.empty(1 << 16, device=device) for _ in range(8)]
    assert module.memory_allocated() == before + 8 * 4 * (1 << 16)
    views = [tensor[5:] for tensor in held]
    del held
    assert module.memory_allocated() > before + 8 * 4 * (1 << 16) - 1
    del views
    assert module.memory_allocated() == before


def test_more_memory_than_there_is_is_a_clear_error(device: torch.device) -> None:
    with pytest.raises(torchport.errors.DeviceMemoryError, match="no room"):
        torch.empty(1 << 38, dtype=torch.float64, device=device)
    assert torch.ones(3, device=device).sum().item() == 3


def test_resizing_keeps_the_elements(device: torch.device) -> None:
    tensor = torch.arange(6.0).to(device)
    tensor.resize_(3, 4)
    assert tensor.shape == (3, 4)
    assert tensor.flatten()[:6].cpu().equal(torch.arange(6.0))


def test_threads_share_the_device(device: torch.device) -> None:
    failures: list[str] = []

    def work(seed: int) -> None:
        x = torch.randn(50 + seed, 20, generator=torch.Generator().manual_seed(seed))
        there = x.to(device)
        for _ in range(10):
            if not torch.allclose((there * seed + 1).sum(0).cpu(), (x * seed + 1).sum(0), rtol=1e-4, atol=1e-4):
                failures.append(f"thread {seed}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_threads_that_trace_at_once_leave_no_mark(device: torch.device) -> None:
    """torch notes in a global variable that a graph is traced; two tracers at once would leave it set."""

    def work(operator: Any) -> None:
        x = torch.rand(3, 5).to(device)
        operator(x, x + 1)

    threads = [
        threading.Thread(target=work, args=(operator,))
        for operator in (torch.atan2, torch.hypot, torch.copysign, torch.nextafter)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torch.fx._symbolic_trace.is_fx_tracing()


def test_autocast(device: torch.device) -> None:
    x, y = torch.randn(8, 8).to(device), torch.randn(8, 8).to(device)
    with torch.autocast("torchport", dtype=torch.bfloat16):
        assert (x @ y).dtype == torch.bfloat16


def test_writes_that_overlap_what_is_read(device: torch.device) -> None:
    host = torch.arange(5000.0)
    there = host.to(device)
    there[1:].copy_(there[:-1])
    wanted = host.clone()
    wanted[1:] = host[:-1]
    assert there.cpu().equal(wanted)
    there, host = torch.arange(2500.0).reshape(50, 50).to(device), torch.arange(2500.0).reshape(50, 50)
    there.add_(there.t())
    assert there.cpu().equal(host + host.t())
    with pytest.raises(RuntimeError, match="single memory location"):
        torch.ones(1, device=device).expand(3).add_(1)


def test_printing_and_truth(device: torch.device) -> None:
    assert "device='torchport:0'" in repr(torch.arange(3.0).to(device))
    assert bool(torch.ones(1, device=device)) and torch.tensor([2], device=device).item() == 2
    assert torch.accelerator.current_accelerator() == torch.device("torchport")


def test_a_device_that_is_not_here_is_named(device: torch.device) -> None:
    with pytest.raises(TargetError, match="torchport:0"):
        torchport.device("opencl:77")
    with pytest.raises(TargetError, match="there is no device torchport:99"):
        torchport.device(99)


def test_a_device_after_the_first_gradient_is_refused() -> None:
    code = (
        "import torch; torch.ones(1, requires_grad=True).sum().backward()\n"
        "import torchport\n"
        "for _ in range(2):\n"
        "    try: torchport.device(0)\n"
        "    except torchport.TargetError as error: print(error)"
    )
    assert in_a_process(code).count("before the first") == 2


def test_pytorch_knows_the_device_where_the_environment_says_so() -> None:
    code = "import torch; from torchport.autoload import autoload; autoload(); print(torch.ones(2).to('torchport'))"
    assert "tensor([1., 1.], device='torchport:0')" in in_a_process(code, TORCHPORT_DEVICE="1")


def test_bad_indices_raise(device: torch.device) -> None:
    weight = torch.randn(4, 3).to(device)
    with pytest.raises(torchport.KernelAssertionError, match="index out of bounds"):
        torch.nn.functional.embedding(torch.tensor([1, 7]).to(device), weight).cpu()


def test_a_forked_process_is_refused_and_work_pending_at_exit_is_no_crash() -> None:
    code = (
        "import os, signal, torch, torchport\n"
        "x = torch.ones(4, device=torchport.device(0)) + 1\n"
        "x.cpu()\n"
        "if os.fork() == 0:\n"
        "    signal.alarm(30)\n"
        "    try: (x + 1).cpu()\n"
        "    except torchport.TargetError as error: print(error, flush=True)\n"
        "    os._exit(0)\n"
        "assert os.wait()[1] == 0\n"
        "for _ in range(20): x = x + 1"
    )
    assert "forked after its parent used a device" in in_a_process(code)


def test_tensors_on_several_devices_are_an_error_but_for_cpu_scalars() -> None:
    device = torchport.device(0)
    x = torch.arange(6.0)
    there = x.to(device)
    torchport.fallbacks(reset=True)
    assert torch.equal((there * torch.tensor(3.0)).cpu(), x * 3)
    assert (there.half() * torch.tensor(3.0)).dtype == torch.float16
    assert not torchport.fallbacks()
    for mixed in (
        lambda: there + x,
        lambda: x.add_(there),
        lambda: torch.tensor(1.0).add_(there[0]),
        lambda: there[None] @ x[:, None],
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    assert torch.equal(x, torch.arange(6.0))
    assert torch.equal(there[torch.tensor([2, 0])].cpu(), x[[2, 0]])  # indices may be on the CPU

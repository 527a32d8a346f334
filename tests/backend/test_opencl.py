"""The opencl backend on whatever device is here: kernels, models, errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from torchport.errors import CompilationError, DeviceMemoryError, KernelAssertionError, TargetError
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Run
from torchport.ops.attention import launches
from torchport.plugin import Binary, registry
from torchport.runtime import devices, events
from torchport.runtime.devices.memory import Pool
from torchport.target import Target

pytest.importorskip("pyopencl")
from torchport_opencl.device import OpenCLMemory, build

TARGET = Target("opencl")
OPTIONS = {"target": "opencl", "fallback": "error"}
backend = registry().get("opencl")
if backend.devices()[0].missing:
    pytest.skip(backend.devices()[0].missing, allow_module_level=True)


def kernel(body: str, access: list[str], sites: tuple[str, ...] = (), lanes: int = 8) -> Binary:
    about = {"lanes": lanes, "access": access, "sites": list(sites), "features": []}
    return Binary(body.encode(), "cl", "tpk_test", metadata=about)


SCALE = """
TP_KERNEL(tpk_test)(TP_GLOBAL uchar *x, ulong xo, TP_GLOBAL uchar *y, ulong yo, int n, float f TP_PARAMETERS) {
  const int i = get_group_id(0) * TP_LANES + TP_LANE;
  if (i < n) ((TP_GLOBAL float *)(y + yo))[i] = ((TP_GLOBAL const float *)(x + xo))[i] * f;
}
"""
ASSERTING = """
TP_KERNEL(tpk_test)(TP_GLOBAL uchar *x, ulong xo, TP_GLOBAL int *tp_status TP_PARAMETERS) {
  if (((TP_GLOBAL const float *)(x + xo))[TP_LANE] < 0) *tp_status = 1;
}
"""


def load(binary: Binary, types: list[str]) -> Callable[..., None]:
    launcher, function = backend.driver(TARGET).load(binary, types)
    return functools.partial(launcher, 4, 1, 1, None, function, None, None, None, None)


@pytest.mark.parametrize(
    ("dtype", "rows"),
    [(torch.float32, 70), (torch.float32, 1), (torch.bfloat16, 40), (torch.float16, 5), (torch.int8, 33)],
)
def test_products(dtype: torch.dtype, rows: int) -> None:
    """Rows, columns and terms that no block divides; b packed and not, by columns and by rows."""
    limit = 4 if dtype == torch.int8 else 100
    a, b = torch.randint(-limit, limit, (rows, 77)).to(dtype), torch.randint(-limit, limit, (77, 45)).to(dtype)
    if dtype != torch.int8:
        a, b = a / 64, b / 64
        a[0, -1] = torch.inf  # meets nothing but its own column of b, whatever terms are added beyond the end
    product = torch.compile(torch.mm, backend="torchport", options=OPTIONS)
    devices.reset_statistics("opencl")
    for right in (b, b.t().contiguous().t()):
        got, exact = product(a, right), a.double() @ b.double()
        assert not devices.statistics("opencl").host_operations
        if dtype == torch.int8:
            assert torch.equal(got, a @ b)
            continue
        bound = 77 * 2**-24 * (a.double().abs() @ b.double().abs()) + torch.finfo(dtype).eps / 2 * exact.abs()
        close = (got.double() - exact).abs() <= bound
        assert torch.equal(got.isnan(), exact.isnan()) and (close | ~exact.isfinite()).all()
        assert torch.equal(got[exact.isinf()].double(), exact[exact.isinf()])


def test_devices_and_capabilities() -> None:
    for number, device in enumerate(backend.devices()):
        assert device.target == (TARGET if number == 0 else Target("opencl", (str(number),)))
        able = backend.capabilities(device.target)
        assert {"fp16", "bf16", "fp32", "int64"} <= able.dtypes
        assert able.promoted["fp16"] == "fp32"
        assert able.simd_width * able.simd_groups[-1] <= 1024
        assert able.scratchpad_bytes >= 16 * 1024  # OpenCL 1.2, table 4.3: at least 32 KiB, embedded profiles 1
        assert able.ulp["exp"] == 3
    assert backend.driver(TARGET) is backend.driver(Target("opencl", ("0",)))


@pytest.mark.parametrize("name", ["opencl:99", "opencl:pocl", "opencl:0:1"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(TargetError, match=f"target {name} names no device that is here; valid: opencl, opencl:0"):
        backend.driver(Target.parse(name))


def test_without_pyopencl(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchport_opencl import plugin

    missing = "pyopencl cannot be imported (No module named 'pyopencl'): pip install \"pyopencl[pocl]\""
    monkeypatch.setattr(plugin, "_devices", lambda: ([], missing))
    (device,) = plugin.backend.devices()
    assert (device.target, device.missing) == (TARGET, missing)
    with pytest.raises(TargetError, match="target opencl is not available: pyopencl cannot be imported"):
        plugin.backend.driver(TARGET)


def test_a_kernel() -> None:
    run = load(kernel(SCALE, ["r", "w", "", ""]), ["*fp32", "*fp32", "i32", "fp32"])
    base = torch.randn(100)
    out = torch.zeros(100)
    run(base[10:42], out[5:37], 30, 0.5)
    assert torch.equal(out[5:35], base[10:40] * 0.5)
    assert not out[:5].any() and not out[35:].any()


OF_INTEGERS = "ceil exp exp10 exp2 expm1 floor round sinh tanh tgamma trunc".split()


def test_functions_of_a_constant_nan() -> None:
    """In PoCL 3.0 these make an integer of it, which is undefined: they gave what a register held."""
    stores = "".join(f"y[{number}] = {name}(0.0f / 0.0f);" for number, name in enumerate(OF_INTEGERS))
    head = "TP_KERNEL(tpk_test)(TP_GLOBAL uchar *x, ulong xo TP_PARAMETERS)"
    body = f"{head} {{ TP_GLOBAL float *y = (TP_GLOBAL float *)(x + xo); {stores} }}"
    out = torch.zeros(len(OF_INTEGERS))
    load(kernel(body, ["w"]), ["*fp32"])(out)
    assert [name for name, value in zip(OF_INTEGERS, out, strict=True) if not value.isnan()] == []


def test_a_failed_assertion() -> None:
    run = load(kernel(ASSERTING, ["r"], ("x is negative",)), ["*fp32"])
    x = torch.ones(8)
    run(x)
    x[3] = -1
    with pytest.raises(KernelAssertionError, match="kernel tpk_test: device-side assertion failed: x is negative"):
        run(x)
    run(torch.ones(8))


def test_source_that_is_wrong() -> None:
    with pytest.raises(CompilationError, match=r"does not build kernel tpk_test: .*undeclared") as caught:
        load(kernel(SCALE.replace("* f", "* nothing"), ["r", "w", "", ""]), ["*fp32", "*fp32", "i32", "fp32"])
    assert caught.value.stage == "opencl"


def test_programs_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyopencl as cl
    from torchport_opencl import device

    monkeypatch.setattr(device, "_keeps_binaries", lambda one: False)  # as on drivers without a cache of their own
    source = SCALE.replace("* f", "* f + 1.0f")
    types = ["*fp32", "*fp32", "i32", "fp32"]
    load(kernel(source, ["r", "w", "", ""]), types)

    real = cl.Program

    def from_binaries(*args: Any) -> Any:
        assert len(args) == 3, "built from source again"
        return real(*args)

    monkeypatch.setattr(cl, "Program", from_binaries)
    run = load(kernel(source, ["r", "w", "", ""]), types)
    y = torch.zeros(8)
    run(torch.ones(8), y, 8, 2.0)
    assert (y == 3).all()


def test_a_buffer_that_is_too_large() -> None:
    memory = backend.driver(TARGET).mirrors.memory
    with pytest.raises(MemoryError, match="at most"):
        memory.allocate(memory.device.max_mem_alloc_size + 1)
    pool = backend.driver(TARGET).mirrors.pool
    with pytest.raises(DeviceMemoryError, match="the device has no room for"):
        pool.allocate(memory.device.max_mem_alloc_size + 1)


def test_contexts_of_ones_own() -> None:
    memory = OpenCLMemory(backend.driver(TARGET).mirrors.memory.device)
    own = devices.DeviceDriver(memory, functools.partial(build, memory), (1000, 1, 1))
    launcher, function = own.load(kernel(SCALE, ["r", "w", "", ""]), ["*fp32", "*fp32", "i32", "fp32"])
    y = torch.zeros(8)
    launcher.bind(1, 1, 1, function)(torch.ones(8), y, 8, 3.0)
    assert (y == 3).all()


class Layer(torch.nn.Module):
    """Attention and a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(32, 96), torch.nn.Linear(32, 32)
        self.norm, self.up, self.down = torch.nn.LayerNorm(32), torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (one.unflatten(-1, (2, 16)).transpose(1, 2) for one in self.qkv(x).chunk(3, -1))
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))


def test_a_model_trains_on_the_device() -> None:
    model, exact = Layer(), Layer().double()
    exact.load_state_dict(model.state_dict())
    run = torch.compile(model, backend="torchport", options=OPTIONS)
    x = torch.randn(2, 8, 32)
    devices.reset_statistics("opencl")
    with events.capture() as happened:
        loss = run(x).square().mean()
        loss.backward()
    expected = exact(x.double()).square().mean()
    expected.backward()
    # Sums of at most 96 terms through a dozen layers of operations: 1e-5 is 2**-24 times 200.
    assert abs(loss.item() - expected.item()) <= 1e-5 * expected.item()
    for mine, other in zip(model.parameters(), exact.parameters(), strict=True):
        assert other.grad is not None and mine.grad is not None
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-4, atol=1e-5 * float(other.grad.abs().max()))
    assert not [one for one in happened if isinstance(one, events.Fallback)]
    counts = devices.statistics("opencl")
    assert not counts.host_operations
    assert set(counts.downloads) == {"output"}

    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.eval()
    with torch.no_grad():
        first = run(x)
        torch.testing.assert_close(first, model(x), rtol=1e-4, atol=1e-5)
        devices.reset_statistics("opencl")
        assert torch.equal(run(x), first)
    counts = devices.statistics("opencl")
    assert (counts.upload_copies, counts.download_copies) == (0, 1)


@pytest.mark.parametrize(
    ("dtype", "masked"),
    [
        (torch.bfloat16, False),
        pytest.param(torch.float32, True, marks=pytest.mark.slow),  # a driver compiles kernels for seconds
        pytest.param(torch.bfloat16, True, marks=pytest.mark.slow),
    ],
)
def test_attention_is_fused(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, masked: bool) -> None:
    """Forward and backward, on tensors of the CPU's: nothing of it runs on the host, and nothing is copied twice."""
    names: list[str] = []

    def noting(kernel: Any, *args: Any) -> Any:
        names.append(kernel.name)
        return launch(kernel, *args)

    launch = launches.launch
    monkeypatch.setattr(launches, "launch", noting)
    mask = torch.rand(2, 1, 70, 70) < 0.7 if masked else None

    def attend(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        q, k, v = (x @ w).view(2, 70, 3, 2, 32).permute(2, 0, 3, 1, 4)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=not masked)
        return (attended.transpose(1, 2) * 2.0).flatten(2)

    host = [torch.randn(2, 70, 16).to(dtype), (torch.randn(16, 192) / 4).to(dtype)]
    run = torch.compile(attend, backend="torchport", options=OPTIONS)
    found = []
    for function, convert in ((run, torch.Tensor.clone), (attend, torch.Tensor.clone), (attend, torch.Tensor.double)):
        inputs = [convert(one).requires_grad_() for one in host]
        devices.reset_statistics("opencl")
        out = function(*inputs)
        found.append((out.detach(), *torch.autograd.grad(out.sum(), inputs)))
        if function is run:
            counts = devices.statistics("opencl")
            assert not counts.host_operations
    runs = [name for name in names if "lanes" in name]
    assert set(runs) == {
        "forward_lanes_forward_lanes",
        "backward_lanes_by_columns_lanes",
        "backward_lanes_by_rows_lanes",
    }
    for mine, eager, exact in zip(*found, strict=True):
        scale = float(exact.abs().max())
        least = scale * (2e-6 if dtype == torch.float32 else 2**-9)
        assert (mine.double() - exact).abs().max() <= max(least, 2 * float((eager.double() - exact).abs().max()))


def test_what_a_recorded_kernel_leaves_unwritten_is_no_fault_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two kernels write the parts of one buffer: while the first runs, the rest is other memory on the device."""

    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.new_full((3, 1), -1), x.cumsum(1)], 1)

    original = OpenCLMemory.allocate

    def allocate(memory: Any, nbytes: int) -> Any:
        buffer, rubbish = original(memory, nbytes), torch.full((nbytes,), 0xA5, dtype=torch.uint8)
        memory.upload(buffer, rubbish.data_ptr(), nbytes)
        return buffer

    monkeypatch.setattr(OpenCLMemory, "allocate", allocate)
    monkeypatch.setattr(Pool, "reuse", lambda pool, nbytes: None)
    compiled = torch.compile(model, backend="torchport", options=OPTIONS, dynamic=False)
    x = torch.arange(60).reshape(3, 20)
    with record(tmp_path / "run", "full"):
        assert torch.equal(compiled(x), model(x))
    launches = [one for one in Run.load(tmp_path / "run").launches if one.kind == "kernel"]
    assert any(arg.stride[:1] == (21,) for one in launches for arg in one.args)
    assert [flag for one in launches for flag in one.flags] == []

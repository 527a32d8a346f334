"""The webgpu backend on whatever adapter is here: values that compilers bend, narrow stores, aliases, limits."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

import torchport
from torchport.errors import CompilationError, DeviceMemoryError, TargetError
from torchport.plugin import Binary, registry
from torchport.runtime import devices
from torchport.target import Target

pytest.importorskip("wgpu", reason="pip install 'torchport[webgpu]'")
plugin = pytest.importorskip("torchport_webgpu.plugin")

TARGET = Target("webgpu")
OPTIONS = {"target": "webgpu", "fallback": "error"}
if "webgpu" not in registry().names:
    pytest.skip("torchport was installed before it had this backend: install it again", allow_module_level=True)
if plugin.backend.devices()[0].missing:
    pytest.skip(plugin.backend.devices()[0].missing, allow_module_level=True)

SPECIAL = torch.tensor(
    [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, -1.1e-38, 3.4e38, -3.4e38, 1.0,
     -1.0, 0.5, -0.5, 1.5, 2.5, 8388609.0, 16777216.0, -2147483648.0, 5e-39]
)  # fmt: skip


@triton.jit
def bent(a, b, out, n, B: tl.constexpr):
    """What optimisers that assume real numbers change: reassociation, contraction, x - x, x * 0, x + 0, comparisons."""
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    x = tl.load(a + i, m)
    y = tl.load(b + i, m)
    o = out + i
    tl.store(o, (x + y) - y, m)
    tl.store(o + n, x * y + x * x, m)
    tl.store(o + 2 * n, (x + 12582912.0) - 12582912.0, m)
    tl.store(o + 3 * n, x - x, m)
    tl.store(o + 4 * n, x * 0.0, m)
    tl.store(o + 5 * n, x + 0.0, m)
    tl.store(o + 6 * n, 0.0 - x, m)
    tl.store(o + 7 * n, (x != x).to(tl.float32), m)
    tl.store(o + 8 * n, (x != y).to(tl.float32), m)
    tl.store(o + 9 * n, tl.where(x < y, x, y), m)
    tl.store(o + 10 * n, x / y, m)
    tl.store(o + 11 * n, tl.fma(x, y, -x), m)
    tl.store(o + 12 * n, tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL), m)
    tl.store(o + 13 * n, x.to(tl.float16).to(tl.float32), m)
    tl.store(o + 14 * n, x.to(tl.bfloat16).to(tl.float32), m)
    tl.store(o + 15 * n, tl.exp(x), m)
    tl.store(o + 16 * n, tl.sqrt_rn(x), m)
    tl.store(o + 17 * n, tl.floor(x), m)


def on(target: str, kernel: Any, grid: int, *args: Any) -> None:
    with torchport.use(target):
        kernel[(grid,)](*args)


def test_arithmetic_is_the_cpus_bit_by_bit() -> None:
    generator = torch.Generator().manual_seed(1)
    random = torch.randint(-(2**31), 2**31, (2, 4000), generator=generator).to(torch.int32).view(torch.float32)
    a = torch.cat([SPECIAL.repeat(len(SPECIAL)), random[0]])
    b = torch.cat([SPECIAL.repeat_interleave(len(SPECIAL)), random[1]])
    results = []
    for target in ("cpu", "webgpu"):
        results.append(torch.zeros(18, len(a)))
        on(target, bent, triton.cdiv(len(a), 256), a, b, results[-1], len(a), 256)
    cpu, webgpu = results
    same = (cpu.view(torch.int32) == webgpu.view(torch.int32)) | (cpu.isnan() & webgpu.isnan())
    assert same.all(), (~same).sum(1)


@triton.jit
def fused(a, b, c, out, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(out + i, tl.fma(tl.load(a + i, m), tl.load(b + i, m), tl.load(c + i, m)), m)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fma_rounds_once(dtype: torch.dtype) -> None:
    """Sums that cancel, that are halfway between two numbers, and denormal ones."""
    if dtype == torch.float64 and "fp64" not in plugin.backend.capabilities(TARGET).dtypes:
        pytest.skip("the adapter has no 64-bit floats")
    generator = torch.Generator().manual_seed(2)
    x, y, z = torch.randn(3, 6000, dtype=dtype, generator=generator)
    eps, half = torch.finfo(dtype).eps, 12 if dtype == torch.float32 else 26
    whole = torch.randint(1, 2**half, (2, 3000), generator=generator).to(dtype)
    a = torch.cat([x, whole[0], x * 2.0 ** (-60 if half == 12 else -520)])
    b = torch.cat([y, whole[1], y * 2.0 ** (-70 if half == 12 else -530)])
    c = torch.cat([-(x * y) * (1 + z * eps), z[:3000] * 2.0**-20, z * torch.finfo(dtype).tiny * eps * 4])
    results = []
    for target in ("cpu", "webgpu"):
        results.append(torch.zeros_like(a))
        on(target, fused, triton.cdiv(len(a), 256), a, b, c, results[-1], len(a), 256)
    assert torch.equal(*results)


@triton.jit
def scattered(x, out, n, B: tl.constexpr):
    """Element i of a program goes to place 2 i + program: neighbours in a word are written by different programs."""
    i = tl.arange(0, B)
    m = i < n
    tl.store(out + 2 * i + tl.program_id(0), tl.load(x + 2 * i + tl.program_id(0), m), m)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.bool, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int16]
)
def test_narrow_stores_leave_neighbours_alone(dtype: torch.dtype) -> None:
    values = torch.randint(0, 2 if dtype == torch.bool else 100, (8193,))
    x = values.to(dtype)[1:]
    out = torch.zeros(9001).to(dtype)
    before = torch.randint(0, 2, (9001,)).to(dtype)
    out.copy_(before)
    on("webgpu", scattered, 2, x, out[3:], 4000, 4096)
    assert torch.equal(out[3:8003].float(), x[:8000].float())
    assert torch.equal(out[:3].float(), before[:3].float()) and torch.equal(out[8003:].float(), before[8003:].float())


@triton.jit
def add_to(x, y, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(x + i, tl.load(x + i, i < n) + tl.load(y + i, i < n), i < n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int8])
def test_arguments_in_one_buffer(dtype: torch.dtype) -> None:
    """The same tensor twice, and two parts of one storage: WebGPU binds a buffer once."""
    base = torch.randint(-30, 30, (1000,)).to(dtype)
    expected = base.clone()
    expected[:101] += expected[:101]
    expected[107:207] += expected[507:607]
    on("webgpu", add_to, 1, base, base, 101, 128)
    on("webgpu", add_to, 1, base[107:], base[507:], 100, 128)
    other = torch.ones(1000, dtype=dtype)
    on("webgpu", add_to, 4, base, other, 400, 128)
    expected[:400] += 1
    assert torch.equal(base, expected)


@triton.jit
def until(limits, x, out, B: tl.constexpr):
    """Barriers in a loop whose bound, and in a branch whose condition, is loaded."""
    i = tl.arange(0, B)
    v = tl.load(x + i)
    total = 0.0
    for k in range(tl.load(limits)):
        total += tl.sum(v * k)
        v = v * 0.5
    if tl.load(limits + 1) > 0:
        total += tl.max(v)
    while total > tl.load(limits + 2):
        total -= tl.sum(tl.abs(v)) + 1
    tl.store(out + i, total)


def test_barriers_where_memory_decides() -> None:
    x = torch.randn(512)
    for limits in ([5, 1, 3], [0, 0, -2], [1, 1, 100]):
        results = []
        for target in ("cpu", "webgpu"):
            results.append(torch.zeros(512))
            on(target, until, 1, torch.tensor(limits), x, results[-1], 512)
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-4)


@triton.jit
def after_a_branch(a, b, out, n, B: tl.constexpr):
    """What relies on rounding, behind a branch on an argument and a product: compilers may know the arguments then."""
    i = tl.arange(0, B)
    x = tl.load(a + i[:, None] * B + i[None, :], i[:, None] < n, 0.0)
    y = tl.load(b + i[:, None] * B + i[None, :])
    product = tl.dot(y, tl.trans(x), input_precision="ieee") * 0.1
    tl.store(out + i[:, None] * B + i[None, :], tl.exp2(product))


def test_rounding_is_hidden_from_what_knows_the_arguments() -> None:
    a, b = torch.randn(2, 16, 16)
    out = torch.zeros(16, 16)
    on("webgpu", after_a_branch, 1, a, b, out, 16, 16)
    torch.testing.assert_close(out, torch.exp2(b @ a.T * 0.1), rtol=1e-5, atol=1e-6)


def compiled(function: Callable[..., Any], *args: torch.Tensor) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, backend="torchport", options=OPTIONS)(*args)


@pytest.mark.parametrize("where", [TARGET, Target("cpu")], ids=str)
def test_tensors_that_start_between_vectors(where: Target) -> None:
    """Kernels move four words at once where arguments start at multiples of 16 bytes, else word by word."""
    device = torchport.device(where) if where == TARGET else torch.device("cpu")

    def scaled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y.mul_(2.0).add_(x)

    for first, second in ((0, 0), (0, 1), (3, 0), (1, 2)):
        x, y = torch.arange(2052.0), torch.arange(2052.0).flip(0)
        expected, there = y.clone(), y.to(device)
        scaled(x[first : first + 2048], expected[second : second + 2048])
        compiled = torch.compile(scaled, backend="torchport", options=OPTIONS if where != TARGET else {})
        compiled(x.to(device)[first : first + 2048], there[second : second + 2048])
        assert torch.equal(there.cpu(), expected), (first, second)


def test_shapes_and_views() -> None:
    x = torch.randn(131, 97)
    for view in (x, x.t(), x[3::2, 5:], x[:, ::7], x[7], x[:0], x.expand(2, 131, 97)[:, :, 3:]):
        got = compiled(lambda v: (v.relu() + 0.25, (v * 2).sum()), view)
        torch.testing.assert_close(got, (view.relu() + 0.25, (view * 2).sum()))


def test_integers_of_64_bits() -> None:
    a = torch.tensor([2**62 + 3, -(2**63), -1, 7, 2**33, -(2**40) + 1, 0, 2**53 + 1])
    b = torch.tensor([3, 5, 2**40, -7, 2**31 + 1, 1000003, 9, -3])

    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shifted = (a << (b.abs() % 64)) ^ (a >> (b.abs() % 64))
        return a * b + a - b, a // b, a % b, shifted, a < b, torch.maximum(a, b), a.float(), a.to(torch.int8)

    for got, expected in zip(compiled(function, a, b), function(a, b), strict=True):
        assert torch.equal(got, expected)


def test_softmax_norm_product_and_training() -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(61, 48), torch.nn.LayerNorm(48), torch.nn.GELU(), torch.nn.Linear(48, 10), torch.nn.Softmax(-1)
    )
    x = torch.randn(37, 61)
    double = [p.detach().double().requires_grad_() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    exact = torch.func.functional_call(model, dict(zip(names, double, strict=True)), x.double())
    exact.square().sum().backward()
    devices.reset_statistics("webgpu")
    got = torch.compile(model, backend="torchport", options=OPTIONS)(x)
    got.square().sum().backward()
    assert (got.double() - exact).abs().max() < 1e-6
    for parameter, reference in zip(model.parameters(), double, strict=True):
        assert (parameter.grad.double() - reference.grad).abs().max() < 1e-6 * (1 + reference.grad.abs().max())
    assert devices.statistics("webgpu").launches and not devices.statistics("webgpu").host_operations


@triton.jit
def numbered(out, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(out + i, tl.program_id(0) + tl.num_programs(0))


def test_grids_beyond_one_launch() -> None:
    """70,000 programs along x, where WebGPU launches 65,535."""
    out = torch.zeros(140_000, dtype=torch.int32)
    on("webgpu", numbered, 70_000, out, 2)
    assert torch.equal(out, torch.arange(70_000, dtype=torch.int32).repeat_interleave(2) + 70_000)


def test_limits_are_errors() -> None:
    most = plugin.backend.driver(TARGET)._memory.device.limits["max-storage-buffer-binding-size"]
    if most > 2**28:
        pytest.skip("the adapter binds buffers too large for a test")
    with pytest.raises(DeviceMemoryError):
        compiled(lambda v: v + 1, torch.zeros(most // 4 + 1024))
    body = b"struct tp_Arguments { zero: u32 }\n@compute @workgroup_size(TP_LANES) fn tpk_none() { wrong }\n"
    about = {"lanes": 8, "access": [], "sites": [], "features": []}
    kernel = Binary(body, "wgsl", "tpk_none", metadata=about)
    with pytest.raises(CompilationError, match="does not build kernel tpk_none"):
        plugin.backend.driver(TARGET).load(kernel, [])


@pytest.mark.parametrize("name", ["webgpu:99", "webgpu:vulkan", "webgpu:0:1"])
def test_unknown_adapters(name: str) -> None:
    with pytest.raises(TargetError, match=f"target {name} names no adapter that is here; valid: webgpu, webgpu:0"):
        plugin.backend.driver(Target.parse(name))


def test_without_an_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "WebGPU finds no adapter: install the vendor's Vulkan driver"
    monkeypatch.setattr(plugin, "_adapters", lambda: ([], missing))
    (device,) = plugin.backend.devices()
    assert (device.target, device.missing) == (TARGET, missing)
    with pytest.raises(TargetError, match="target webgpu is not available: WebGPU finds no adapter"):
        plugin.backend.driver(TARGET)


class Lacking:
    """The adapter that is here, with the features of a browser's."""

    def __init__(self, adapter: Any) -> None:
        self.limits, self.info, self.features = adapter.limits, adapter.info, frozenset({"shader-f16"})
        self.request_device_sync = adapter.request_device_sync


@pytest.fixture
def without_wide_types(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchport_webgpu.device import WebGPUDevice

    adapter = plugin._adapters()[0][0]
    monkeypatch.setattr(plugin, "_device", functools.cache(lambda index: WebGPUDevice(Lacking(adapter))))
    for name in ("_compiler", "_driver"):
        monkeypatch.setattr(plugin, name, functools.cache(getattr(plugin, name).__wrapped__))


def test_an_adapter_without_64_bit_types(without_wide_types: None) -> None:
    """Integers are two words, and fma is computed with them: the CPU's bits. Without f64, what needs it is refused."""
    capabilities = plugin.backend.capabilities(TARGET)
    assert "int64" in capabilities.dtypes and "fp64" not in capabilities.dtypes
    test_integers_of_64_bits()
    generator = torch.Generator().manual_seed(3)
    a, b, c = torch.randn(3, 6000, generator=generator) * 2.0 ** torch.randint(-70, 60, (3, 6000), generator=generator)
    c[:3000] = -(a * b)[:3000] * (1 + c[:3000].sign() * 2.0**-24)
    a, b, c = (torch.cat([x, SPECIAL.roll(i).repeat(21)]) for i, x in enumerate((a, b, c)))
    kernel = triton.jit(fused.fn)  # another than that which Triton has compiled for the whole adapter
    results = []
    for target in ("cpu", "webgpu"):
        results.append(torch.zeros_like(a))
        on(target, kernel, triton.cdiv(len(a), 256), a, b, c, results[-1], len(a), 256)
    cpu, webgpu = results
    same = (cpu.view(torch.int32) == webgpu.view(torch.int32)) | (cpu.isnan() & webgpu.isnan())
    assert same.all(), (a[~same][:5], b[~same][:5], c[~same][:5])
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="has no 64-bit floats"):
        compiled(lambda v: v.double() + 1, torch.randn(9))


def test_a_lost_device_is_noticed_at_the_next_launch() -> None:
    """In a process of its own, whose device it destroys."""
    program = """
import torch, torchport
from torchport.errors import DeviceLostError
from torchport_webgpu import plugin

step = torch.compile(lambda x: x * 2 + 1, backend="torchport", options={"target": "webgpu"})
x = torch.randn(100)
assert torch.equal(step(x), x * 2 + 1)
memory = plugin._driver(0)._memory
buffer = memory.allocate(64)
memory.gpu.destroy()
for again in range(2):
    try:
        step(x)
    except DeviceLostError as error:
        print(error)
try:
    memory.launch(None, None, [], b"", (1, 1, 1))
except Exception as error:
    print(type(error).__name__)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    first, second, kind = ran.stdout.splitlines() or [ran.stderr] * 3
    assert first == second and "was lost (its driver was reset, or it was removed)" in first, ran.stdout + ran.stderr
    assert kind == "GPUValidationError"  # a launch asks the device, before it is submitted

"""Triton kernels through the CPU driver: how calls arrive, what the caches give back, what installing changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import processes
import pytest
import torch
import triton
import triton.language as tl
from torchport_cpu.driver import CPUDriver
from triton.backends import Backend, backends
from triton.runtime import driver
from triton.tools.tensor_descriptor import TensorDescriptor

from torchport.errors import CompilationError, KernelAssertionError
from torchport.runtime.benchmark import do_bench

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's driver is the active one here")


@triton.jit
def scaled_add(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    tl.store(out + i, tl.load(x + i, mask=inside) * scale + tl.load(y + i, mask=inside), mask=inside)


@triton.jit
def checked(x, limit, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.device_assert(tl.load(x + i) < limit, "index out of bounds")
    tl.store(x + i, tl.load(x + i) + 1)


@triton.jit
def grid_ids(out, BLOCK: tl.constexpr):
    pid = tl.program_id(0) + tl.num_programs(0) * (tl.program_id(1) + tl.num_programs(1) * tl.program_id(2))
    tl.store(out + pid * BLOCK + tl.arange(0, BLOCK), tl.full((BLOCK,), 0, tl.int32) + pid)


@triton.jit
def pick(pair, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(pair[0] + i) + pair[1])


@triton.jit
def copy_tile(source, target, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    target.store([0, 0], source.load([0, 0]) * 2)


pytestmark = cpu_only


@pytest.mark.parametrize("n", [1, 16, 1000])  # 1 and 16 are specialised: a constexpr, a multiple of 16
def test_scalars(n: int) -> None:
    x, y, out = torch.randn(n), torch.randn(n), torch.empty(n)
    scaled_add[(triton.cdiv(n, 128),)](x, y, out, n, 2.5, BLOCK=128)
    torch.testing.assert_close(out, x * 2.5 + y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("grid", [(3,), (2, 3), (2, 3, 4), (0,), (2, 0)])
def test_grids(grid: tuple[int, ...]) -> None:
    programs = torch.Size(grid).numel()
    out = torch.full((max(programs, 1) * 16,), -1, dtype=torch.int32)
    grid_ids[grid](out, BLOCK=16)
    expected = torch.arange(programs, dtype=torch.int32).repeat_interleave(16)
    assert torch.equal(out[: programs * 16], expected)


def test_options_of_gpus_are_taken_and_change_nothing() -> None:
    x, out = torch.randn(64), torch.empty(64)
    kernels = [scaled_add[(1,)](x, x, out, 64, 1.5, BLOCK=64, num_warps=w, num_stages=s) for w, s in ((4, 2), (8, 5))]
    assert kernels[0].hash == kernels[1].hash
    torch.testing.assert_close(out, x * 2.5)


def test_unknown_options_are_refused() -> None:
    x = torch.randn(64)
    with pytest.raises(KeyError, match="num_wraps"):
        scaled_add[(1,)](x, x, x, 64, 1.5, BLOCK=64, num_wraps=4)


def test_tuple_arguments() -> None:
    x, out = torch.arange(16, dtype=torch.int32), torch.empty(16, dtype=torch.int32)
    pick[(1,)]((x, 5), out, BLOCK=16)
    assert torch.equal(out, x + 5)


def test_tensor_descriptors_made_by_the_caller() -> None:
    x, out = torch.randn(8, 16), torch.zeros(8, 16)
    copy_tile[(1,)](
        TensorDescriptor.from_tensor(x, [8, 16]), TensorDescriptor.from_tensor(out, [8, 16]), ROWS=8, COLUMNS=16
    )
    assert torch.equal(out, x * 2)


def test_device_assertions() -> None:
    x = torch.arange(16, dtype=torch.int32)
    with pytest.raises(
        KernelAssertionError, match=r"kernel checked: device-side assertion failed.*index out of bounds"
    ):
        checked[(1,)](x, 10, BLOCK=16, debug=True)
    x = torch.arange(16, dtype=torch.int32)  # what a kernel that failed has written is not defined
    checked[(1,)](x, 16, BLOCK=16, debug=True)
    assert torch.equal(x, torch.arange(16, dtype=torch.int32) + 1)


def test_launch_hooks() -> None:
    seen: list[str] = []

    def enter(metadata: triton.compiler.compiler.LazyDict) -> None:
        seen.append(metadata.get()["name"])

    x = torch.randn(64)
    triton.knobs.runtime.launch_enter_hook.add(enter)
    try:
        scaled_add[(1,)](x, x, x, 64, 1.5, BLOCK=64)
    finally:
        triton.knobs.runtime.launch_enter_hook.remove(enter)
    assert seen == ["scaled_add"]


def test_a_damaged_object_is_refused() -> None:
    x = torch.randn(64)
    kernel = scaled_add[(1,)](x, x, x, 64, 1.5, BLOCK=64)
    data = bytearray(kernel.asm["obj"])
    data[len(data) // 2] ^= 1
    with pytest.raises(CompilationError, match=r"kernel scaled_add is damaged.*TRITON_CACHE_DIR"):
        CPUDriver().utils.load_binary("scaled_add", bytes(data), 0, 0)


PROGRAM = """
import sys, warnings
class NoMLIR:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mlir":
            raise ImportError("MLIR is asked for")
if sys.argv[1] == "warm":
    sys.meta_path.insert(0, NoMLIR())
sys.path.insert(0, sys.argv[2])
import torch
from test_native_triton import scaled_add
x = torch.arange(64.0)
scaled_add[(1,)](x, x, x, 64, 1.0, BLOCK=64)
assert torch.equal(x, torch.arange(64.0) * 2)
"""


def test_a_new_process_finds_kernels_without_mlir(tmp_path: Path) -> None:
    def run(kind: str, triton_cache: str) -> None:
        caches = {"TRITON_CACHE_DIR": str(tmp_path / triton_cache), "TORCHPORT_CACHE_DIR": str(tmp_path / "ours")}
        done = processes.run(PROGRAM, kind, str(Path(__file__).parent), environment=caches)
        assert done.returncode == 0, done.stderr

    run("cold", "first")
    run("warm", "first")  # Triton's cache has it
    run("warm", "second")  # torchport's has it


def test_driver() -> None:
    assert isinstance(driver.active, CPUDriver)
    target = driver.active.get_current_target()
    assert (target.backend, target.warp_size) == ("cpu", 1)
    assert driver.active.map_python_to_cpp_type("*fp32") == "void*"
    assert driver.active.map_python_to_cpp_type("u16") == "uint16_t"
    assert driver.active.map_python_to_cpp_type("i1") == "bool"


def test_steps_back_for_another_active_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device(CPUDriver.__bases__[0]):  # type: ignore[misc]
        active = True

        @classmethod
        def is_active(cls) -> bool:
            return cls.active

    monkeypatch.setitem(backends, "device", Backend(compiler=backends["cpu"].compiler, driver=Device))
    assert not CPUDriver.is_active()
    Device.active = False
    assert CPUDriver.is_active()


def test_do_bench() -> None:
    calls: list[int] = []
    times = do_bench(lambda: calls.append(1), warmup=1, rep=2, return_mode="all")
    assert len(times) >= 3
    assert len(calls) > len(times)
    assert do_bench(lambda: None, warmup=0, rep=0, quantiles=[0.5]) >= 0
    low, high = do_bench(lambda: None, warmup=0, rep=1, quantiles=[0.0, 1.0])
    assert low <= high
    with pytest.raises(ValueError, match="min, max, mean, median, all"):
        do_bench(lambda: None, return_mode="average")


def test_importing_triton_loads_no_compiler_and_plain_inductor_stays_cpp() -> None:
    program = """
import sys, triton
import torch, torch._inductor.config
assert not {"llvmlite", "mlir", "torchport.compile"} & set(sys.modules), "heavy imports"
assert torch._inductor.config.cpu_backend == "cpp"
from torch.utils._triton import triton_backend
triton_backend().parse_options({})
assert "llvmlite" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

"""Triton's runtime on CPU tensors: autotuning, heuristics, warm-up, compilation, hooks, caches, timing, threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget


@triton.jit
def add_one(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)


def quick(call: Any, quantiles: Any) -> Any:
    return triton.testing.do_bench(call, warmup=1, rep=1, quantiles=quantiles)


def grid(meta: dict[str, Any]) -> tuple[int, ...]:
    return (triton.cdiv(meta["n"], meta["BLOCK"]),)


CONFIGS = [triton.Config({"BLOCK": 32}), triton.Config({"BLOCK": 128}, num_warps=8, num_stages=4)]


@pytest.mark.parametrize("keywords", [False, True])
def test_autotuning_restores_arguments(keywords: bool) -> None:
    tuned = triton.autotune(configs=CONFIGS, key=["n"], restore_value=["x"], do_bench=quick)(add_one)
    x = torch.zeros(1000)
    for _ in range(2):
        if keywords:
            tuned[grid](x=x, n=1000)
        else:
            tuned[grid](x, 1000)
    assert torch.equal(x, torch.full((1000,), 2.0))
    assert len(tuned.cache) == 1
    assert tuned.best_config in CONFIGS


def test_autotuning_resets_to_zero() -> None:
    tuned = triton.autotune(configs=CONFIGS, key=["n"], reset_to_zero=["x"])(add_one)
    x = torch.full((1000,), 7.0)
    tuned[grid](x, 1000)
    assert torch.equal(x, torch.ones(1000))


def test_autotuning_keys_and_dtypes() -> None:
    tuned = triton.autotune(configs=CONFIGS, key=["n"], do_bench=quick)(add_one)
    for n, dtype in ((100, torch.float32), (101, torch.float32), (100, torch.float64), (100, torch.float32)):
        tuned[grid](torch.zeros(n, dtype=dtype), n)
    assert len(tuned.cache) == 3


def test_hooks_of_the_autotuner_and_of_configurations() -> None:
    depth, calls = 0, []

    def before(arguments: dict[str, Any], reset_only: bool = False) -> None:
        nonlocal depth
        depth += not reset_only  # the run after tuning resets arguments, and has no hook after it

    def after(arguments: dict[str, Any], exception: Exception | None) -> None:
        nonlocal depth
        depth -= 1
        assert exception is None
        assert depth == 0

    configs = [
        triton.Config({"BLOCK": b}, pre_hook=lambda arguments: calls.append(arguments["BLOCK"])) for b in (32, 64)
    ]
    decorate = triton.autotune(configs=configs, key=["n"], do_bench=quick, pre_hook=before, post_hook=after)
    decorate(add_one)[grid](torch.zeros(100), 100)
    assert {32, 64} <= set(calls)
    assert depth == 0


@pytest.mark.parametrize("model", [False, True])
def test_pruning(model: bool) -> None:
    seen: dict[str, Any] = {}

    def early(configs: list[triton.Config], named: dict[str, Any], **rest: Any) -> list[triton.Config]:
        seen.update(named, **rest)
        return configs[1:]

    def performance(**arguments: Any) -> float:
        return -float(arguments["BLOCK"])

    prune = {"perf_model": performance, "top_k": 1} if model else {"early_config_prune": early}
    tuned = triton.autotune(configs=CONFIGS, key=["n"], prune_configs_by=prune, do_bench=quick)(add_one)
    x = torch.zeros(100)
    tuned[grid](x, n=100)
    assert tuned.best_config == CONFIGS[1]
    assert model or (seen["x"] is x and seen["n"] == 100)


@triton.autotune(configs=[triton.Config({"BLOCK": 64})], key=["n"])
@triton.heuristics({"EVEN": lambda arguments: arguments["n"] % arguments["BLOCK"] == 0})
@triton.jit
def heuristic(x, n, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, 2.0 if EVEN else 1.0, mask=i < n)


@pytest.mark.parametrize("n, value", [(128, 2.0), (100, 1.0)])
def test_heuristics(n: int, value: float) -> None:
    x = torch.zeros(n)
    heuristic[grid](x, n)
    assert torch.equal(x, torch.full((n,), value))


def test_warmup_compiles_and_does_not_run() -> None:
    x = torch.zeros(100)
    compiled = add_one.warmup(x, 100, BLOCK=64, grid=(2,))
    assert torch.equal(x, torch.zeros(100))
    by_dtype = add_one.warmup(torch.float32, 100, BLOCK=64, grid=(2,))
    assert by_dtype is compiled
    compiled[(2, 1, 1)](x, 100, 64)
    assert torch.equal(x, torch.ones(100))


SIGNATURE = {"x": "*fp32", "n": "i32", "BLOCK": "constexpr"}


@pytest.mark.cpu_only("its stages are those of the CPU target")
def test_compiling_source_and_ir(tmp_path: Path) -> None:
    source = triton.compiler.ASTSource(fn=add_one, signature=SIGNATURE, constexprs={"BLOCK": 64})
    compiled = triton.compile(source)
    x = torch.zeros(100)
    compiled[(2, 1, 1)](x, 100, 64)
    assert torch.equal(x, torch.ones(100))
    assert compiled.metadata.target == GPUTarget("cpu", triton.runtime.driver.active.get_current_target().arch, 1)
    assert {"ttir", "llir", "obj"} <= set(compiled.asm)
    path = tmp_path / "add_one.ttir"
    path.write_text(compiled.asm["ttir"].replace("1.000000e+00", "5.000000e+00"))
    triton.compile(str(path))[(2, 1, 1)](x, 100)
    assert torch.equal(x, torch.full((100,), 6.0))


@pytest.mark.cpu_only("its stages are those of the CPU target")
def test_intermediate_text_survives_the_cache() -> None:
    """What ``asm`` holds does not depend on whether torchport's own cache knew the kernel."""

    def fresh() -> Any:
        @triton.jit
        def kernel(x, BLOCK: tl.constexpr):
            tl.store(x + tl.arange(0, BLOCK), 41.5)

        return kernel

    first = fresh().warmup(torch.float32, BLOCK=64, grid=(1,))
    second = fresh().warmup(torch.float32, BLOCK=64, grid=(1,))
    assert "define" in first.asm["llir"]
    assert second.asm["llir"] == first.asm["llir"]


def test_launch_hooks_and_metadata() -> None:
    entered, left = [], []

    def describe(grid: tuple[int, ...], kernel: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"grid": grid, "value": arguments["n"]}

    @triton.jit(launch_metadata=describe)
    def kernel(n):
        pass

    def enter(metadata: Any) -> None:
        entered.append(metadata.get())

    def leave(metadata: Any) -> None:
        left.append(metadata.get()["name"])

    knobs.runtime.launch_enter_hook.add(enter)
    knobs.runtime.launch_exit_hook.add(leave)
    try:
        kernel[(1, 3, 2)](6)
    finally:
        knobs.runtime.launch_enter_hook.remove(enter)
        knobs.runtime.launch_exit_hook.remove(leave)
    assert [(e["grid"], e["value"], e["name"]) for e in entered] == [((1, 3, 2), 6, "kernel")]
    assert left == ["kernel"]


def test_load_and_compile_hooks() -> None:
    loads, compiles = [], []

    @triton.jit
    def kernel(n):
        pass

    def start(module: Any, function: Any, name: str, metadata: Any, hash: str) -> None:
        loads.append(("start", name, hash))

    def end(module: Any, function: Any, name: str, metadata: Any, hash: str) -> None:
        loads.append(("end", name, hash))

    def compiled(**arguments: Any) -> None:
        compiles.append(arguments["compile"])

    knobs.runtime.kernel_load_start_hook.add(start)
    knobs.runtime.kernel_load_end_hook.add(end)
    knobs.runtime.jit_post_compile_hook = compiled
    try:
        kernel[(1,)](3)
        kernel[(1,)](3, num_warps=1)
    finally:
        knobs.runtime.kernel_load_start_hook.remove(start)
        knobs.runtime.kernel_load_end_hook.remove(end)
        knobs.runtime.jit_post_compile_hook = None
    assert [kind for kind, _, _ in loads] == ["start", "end"] * 2
    assert {name for _, name, _ in loads} == {"kernel"}
    assert len(compiles) == 2
    assert compiles[1]["num_warps"] == 1


@pytest.mark.cpu_only("another target is a Triton device of its own")
def test_kernel_caches_follow_the_device_of_torch() -> None:
    @triton.jit
    def kernel(x, n: tl.int32):
        tl.store(x, n)

    x = torch.zeros(1, dtype=torch.int32)
    for n in (1, 8, 16, 17):
        kernel[(1,)](x, n)
        assert x.item() == n
    assert len(kernel.device_caches[torch.cpu.current_device()][0]) == 3


def test_specialisation_off() -> None:
    @triton.jit(do_not_specialize=["n"])
    def kernel(x, n):
        tl.store(x, n)

    x = torch.zeros(1, dtype=torch.int32)
    for n in (1, 8, 16, 17):
        kernel[(1,)](x, n)
        assert x.item() == n
    assert sum(len(cache[0]) for cache in kernel.device_caches.values()) == 1


def test_globals_that_change_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ANSWER", tl.constexpr(42))

    @triton.jit
    def kernel(x):
        tl.store(x, ANSWER)  # noqa: F821

    x = torch.zeros(1, dtype=torch.int32)
    kernel[(1,)](x)
    assert x.item() == 42
    monkeypatch.setitem(globals(), "ANSWER", tl.constexpr(43))
    with pytest.raises(RuntimeError, match="ANSWER"):
        kernel[(1,)](x)


def test_preloading_serialised_kernels() -> None:
    found: list[str] = []

    def remember(**arguments: Any) -> None:
        found.append(arguments["compile"]["specialization_data"])

    knobs.runtime.jit_cache_hook = remember
    try:
        compiled = add_one.warmup(torch.float64, 100, BLOCK=16, grid=(1,))
    finally:
        knobs.runtime.jit_cache_hook = None
    for cache in add_one.device_caches.values():
        cache[0].clear()
    assert add_one.preload(found[0]).hash == compiled.hash


@pytest.mark.parametrize("options", [{"num_warps": 3}, {"num_warps": 0}])
def test_impossible_options(options: dict[str, int]) -> None:
    with pytest.raises(AssertionError, match="power of 2"):
        add_one[(1,)](torch.zeros(16), 16, BLOCK=16, **options)


def test_unknown_options_are_named() -> None:
    with pytest.raises(KeyError, match="num_wraps"):
        add_one[(1,)](torch.zeros(16), 16, BLOCK=16, num_wraps=4)


def test_do_bench() -> None:
    x = torch.zeros(2**20)

    def call() -> None:
        add_one[(2**10,)](x, 2**20, BLOCK=1024)

    call()
    mean = triton.testing.do_bench(call, warmup=2, rep=10)
    low, median, high = triton.testing.do_bench(call, warmup=2, rep=10, quantiles=[0.2, 0.5, 0.8])
    assert 0 < low <= median <= high
    assert 1e-3 < mean < 1e3  # milliseconds: a pass over 8 MiB
    assert all(time > 0 for time in triton.testing.do_bench(call, warmup=2, rep=10, return_mode="all"))


def test_grids_sized_by_what_fits_on_the_device() -> None:
    """As persistent kernels do on GPUs: as many programs as registers and shared memory leave room for."""
    driver = triton.runtime.driver.active
    properties = driver.utils.get_device_properties(driver.get_active_torch_device().index)
    compiled = add_one.warmup(torch.float32, 1000, BLOCK=128, grid=(1,))
    compiled._init_handles()
    fits = min(
        properties["max_num_regs"] // (compiled.n_regs * properties["warpSize"] * compiled.metadata.num_warps),
        properties["max_shared_mem"] // compiled.metadata.shared,
    )
    x = torch.zeros(1000)
    compiled[(min(fits * properties["multiprocessor_count"], 8), 1, 1)](x, 1000, 128)
    assert torch.equal(x, torch.ones(1000))


@pytest.mark.cpu_only("it asks for the name of the device")
def test_events_of_the_device_interface() -> None:
    interface = triton.runtime.driver.active.get_device_interface()
    start, end = interface.Event(enable_timing=True), interface.Event(enable_timing=True)
    start.record()
    torch.randn(10**6)
    end.record()
    interface.synchronize()
    assert start.elapsed_time(end) > 0
    assert interface.current_device() == triton.runtime.driver.active.get_current_device()


def test_threads_compile_and_launch_together() -> None:
    @triton.jit
    def kernel(x, out, n, SCALE: tl.constexpr, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + i, tl.load(x + i, mask=i < n) * SCALE, mask=i < n)

    failures: list[str] = []

    def work(seed: int) -> None:
        x = torch.randn(5000, generator=torch.Generator().manual_seed(seed))
        for turn in range(20):
            scale = 2 + (seed + turn) % 5
            out = torch.empty_like(x)
            kernel[(triton.cdiv(5000, 256),)](x, out, 5000, SCALE=scale, BLOCK=256)
            if not torch.equal(out, x * scale):
                failures.append(f"thread {seed}, turn {turn}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_errors_in_threads_are_their_own() -> None:
    @triton.jit(debug=True)
    def kernel(x, limit):
        tl.device_assert(tl.load(x) < limit, "over the limit")

    raised: list[str] = []

    def work() -> None:
        try:
            kernel[(4,)](torch.tensor([9]), 5)
        except RuntimeError as error:
            raised.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    kernel[(4,)](torch.tensor([1]), 5)
    for thread in threads:
        thread.join()
    assert len(raised) == 4
    assert all("over the limit" in text for text in raised)


@triton.jit
def wait_for(flag, out):
    while tl.load(flag, volatile=True) == 0:
        pass
    tl.store(out, tl.load(flag) + 1)


@pytest.mark.cpu_only("a device with memory of its own does not see what the host writes meanwhile")
def test_a_waiting_kernel_lets_other_threads_run() -> None:
    flag, out = torch.ones(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    wait_for[(1,)](flag, out)
    flag.zero_()
    out.zero_()
    thread = threading.Thread(target=lambda: wait_for[(1,)](flag, out))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    flag.fill_(6)
    thread.join(60)
    assert out.item() == 7


def test_tensors_of_another_device_are_refused() -> None:
    with pytest.raises((ValueError, RuntimeError), match=r"CPU memory|meta"):
        add_one[(1,)](torch.zeros(16, device="meta"), 16, BLOCK=16)

"""Copies of tensors on a device with memory of its own: when they are made, used again and given back."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
import torch
from fake_device import FakeMemory, binary, driver, floats

from torchport.errors import DeviceMemoryError, KernelAssertionError, TargetError
from torchport.runtime.devices import DeviceDriver, invalidate


def scale(grid: Any, x: Any, x_at: int, y: Any, y_at: int, n: int, factor: float) -> None:
    floats(y, y_at, n)[:] = floats(x, x_at, n) * np.float32(factor)


class Scaling:
    """y[:n] = x[:n] * factor, on a new device."""

    def __init__(self, access: tuple[str, str] = ("r", "w"), **options: Any) -> None:
        self.memory = FakeMemory(options.pop("room", 1 << 30))
        self.driver: DeviceDriver = driver({"scale": scale}, self.memory, **options)
        made = binary("scale", [*access, "", ""])
        self.launcher, self.function = self.driver.load(made, ["*fp32", "*fp32", "i32", "fp32"])

    def __call__(self, x: Any, y: Any, n: int, factor: float = 2.0) -> None:
        self.launcher.bind(1, 1, 1, self.function)(x, y, n, factor)

    def copies(self) -> list[tuple[str, int]]:
        done = list(self.memory.log)
        self.memory.log.clear()
        return done


def test_what_is_there_already_is_not_copied() -> None:
    run = Scaling()
    x, y = torch.randn(100), torch.zeros(100)
    run(x, y, 100)
    assert torch.equal(y, x * 2)
    assert run.copies() == [("upload", 400), ("upload", 400), ("download", 400)]  # y: a kernel may write a part of it
    run(x, y, 100, 3.0)
    assert torch.equal(y, x * 3)
    assert run.copies() == [("download", 400)]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.add_(1),
        lambda x: x[3:5].fill_(7),
        lambda x: x.detach().mul_(2),
        lambda x: x.data.mul_(1.5),  # no counter moves: the sample sees it
        lambda x: x.untyped_storage().fill_(1),
    ],
    ids=["in place", "view", "detached", "data", "storage"],
)
def test_changes_are_copied(change: Any) -> None:
    run = Scaling()
    x, y = torch.randn(1000), torch.zeros(1000)
    run(x, y, 1000)
    run.copies()
    change(x)
    run(x, y, 1000)
    assert torch.equal(y, x * 2)
    assert run.copies() == [("upload", 4000), ("download", 4000)]


def test_what_a_sample_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Scaling()
    x, y = torch.randn(4096), torch.zeros(4096)
    run(x, y, 4096)
    stale = y.clone()
    x.data[3] = 9.0  # not among the words that are looked at: the documented limit
    run(x, y, 4096)
    assert torch.equal(y, stale)
    invalidate(x)
    run(x, y, 4096)
    assert torch.equal(y, x * 2)
    monkeypatch.setenv("TORCHPORT_DEVICE_CHECK", "all")
    run(x, y, 4096)
    x.data[5] = 11.0
    run(x, y, 4096)
    assert torch.equal(y, x * 2)


def test_invalidate_takes_modules() -> None:
    run = Scaling()
    module = torch.nn.Linear(64, 64)
    y = torch.zeros(64 * 64)
    run(module.weight, y, 64 * 64)
    module.weight.data[0, 1] = 5.0
    invalidate(module)
    run(module.weight, y, 64 * 64)
    assert torch.equal(y, (module.weight.detach() * 2).flatten())


def test_tensors_without_a_counter_are_always_copied() -> None:
    run = Scaling()
    with torch.inference_mode():
        x = torch.randn(100)
    y = torch.zeros(100)
    for _ in range(2):
        run.copies()
        run(x, y, 100)
        assert ("upload", 400) in run.copies()


def test_views_share_a_copy_and_keep_their_surroundings() -> None:
    run = Scaling()
    base = torch.arange(10.0)
    run(base[2:5], base[6:9], 3)
    assert base.tolist() == [0, 1, 2, 3, 4, 5, 4, 6, 8, 9]
    assert run.copies() == [("upload", 40), ("download", 40)]


def test_overlapping_tensors() -> None:
    run = Scaling()
    base = torch.ones(10)
    run(base[:4], base[2:], 4)
    assert base.tolist() == [1, 1, 2, 2, 2, 2, 1, 1, 1, 1]
    run(base[2:], base[:4], 4)
    assert base.tolist() == [4, 4, 4, 4, 2, 2, 1, 1, 1, 1]


def test_none_empty_and_zero_dimensional() -> None:
    seen: list[Any] = []
    memory = FakeMemory()
    made = driver({"look": lambda grid, *args: seen.append(args)}, memory)
    launcher, function = made.load(binary("look", ["r", "r", "r"]), ["*fp32", "*i64", "*fp64"])
    launcher.bind(1, 1, 1, function)(None, torch.empty(0, dtype=torch.int64), torch.tensor(2.5, dtype=torch.float64))
    none, none_at, empty, empty_at, scalar, scalar_at = seen[0]
    assert (none, none_at, empty_at, scalar_at) == (None, 0, 0, 0)
    assert empty is not None
    assert scalar[:8].view(np.float64)[0] == 2.5


def test_empty_grids_run_nothing_and_large_ones_are_refused() -> None:
    run = Scaling()
    y = torch.zeros(4)
    run.launcher.bind(0, 1, 1, run.function)(y, y, 4, 2.0)
    assert run.copies() == []
    with pytest.raises(TargetError, match=r"kernel scale: the device runs grids up to \(65535, 65535, 65535\)"):
        run.launcher.bind(65536, 1, 1, run.function)(y, y, 4, 2.0)


@pytest.mark.parametrize(
    ("type_", "value", "passed"),
    [
        ("i1", True, 1), ("i8", -128, -128), ("i8", 255, -1), ("i16", 3, 3), ("i32", 2**31 - 1, 2**31 - 1),
        ("i32", 2**32 - 1, -1), ("i64", -(2**63), -(2**63)), ("u8", -1, 255), ("u64", 2**64 - 1, 2**64 - 1),
        ("i32", True, 1), ("i32", np.int64(7), 7), ("fp16", 1 + 2**-11, 1.0), ("bf16", 1 + 2**-9, 1.0),
        ("fp32", 0.1, float(np.float32(0.1))), ("fp32", 1e300, float("inf")), ("fp64", 0.1, 0.1), ("fp32", 3, 3.0),
        ("i32", torch.tensor(5), 5),
    ],
)  # fmt: skip
def test_scalars(type_: str, value: Any, passed: Any) -> None:
    seen: list[Any] = []
    made = driver({"look": lambda grid, *args: seen.append(args)}, FakeMemory())
    launcher, function = made.load(binary("look", [""]), [type_])
    launcher.bind(1, 1, 1, function)(value)
    assert seen[0] == (passed,)


@pytest.mark.parametrize(
    ("type_", "value", "error", "says"),
    [
        ("i32", 2**32, OverflowError, "kernel look, argument 0: 4294967296 is no i32"),
        ("i8", -129, OverflowError, "does not fit 8 bits"),
        ("i64", 2**64, OverflowError, "does not fit 64 bits"),
        ("i32", 1.5, TypeError, "1.5 is no i32"),
        ("fp32", "x", ValueError, "'x' is no fp32"),
        ("fp16", 1e6, OverflowError, "no fp16"),
        ("*fp32", 4096, TypeError, "takes CPU tensors, not addresses"),
        ("*fp32", torch.empty(1, device="meta"), ValueError, "1 elements and no memory"),
    ],
)
def test_bad_arguments(type_: str, value: Any, error: type[Exception], says: str) -> None:
    made = driver({"look": lambda grid, *args: None}, FakeMemory())
    launcher, function = made.load(binary("look", ["" if type_[0] != "*" else "r"]), [type_])
    with pytest.raises(error, match=says):
        launcher.bind(1, 1, 1, function)(value)


def test_constexprs_and_tuples() -> None:
    seen: list[Any] = []
    made = driver({"look": lambda grid, *args: seen.append(args)}, FakeMemory())
    launcher, function = made.load(binary("look", ["", "", ""]), ["constexpr", ("i32", "constexpr", ("i64",)), "i8"])
    launcher(1, 1, 1, None, function, None, None, None, None, 9, (1, 9, (2,)), 3)
    assert seen == [(1, 2, 3)]


def test_hooks() -> None:
    called: list[Any] = []
    made = driver({"look": lambda grid, *args: called.append("run")}, FakeMemory())
    launcher, function = made.load(binary("look", []), [])
    launcher(1, 1, 1, None, function, None, "about", lambda m: called.append(("in", m)), lambda m: called.append("out"))
    assert called == [("in", "about"), "run", "out"]


def test_copies_of_tensors_that_are_gone_are_given_back() -> None:
    run = Scaling()
    y = torch.zeros(1000)
    for _ in range(8):
        run(torch.randn(1000), y, 1000)
        gc.collect(1)  # young objects: a look through all of PyTorch's takes most of a second
        run.driver.mirrors.sweep()
    assert run.memory.used <= 3 * 4096  # one for y, one or two for all of x
    assert len(run.driver.mirrors) == 1


def test_a_storage_at_the_address_of_one_that_is_gone() -> None:
    run = Scaling()
    y = torch.zeros(64)
    for value in range(100):
        x = torch.full((64,), float(value))
        run(x, y, 64)
        assert torch.equal(y, x * 2)
        del x


def test_resized_storages() -> None:
    run = Scaling()
    x, y = torch.ones(4), torch.zeros(64)
    run(x, y, 4)
    x.resize_(64).fill_(3)
    run(x, y, 64)
    assert torch.equal(y, torch.full((64,), 6.0))


def test_unused_buffers_are_kept_up_to_a_limit() -> None:
    run = Scaling(pool_bytes=8192)
    y = torch.zeros(1000)
    for _ in range(10):
        tensors = [torch.randn(1000) for _ in range(4)]
        for x in tensors:
            run(x, y, 1000)
        del tensors, x
        run.driver.mirrors.sweep()
        assert run.driver.mirrors.pool.unused <= 8192


def test_a_full_device() -> None:
    run = Scaling(room=20_000)
    tensors = [torch.randn(1000) for _ in range(8)]  # 4096 bytes each on the device: four fit
    y = torch.zeros(1000)
    for _ in range(2):
        for x in tensors:
            run(x, y, 1000)
            assert torch.equal(y, x * 2)
    assert run.driver.mirrors.report().uploads["evicted"].copies > 0
    with pytest.raises(DeviceMemoryError, match="no room for 40,960 bytes"):
        run(torch.randn(10_000), y, 1000)
    run(tensors[0], y, 1000)
    assert torch.equal(y, tensors[0] * 2)


def test_failed_assertions_are_found_when_the_host_waits() -> None:
    def check(grid: Any, x: Any, x_at: int, status: Any) -> None:
        if floats(x, x_at, 1)[0] < 0:
            status[:4].view(np.int32)[0] = 2

    made = driver({"check": check}, FakeMemory())
    launcher, function = made.load(binary("check", ["r"], sites=["first", "x is negative"]), ["*fp32"])
    run = launcher.bind(1, 1, 1, function)
    run(torch.ones(1))
    with pytest.raises(KernelAssertionError, match="kernel check: device-side assertion failed: x is negative"):
        run(-torch.ones(1))
    run(torch.ones(1))


def test_devices_do_not_see_each_others_copies() -> None:
    first, second = Scaling(("r", "rw")), Scaling(("r", "rw"))
    x, y = torch.ones(100), torch.zeros(100)
    first(x, y, 100, 2.0)
    second(y, x, 100, 3.0)
    first(x, y, 100, 5.0)
    second(y, x, 100, 7.0)
    assert (y == 30).all() and (x == 210).all()


def test_threads() -> None:
    run = Scaling()
    shared = torch.ones(1000)
    wrong: list[str] = []

    def work(number: int) -> None:
        y = torch.zeros(1000)
        for step in range(50):
            run(shared, y, 1000, float(number + step))
            if not bool((y == number + step).all()):
                wrong.append(f"{number}, {step}")

    threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert run.copies().count(("upload", 4000)) == 5  # shared once, y of each thread once

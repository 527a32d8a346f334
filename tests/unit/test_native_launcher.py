"""The native launcher: arguments, grids, threads, assertions, hooks."""

from __future__ import annotations

import contextlib
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
import torch
from kernels import BLOCK, Kernel

from torchport.errors import KernelAssertionError
from torchport.runtime import _native
from torchport.runtime.launcher import Launcher, flatten_signature, uses_torch_openmp

HEAVY = 1e6  # ns a program: always worth every thread


def slots(signature: list[str], *values: object, **options: object) -> list[bytes]:
    """What the launcher stores for ``values``, slot by slot."""
    out = torch.zeros(len(signature), dtype=torch.int64)
    where = options.get("positions")
    shifted = None if where is None else [0, 1, *where]
    Kernel("slots", ["*i64", "i64", *signature], positions=shifted)(out, len(signature), *values)
    return [struct.pack("<q", v) for v in out.tolist()]


def chunks(threads: int, grid: tuple[int, int, int], **options: object) -> list[tuple[int, ...]]:
    """(begin, end, grid...) of every call the launcher makes with ``threads`` torch threads."""
    programs = grid[0] * grid[1] * grid[2]
    out = torch.full((max(programs, 1), 5), -1, dtype=torch.int64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        Kernel("chunks", ["*i64"], **options)(out, grid=grid)
    finally:
        torch.set_num_threads(before)
    return [tuple(row) for row in out.tolist() if row[0] >= 0]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 63, 64, 1000, 4096])
def test_vector_add(threads: int, n: int) -> None:
    x, y, out = torch.randn(n), torch.randn(n), torch.full((n + 1,), 7.0)
    torch.set_num_threads(threads)
    Kernel("vector_add", ["*fp32", "*fp32", "*fp32", "i32"], cost=HEAVY)(
        x, y, out, n, grid=((n + BLOCK - 1) // BLOCK, 1, 1)
    )
    assert torch.equal(out[:n], x + y)
    assert out[n] == 7.0


def test_chunks_are_contiguous_and_balanced() -> None:
    found = chunks(3, (5, 2, 1), cost=HEAVY)
    assert [(begin, end) for begin, end, *_ in found] == [(0, 3), (3, 6), (6, 10)]
    assert all(grid == [5, 2, 1] for _, _, *grid in found)


def test_one_call_where_work_is_small_serial_or_threads_are_one() -> None:
    whole = [(0, 8, 8, 1, 1)]
    assert chunks(4, (8, 1, 1), cost=1.0) == whole
    assert chunks(4, (8, 1, 1), cost=HEAVY, serial=True) == whole
    assert chunks(1, (8, 1, 1), cost=HEAVY) == whole
    assert len(chunks(4, (8, 1, 1), cost=HEAVY)) == 4


def test_empty_grid_calls_nothing() -> None:
    assert chunks(2, (0, 1, 1), cost=HEAVY) == []
    assert chunks(2, (4, 0, 1), cost=HEAVY) == []


def test_thread_count() -> None:
    count = _native.thread_count
    assert count(19_999, 100, 8) == 1
    assert count(20_000, 100, 8) == 2
    assert count(55_000, 100, 8) == 5
    assert count(1e12, 100, 8) == 8
    assert count(1e12, 3, 8) == 3
    assert count(1e12, 1, 8) == 1


def test_runs_on_torchs_own_threads() -> None:
    assert uses_torch_openmp() == torch.backends.openmp.is_available()


def test_thread_limit_holds_on_a_new_python_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = torch.full((4, 5), -1, dtype=torch.int64)
    kernel = Kernel("chunks", ["*i64"], cost=HEAVY)
    worker = threading.Thread(target=lambda: kernel(out, grid=(4, 1, 1)))
    worker.start()
    worker.join()
    torch.set_num_threads(before)
    assert out[0].tolist() == [0, 4, 4, 1, 1]


def test_launches_from_many_python_threads() -> None:
    kernel = Kernel("vector_add", ["*fp32", "*fp32", "*fp32", "i32"], cost=HEAVY)
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = torch.full((1000,), float(seed))
        for _ in range(50):
            out = torch.zeros(1000)
            kernel(x, x, out, 1000, grid=(16, 1, 1))
            if not torch.equal(out, x + x):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_integers_are_wrapped_to_their_width() -> None:
    assert slots(["i8", "i32", "i64", "u8", "u64"], 200, 2**31 + 5, -1, 511, 2**64 - 2) == [
        struct.pack("<q", 200 - 256),
        struct.pack("<q", 5 - 2**31),
        struct.pack("<q", -1),
        struct.pack("<q", 255),
        struct.pack("<Q", 2**64 - 2),
    ]
    assert slots(["i1", "i1", "i32"], True, False, True) == [struct.pack("<q", v) for v in (1, 0, 1)]


def test_floats() -> None:
    found = slots(["fp32", "fp64", "fp16", "bf16"], 0.1, 0.1, 0.1, 0.1)
    assert found[0][:4] == struct.pack("<f", 0.1)
    assert found[1] == struct.pack("<d", 0.1)
    assert found[2][:2] == struct.pack("<e", 0.1)
    expected = torch.tensor(0.1, dtype=torch.bfloat16).view(torch.int16).item()
    assert found[3][:2] == struct.pack("<h", expected)
    assert slots(["fp32"], 3)[0][:4] == struct.pack("<f", 3.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 1e-45, 3.3895e38])
def test_bf16_rounds_as_torch_does(value: float) -> None:
    expected = torch.tensor(value, dtype=torch.float32).to(torch.bfloat16)
    got = struct.unpack("<h", slots(["bf16"], value)[0][:2])[0]
    result = torch.tensor(got, dtype=torch.int16).view(torch.bfloat16)
    assert torch.equal(result, expected) or (result.isnan() and expected.isnan())
    assert result.signbit() == expected.signbit() or expected.isnan()


def test_pointers() -> None:
    class Wrapped:
        def data_ptr(self) -> int:
            return 4096

    base = torch.randn(10)
    parameter = torch.nn.Parameter(base[3:])
    odd = torch.zeros(4, dtype=torch.float8_e5m2)
    values = [base[2:], parameter, odd, Wrapped(), None, 64, torch.empty(0)]
    expected = [base[2:].data_ptr(), parameter.data_ptr(), odd.data_ptr(), 4096, 0, 64, values[-1].data_ptr()]
    assert slots(["*fp32"] * 7, *values) == [struct.pack("<Q", v) for v in expected]


def test_constexprs_are_skipped_and_tuples_flattened() -> None:
    types = ["constexpr", "i32", ("i64", "constexpr", ("i32",)), "i32"]
    signature, positions = flatten_signature(types)
    assert (signature, positions) == (["i32", "i64", "i32", "i32"], [1, (2, 0), (2, 2, 0), 3])
    moved = [p + 2 if isinstance(p, int) else (p[0] + 2, *p[1:]) for p in positions]
    found = slots(signature, "unused", 1, (2, "unused", (3,)), 4, positions=moved)
    assert found == [struct.pack("<q", v) for v in (1, 2, 3, 4)]


def test_more_arguments_than_fit_the_stack() -> None:
    assert slots(["i32"] * 200, *range(200)) == [struct.pack("<q", v) for v in range(200)]


@pytest.mark.parametrize("threads", [1, 4])
def test_assertion_failure(threads: int) -> None:
    torch.set_num_threads(threads)
    kernel = Kernel("asserting", ["*i64", "i64"], cost=HEAVY)
    out = torch.zeros(8, dtype=torch.int64)
    with pytest.raises(
        KernelAssertionError, match="kernel asserting: device-side assertion failed: index out of bounds: tmp4"
    ):
        kernel(out, 3, grid=(8, 1, 1))
    assert out[:2].tolist() == [1, 2]
    assert (out[3:] == 0).all()
    kernel(out, 8, grid=(8, 1, 1))  # and the launcher works on
    assert out.tolist() == list(range(1, 9))


def test_hooks_are_called_around_the_launch() -> None:
    seen: list[object] = []
    out = torch.zeros(5, dtype=torch.int64)
    kernel = Kernel("chunks", ["*i64"])
    kernel(out, hooks=(lambda m: seen.append(("enter", m, out[1].item())), lambda m: seen.append(("exit", m))))
    assert seen == [("enter", "metadata", 0), ("exit", "metadata")]


def test_a_failing_hook_is_reported() -> None:
    def fail(metadata: object) -> None:
        raise KeyError("hook")

    with pytest.raises(KeyError, match="hook"):
        Kernel("chunks", ["*i64"])(torch.zeros(5, dtype=torch.int64), hooks=(fail, None))


def test_bad_calls() -> None:
    out = torch.zeros(5, dtype=torch.int64)
    kernel = Kernel("chunks", ["*i64", "i32"])
    with pytest.raises(TypeError, match="kernel chunks: 1 arguments given, 2 needed"):
        kernel(out)
    with pytest.raises(TypeError, match="kernel chunks, argument 1"):
        kernel(out, "three")
    with pytest.raises(AttributeError, match=r"kernel chunks, argument 0.*data_ptr"):
        kernel("nothing", 3)
    with pytest.raises(ValueError, match="grid size -1"):
        kernel(out, 3, grid=(-1, 1, 1))
    with pytest.raises(ValueError, match="not loaded"):
        kernel.launcher(1, 1, 1, 0, 0, None, None, None, None, out, 3)
    with pytest.raises(TypeError, match="no keyword arguments"):
        kernel.launcher(1, 1, 1, 0, kernel.code.address, None, None, None, None, out, n=3)
    with pytest.raises(ValueError, match="argument 0: the tensor is on the meta device and has no memory"):
        kernel(torch.empty(3, device="meta"), 3)


def test_bound_to_a_grid() -> None:
    """Called with the arguments alone; the launcher it came from stays as it was."""
    kernel = Kernel("vector_add", ["*fp32", "*fp32", "*fp32", "i32"])
    x, y, out, again = torch.randn(1000), torch.nn.Parameter(torch.randn(1000)), torch.zeros(1000), torch.zeros(1000)
    bound = kernel.launcher.bind(-(-1000 // BLOCK), 1, 1, kernel.code.address)
    assert bound.name == kernel.launcher.name
    bound(x, y, out, 1000)
    assert torch.equal(out, x + y)
    kernel(x, y, again, 1000, grid=(-(-1000 // BLOCK), 1, 1))
    assert torch.equal(out, again)
    with pytest.raises(TypeError, match="3 arguments given, 4 needed"):
        bound(x, y, out)
    with pytest.raises(TypeError, match="bind"):
        kernel.launcher.bind(1, 1, 1)
    with pytest.raises(ValueError, match="grid size -1"):
        kernel.launcher.bind(-1, 1, 1, kernel.code.address)
    with pytest.raises(ValueError, match="not loaded"):
        kernel.launcher.bind(1, 1, 1, 0)


def test_bound_and_without_storage() -> None:
    """torch's own complaint about a tensor that has no address becomes an exception, not an abort."""
    kernel = Kernel("slots", ["*i64", "i64"])
    with pytest.raises(RuntimeError, match="kernel slots, argument 0"):
        kernel.launcher.bind(1, 1, 1, kernel.code.address)(torch.eye(3).to_sparse(), 2)


def test_bad_signatures() -> None:
    with pytest.raises(ValueError, match="argument 1 has type tensordesc"):
        Launcher("k", ["i32", "tensordesc<fp32[4]>"], [0, 1], 1.0, False)
    with pytest.raises(ValueError, match="1 types for 2 positions"):
        Launcher("k", ["i32"], [0, 1], 1.0, False)
    with pytest.raises(ValueError, match="not negative"):
        Launcher("k", ["i32"], [-1], 1.0, False)


class Stop(Exception):
    """What a signal's handler raises."""


@contextlib.contextmanager
def alarm(handler: Callable[[int, FrameType | None], None], seconds: float = 0.1) -> Iterator[None]:
    """Call ``handler`` once, as the handler of a signal that comes in ``seconds``."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cost", [1e6, 2e3], ids=["long", "underestimated"])
@pytest.mark.parametrize("serial", [False, True])
def test_a_signal_ends_a_long_launch(threads: int, cost: float, serial: bool) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stop

    torch.set_num_threads(threads)
    kernel = Kernel("counting", ["*i64", "i64"], cost=cost, serial=serial)
    out = torch.zeros(10_000, dtype=torch.int64)
    with alarm(stop), pytest.raises(Stop):
        kernel(out, 3_000_000, grid=(10_000, 1, 1))  # milliseconds each
    assert (out > 0).any() and not out.all()
    kernel(out, 1, grid=(10_000, 1, 1))
    assert torch.equal(out, torch.arange(1, 10_001))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_signal_whose_handler_returns_lets_the_launch_go_on(threads: int) -> None:
    torch.set_num_threads(threads)
    kernel = Kernel("counting", ["*i64", "i64"], cost=1e6)
    inner, out = torch.zeros(64, dtype=torch.int64), torch.zeros(1000, dtype=torch.int64)
    finished: list[int] = []

    def look(number: int, frame: FrameType | None) -> None:
        kernel(inner, 1, grid=(64, 1, 1))  # a launch within the launch
        finished.append(int((out > 0).sum()))

    with alarm(look):
        kernel(out, 3_000_000, grid=(1000, 1, 1))  # seconds
    assert len(finished) == 1 and finished[0] < 1000
    assert torch.equal(out, torch.arange(1, 1001)) and torch.equal(inner, torch.arange(1, 65))


def test_long_chunks_run_in_parts_in_order() -> None:
    torch.set_num_threads(1)
    kernel = Kernel("chunks", ["*i64"], cost=1e6)
    out = torch.full((1000, 5), -1, dtype=torch.int64)
    kernel(out, grid=(1000, 1, 1))
    parts = [row[:2] for row in out.tolist() if row[0] >= 0]
    assert len(parts) > 1 and parts[0] == [0, 1] and parts[-1][1] == 1000
    assert [part[0] for part in parts[1:]] == [part[1] for part in parts[:-1]]


WITHOUT_OPENMP = """
import os, signal, sys, threading
import torch
torch.backends.openmp.is_available = lambda: False
sys.path.insert(0, sys.argv[1])
from kernels import Kernel
from torchport.errors import KernelAssertionError
from torchport.runtime.launcher import uses_torch_openmp
assert not uses_torch_openmp()
torch.set_num_threads(4)

def check():
    for programs in (2, 5, 16, 3, 64):
        out = torch.full((programs, 5), -1, dtype=torch.int64)
        Kernel("chunks", ["*i64"], cost=1e6)(out, grid=(programs, 1, 1))
        begins = [row for row in out.tolist() if row[0] >= 0]
        assert len(begins) == min(4, programs), begins
        assert [b[0] for b in begins[1:]] == [b[1] for b in begins[:-1]] and begins[-1][1] == programs
    out = torch.zeros(8, dtype=torch.int64)
    try:
        Kernel("asserting", ["*i64", "i64"], cost=1e6)(out, 3, grid=(8, 1, 1))
    except KernelAssertionError as error:
        assert "tmp4" in str(error)
    else:
        raise SystemExit("no assertion")

def stop(number, frame):
    kernel(torch.zeros(64, dtype=torch.int64), 1, grid=(64, 1, 1))  # must not wait for the pool
    raise KeyboardInterrupt

check()
kernel = Kernel("counting", ["*i64", "i64"], cost=1e6)
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    kernel(torch.zeros(10_000, dtype=torch.int64), 3_000_000, grid=(10_000, 1, 1))
except KeyboardInterrupt:
    check()
else:
    raise SystemExit("not interrupted")
workers = [threading.Thread(target=check) for _ in range(3)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
child = os.fork()
if child == 0:
    check()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_pool_of_its_own_where_torch_has_no_openmp() -> None:
    command = [sys.executable, "-c", WITHOUT_OPENMP, str(Path(__file__).parent)]
    subprocess.run(command, check=True, timeout=120)

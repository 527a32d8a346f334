"""The kernel sanitizer, unwritten memory and races: each fault planted, and every field of what is reported."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest
import torch
import triton
import triton.language as tl
from sanitizing import count, double, found, line_of, place, shifted

import torchport
from torchport.errors import KernelAssertionError, OptionError, SanitizerError
from torchport.runtime.sanitizer import active, mark_written

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's driver is the active one here")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(8, 8),
        lambda: torch.empty_like(torch.ones(8, 8)),
        lambda: torch.ones(2).new_empty(8, 8),
        lambda: torch.empty_strided((8, 8), (8, 1)),
        lambda: torch.ones(2).new_empty_strided((8, 8), (8, 1)),
    ],
)
def test_what_nothing_has_written(make: Callable[[], torch.Tensor]) -> None:
    def launch() -> None:
        x = make()
        x[:, :3] = 1
        torch.add(x[2], 1, out=x[1])
        x.view(64)[63:].fill_(2)
        double[(4,)](x, torch.empty(64), 64, BLOCK=16)

    (one,) = found(launch)
    assert (one.check, one.access, one.argument, one.program) == ("uninitialized", "load", "x", (0, 0, 0))
    assert (one.element, one.index, one.problem) == (3, (0, 3), "nothing has written it")
    assert (one.elements, one.programs) == (64 - 8 * 3 - 5 - 1, 4)


def test_what_kernels_write_is_written() -> None:
    def launch() -> None:
        x, y = torch.empty(64), torch.empty(64)
        double[(2,)](torch.ones(32), x, 32, BLOCK=16)
        shifted[(3,)](x, y, 0, BLOCK=16)

    (one,) = found(launch)
    assert (one.kernel, one.element, one.elements, one.program) == ("shifted", 32, 16, (2, 0, 0))


def test_unwritten_atomics_and_memory_that_comes_back() -> None:
    def launch() -> None:
        count[(1,)](torch.empty(4, dtype=torch.int32), torch.zeros(4, dtype=torch.int32), x, BLOCK=8)

    x = torch.tensor([0, 1, 1, 3, 3, 2, 0, 0])
    (one,) = found(launch)
    assert (one.check, one.access, one.argument, one.elements) == ("uninitialized", "atomic add", "bins", 4)
    with torchport.sanitize():
        del_me = torch.empty(4, dtype=torch.int32)
        address = del_me.data_ptr()
        del del_me
        again = [torch.zeros(4, dtype=torch.int32) for _ in range(100)]  # some of it where the other was
        for one in again:
            count[(1,)](one, torch.zeros(4, dtype=torch.int32), x, BLOCK=8)
        assert address  # the address is all that is left of it


def test_written_by_something_unseen() -> None:
    with torchport.sanitize():
        x = torch.empty(64)
        x.numpy()[:] = 1
        mark_written(x)
        double[(4,)](x, torch.empty(64), 64, BLOCK=16)


# ---- race


@triton.jit
def same_row(out, x, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + tl.program_id(0) * BLOCK + i))  # same row


def test_two_programs_write_one_element() -> None:
    (one,) = found(lambda: same_row[(2, 2)](torch.zeros(2, 8), torch.ones(2, 8), BLOCK=8))
    assert (one.check, one.access, one.argument) == ("race", "store", "out")
    assert (one.program, one.element, one.index) == ((1, 0, 0), 0, (0, 0))
    assert (one.elements, one.programs) == (8, 3)
    assert (one.other_access, one.other_program) == ("store", (0, 0, 0))
    assert place(one.frames[0]) == place(one.other_frames[0]) == line_of("same row", __file__)
    assert one.problem == "not ordered after the store there by program (0, 0, 0)"


@triton.jit
def in_place(x, n, shift, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    j = i + shift
    value = tl.load(x + j, mask=(j >= 0) & (j < n))  # neighbour
    tl.store(x + i, value, mask=i < n)  # own


@pytest.mark.parametrize(
    ("shift", "access", "line", "element"), [(1, "store", "own", 16), (-1, "load", "neighbour", 15)]
)
def test_one_program_reads_what_another_writes(shift: int, access: str, line: str, element: int) -> None:
    (one,) = found(lambda: in_place[(4,)](torch.zeros(64), 64, shift, BLOCK=16))
    assert (one.check, one.access, one.element, one.elements, one.programs) == ("race", access, element, 3, 3)
    assert place(one.frames[0]) == line_of(line, __file__)
    assert (one.program, one.other_program) == ((1, 0, 0), (0, 0, 0))
    assert place(one.other_frames[0]) == line_of("neighbour" if line == "own" else "own", __file__)
    with torchport.sanitize():
        in_place[(4,)](torch.zeros(64), 64, 0, BLOCK=16)  # each program its own


@triton.jit
def accumulate(total, lock, x, LOCKED: tl.constexpr, SEM: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    value = tl.load(x + tl.program_id(0) * BLOCK + i)
    if LOCKED:
        while tl.atomic_cas(lock, 0, 1, sem=SEM) == 1:
            pass
    tl.store(total + i, tl.load(total + i) + value)
    if LOCKED:
        tl.atomic_xchg(lock, 0, sem=SEM)


@pytest.mark.parametrize(
    ("locked", "sem", "races"), [(False, "acq_rel", 2), (True, "relaxed", 2), (True, "acq_rel", 0)]
)
def test_locks_order_what_they_guard(locked: bool, sem: str, races: int) -> None:
    x, total, lock = torch.randn(8, 16), torch.zeros(16), torch.zeros(1, dtype=torch.int32)

    def launch() -> None:
        accumulate[(8,)](total, lock, x, LOCKED=locked, SEM=sem, BLOCK=16)

    if races:
        findings = found(launch)
        assert [(f.check, f.access, f.elements) for f in findings] == [("race", "load", 16), ("race", "store", 16)]
    else:
        with torchport.sanitize():
            launch()
        torch.testing.assert_close(total, x.sum(0))


@triton.jit
def mixed(out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    if tl.program_id(0) == 0:
        tl.store(out + i, 0.0)
    tl.atomic_add(out + i, 1.0, sem="relaxed")  # mixed


def test_a_store_and_atomics_of_others() -> None:
    (one,) = found(lambda: mixed[(3,)](torch.zeros(8), BLOCK=8))
    assert (one.check, one.access, one.other_access, one.elements) == ("race", "atomic add", "store", 8)
    assert (one.program, place(one.frames[0])) == ((1, 0, 0), line_of("mixed", __file__))


@triton.jit
def unrolled(out):
    for i in tl.static_range(3):
        tl.store(out + i, tl.num_programs(0))  # unrolled


def test_copies_of_one_line_are_one_finding() -> None:
    (one,) = found(lambda: unrolled[(5,)](torch.zeros(3)))
    assert (one.elements, one.programs) == (3, 4)
    assert place(one.frames[0]) == line_of("unrolled", __file__)


# ---- all of them


def test_several_findings_come_in_the_order_of_the_text() -> None:
    def launch() -> None:
        double[(2,)](torch.empty(32), torch.empty(24), 32, BLOCK=16)

    assert [(f.check, f.access) for f in found(launch)] == [("uninitialized", "load"), ("address", "store")]
    assert [f.check for f in found(launch, "address")] == ["address"]
    assert [f.check for f in found(launch, "uninitialized", "address")] == ["uninitialized", "address"]


@triton.jit
def checked(x, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    value = tl.load(x + i)
    tl.device_assert(value > 0, "not positive")
    tl.store(out + i, value)


def test_findings_before_a_failed_assertion() -> None:
    def launch() -> None:
        checked[(1,)](torch.ones(15), torch.zeros(16), BLOCK=16, debug=True)

    with torchport.sanitize(), pytest.raises(SanitizerError, match="load of x, element 15") as caught:
        launch()
    assert isinstance(caught.value.__cause__, KernelAssertionError)


def test_threads_get_their_own_findings() -> None:
    results: dict[int, tuple[int, ...]] = {}

    def work(size: int) -> None:
        for _ in range(20):
            try:
                double[(8,)](torch.ones(size), torch.zeros(size), size, BLOCK=128)
            except SanitizerError as error:
                results[size] = tuple(f.element for f in error.findings)

    with torchport.sanitize("address", "race"):
        threads = [Thread(target=work, args=(size,)) for size in (1000, 1010, 1024)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {1000: (1000,), 1010: (1010,)}


def test_contexts() -> None:
    assert active() == ()
    with torchport.sanitize("race", "address"):
        assert active() == ("address", "race")
        with torchport.sanitize():
            assert active() == ("address", "uninitialized", "race")
        assert active() == ("address", "race")
    assert active() == ()
    with (
        pytest.raises(OptionError, match="one or more of address, extent, uninitialized, race"),
        torchport.sanitize("all"),
    ):
        pass

"""Memory of results that a graph uses again: only where nobody else can see it."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._inductor.utils import run_and_get_code

from torchport.program import kept
from torchport.program.kept import IDLE, Kept, Pool

SIZE, STRIDE = (6, 8), (8, 1)


def taken(pool: Pool, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return pool.empty(SIZE, STRIDE, dtype)


def test_memory_is_used_again_by_the_next_call() -> None:
    pool, seen = Pool(), []
    for _ in range(4):
        pool.begin()
        first, second = taken(pool), taken(pool)
        assert first.data_ptr() != second.data_ptr()
        assert first.shape == SIZE and first.is_contiguous() and first._version == 0 and first._base is None
        seen.append({first.data_ptr(), second.data_ptr()})
        del first, second
    assert len(set.union(*seen)) == 2
    assert pool.kept == 2 * 6 * 8 * 4


def test_memory_is_not_used_twice_in_a_call() -> None:
    pool = Pool()
    pool.begin()
    one = taken(pool)
    address = one.data_ptr()
    del one
    assert taken(pool).data_ptr() != address  # a kernel may still be given the first one's address


def test_strides_and_types_are_those_asked_for() -> None:
    pool = Pool()
    for dtype, stride in ((torch.float32, (8, 1)), (torch.int32, (8, 1)), (torch.float32, (1, 6))):
        pool.begin()
        found = pool.empty(SIZE, stride, dtype)
        assert (found.dtype, found.stride(), found.shape) == (dtype, stride, SIZE)


HOLDERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "the tensor": lambda one: one,
    "a view": lambda one: one[2:4].T,
    "detached": lambda one: one.detach(),
    "data": lambda one: one.data,
    "numpy": lambda one: one.numpy(),
    "DLPack": lambda one: torch.utils.dlpack.to_dlpack(one),
    "memory view": lambda one: memoryview(one.numpy()),
    "storage": lambda one: one.untyped_storage(),
    "saved for backward": lambda one: torch.ones(SIZE, requires_grad=True) * one,
    "parameter": lambda one: torch.nn.Parameter(one),
    "gradient of a leaf": lambda one: _with_gradient(one),
}


def _with_gradient(one: torch.Tensor) -> torch.Tensor:
    leaf = torch.zeros(SIZE, requires_grad=True)
    leaf.grad = one
    return leaf


@pytest.mark.parametrize("holder", HOLDERS)
def test_memory_that_somebody_holds_is_left_alone(holder: str) -> None:
    pool = Pool()
    for _ in range(3):  # also where it had been used again before
        pool.begin()
        one = taken(pool)
        del one
    pool.begin()
    one = taken(pool)
    address = one.data_ptr()
    held = HOLDERS[holder](one)
    del one
    for _ in range(3):
        pool.begin()
        other = taken(pool)
        assert other.data_ptr() != address
        del other
    assert pool.kept == 6 * 8 * 4
    del held


@pytest.mark.parametrize("change", ["shared with processes", "freed", "larger", "smaller"])
def test_memory_that_became_another_is_let_go(change: str) -> None:
    pool = Pool()
    pool.begin()
    one = taken(pool)
    storage = one.untyped_storage()
    if change == "shared with processes":
        one.share_memory_()
    else:
        storage.resize_({"freed": 0, "larger": 4 * storage.nbytes(), "smaller": 64}[change])
    address = one.data_ptr()
    del one, storage
    pool.begin()
    other = taken(pool)
    assert not other.is_shared()
    assert other.untyped_storage().nbytes() == 6 * 8 * 4
    assert not address or change == "smaller" or other.data_ptr() != address


def test_no_more_is_kept_than_the_limit() -> None:
    pool = Pool(most=3 * 6 * 8 * 4)
    for _ in range(2):
        pool.begin()
        several = [taken(pool) for _ in range(5)]
        assert len({one.data_ptr() for one in several}) == 5
        del several
    assert pool.kept == 3 * 6 * 8 * 4


def test_inference_mode_has_tensors_of_its_own() -> None:
    pool = Pool()
    pool.begin()
    with torch.inference_mode():
        assert taken(pool).is_inference()
    assert not taken(pool).is_inference()
    with torch.inference_mode():
        assert taken(pool).is_inference()


def test_memory_goes_with_the_pool() -> None:
    kept = Kept()
    assert kept(SIZE, STRIDE, torch.float32).shape == SIZE  # without a pool, too
    pool = kept.open()
    assert kept.open() is pool
    kept(SIZE, STRIDE, torch.float32)
    assert pool.kept
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert kept.open().kept == 0


def test_threads_never_have_the_same_memory() -> None:
    pool, wrong = Pool(), []

    def use(number: int) -> None:
        for _ in range(500):
            pool.begin()
            mine = [taken(pool) for _ in range(3)]
            for one in mine:
                one.fill_(number)
            if any(bool((one != number).any()) for one in mine):
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_graph_that_is_not_called_while_others_are_lets_its_memory_go() -> None:
    idle, busy = Pool(), Pool()
    idle.begin()
    held, passed = taken(idle), taken(idle)
    held.fill_(3.0)
    del passed
    for _ in range(2 * IDLE + 1):
        busy.begin()
        taken(busy)
    assert idle.kept == 0 and busy.kept == 6 * 8 * 4
    assert (held == 3.0).all()
    for _ in range(2):  # and keeps memory again once it is called
        idle.begin()
        address = taken(idle).data_ptr()
    idle.begin()
    assert taken(idle).data_ptr() == address and idle.kept == 6 * 8 * 4


def test_a_graph_that_is_called_now_and_then_keeps_its_memory() -> None:
    rare, busy = Pool(), Pool()
    for _ in range(8):
        rare.begin()
        address = taken(rare).data_ptr()
        for _ in range(IDLE // 4):
            busy.begin()
        assert rare.kept == 6 * 8 * 4
        rare.begin()
        assert taken(rare).data_ptr() == address


def test_all_graphs_of_a_process_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    now = sum(pool.kept for pool in tuple(kept._pools))
    monkeypatch.setattr(kept, "ALL", now + 3 * 6 * 8 * 4)
    pools = [Pool() for _ in range(5)]
    for pool in pools:
        pool.begin()
        taken(pool)
    assert [bool(pool.kept) for pool in pools] == [True, True, True, False, False]
    del pool, pools[0]
    gc.collect()
    pools[-1].begin()
    taken(pools[-1])
    assert pools[-1].kept  # what is deleted makes room


def test_private_memory_is_one_in_and_out_of_inference_mode() -> None:
    pool, seen = Pool(), set()
    for mode in (True, False, True, False):
        with torch.inference_mode(mode):
            pool.begin()
            one = pool.empty(SIZE, STRIDE, torch.float32, private=True)
            assert not one.is_inference()
            one.fill_(1.0)
            seen.add(one.data_ptr())
            del one
    assert len(seen) == 1


def test_cleared() -> None:
    pool = Pool()
    pool.begin()
    one = taken(pool)
    pool.clear()
    assert pool.kept == 0
    one.fill_(2.0)
    pool.begin()
    assert taken(pool).data_ptr() != one.data_ptr()


def inference(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two large buffers between kernels, a result, and a view of a buffer that is one."""
    seen = torch.sort(x.tanh(), dim=1).values
    product = torch.mm(seen, w)
    sums = torch.sort(product.tanh(), dim=0).values
    return sums.sum(1), torch.sort(sums.square(), dim=0).values.t()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_buffers_between_kernels_of_inference(mode: Callable[[], Any]) -> None:
    """They are used again, results are tensors of their own, and threads don't share them."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    inputs = [(torch.randn(300, 257), torch.randn(257, 300)) for _ in range(3)]
    with mode():
        compiled = torch.compile(inference, backend="torchport", dynamic=False)
        _, (code, *_) = run_and_get_code(compiled, *inputs[0])
        assert "torchport_private(" in code
        results = [compiled(*one) for _ in range(3) for one in inputs]
        addresses = [one.data_ptr() for result in results for one in result]
        assert len(set(addresses)) == len(addresses)
        for result, one in zip(results, inputs * 3, strict=True):
            for found, expected in zip(result, inference(*one), strict=True):
                torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-4)

    def work(number: int) -> None:
        with mode():
            for _ in range(20):
                for found, expected in zip(compiled(*inputs[number]), results[number], strict=True):
                    if not torch.equal(found, expected):
                        wrong.append(number)

    wrong: list[int] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

"""Memory of a graph's results that is used again, once nobody else has a share in it.

What a training step computes last, the gradients, is freed before the next step computes them again. The C library
gives large memory that is freed back to the system, and each page that is taken anew costs the system several times as
long as a kernel takes to fill it. So a graph keeps a share in the memory of its large results. A result is a tensor of
its own at each call, and memory is used again only where the graph's share is the last one.

Dynamo keeps the code of a model that was deleted. So a graph that is not called while others are lets its memory go.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from torchport.compat import guard_functions, storage_use_count

__all__ = ["ALL", "IDLE", "LEAST", "MOST", "Kept", "Pool"]

LEAST = 256 << 10
"""Bytes of a result from which on its memory is kept: less comes from what the C library has at hand."""

MOST = 64 << 20
"""Bytes that a graph keeps."""

ALL = 512 << 20
"""Bytes that all graphs of a process keep together."""

IDLE = 256
"""Calls of graphs after which one lets go of what it keeps that was called in none of them."""


@dataclass(frozen=True)
class _Share:
    """A share in memory.

    owners: of the memory, if nobody else has a share in it.
    names: of its Python object, if nobody else has one.
    """

    memory: torch.Tensor
    storage: torch.UntypedStorage
    address: int
    size: int
    owners: int
    names: int

    def is_last(self) -> bool:
        """Whether nobody else can see the memory: no tensor, no storage's Python object, no process that shares it."""
        storage = self.storage
        return (
            storage_use_count(storage._cdata) == self.owners
            and sys.getrefcount(storage) == self.names + 1  # this function's
            and self.memory.data_ptr() == self.address  # another: memory of processes, or resized
            and storage.nbytes() == self.size
        )


class Pool:
    """What a graph keeps; it goes with the graph.

    Threads may call at once: who takes a share out of a queue is alone with it.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._call = 0
        self._used = 0
        self._bytes = 0
        # By bytes and type: shares and the call that they were last used in. The one unused for longest comes first.
        self._shares: dict[tuple[int, torch.dtype], deque[tuple[_Share, int]]] = {}
        with _lock:
            _pools.add(self)

    def begin(self) -> None:
        """A call of the graph begins."""
        self._call += 1
        self._used = now = next(_calls)
        if now % IDLE == 0:
            _let_go(now - IDLE)

    def empty(self, size: Any, stride: Any, dtype: torch.dtype, private: bool = False) -> torch.Tensor:
        """A tensor that is not initialized, as of ``torch.empty_strided``, without gaps between its elements.

        ``private``: no result of the graph is in it.
        """
        if torch.is_inference_mode_enabled():
            if not private:  # the mode's tensors are of a kind of their own
                return _new(size, stride, dtype)
            with torch.inference_mode(False):
                return self.empty(size, stride, dtype)
        needed = dtype.itemsize
        for one in size:
            needed *= one
        shares = self._shares.setdefault((needed, dtype), deque())
        share = self._taken(shares)
        if share is None:
            if not self._may_keep(needed):
                return _new(size, stride, dtype)
            share = _share(size, stride, dtype)
        elif not share.is_last():  # it stays with somebody else: another one takes its place
            share = _share(size, stride, dtype)
        found: torch.Tensor = guard_functions._reinterpret_tensor(share.memory, size, stride, 0)
        shares.append((share, self._call))
        return found

    def _taken(self, shares: deque[tuple[_Share, int]]) -> _Share | None:
        """A share out of a queue; None if all that are there were used in this call."""
        try:
            share, call = shares.popleft()
        except IndexError:
            return None
        if call < self._call:
            return share
        shares.appendleft((share, call))
        return None

    def _may_keep(self, needed: int) -> bool:
        """Count more bytes, if neither the graph nor the process keeps too many then."""
        with _lock:
            fits = self._bytes + needed <= self._most and needed + sum(pool._bytes for pool in _pools) <= ALL
            self._bytes += needed * fits
        return fits

    def clear(self) -> None:
        """Let go of everything that no call holds."""
        with _lock:
            for shares in tuple(self._shares.values()):
                while shares:
                    try:
                        share, _ = shares.popleft()
                    except IndexError:  # a call was faster
                        break
                    self._bytes -= share.size

    @property
    def kept(self) -> int:
        """Bytes that are kept."""
        return sum(share.size for shares in self._shares.values() for share, _ in tuple(shares))


_lock = threading.RLock()  # what is let go of may run finalizers, which open pools
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_calls = itertools.count(1)


def _let_go(last: int) -> None:
    """Pools whose graphs were not called since call ``last`` of all graphs keep nothing."""
    with _lock:
        for pool in tuple(_pools):
            if pool._used < last:
                pool.clear()


class Kept:
    """``empty`` for the code of a graph, which is never freed: the pool belongs to who runs the graph."""

    def __init__(self) -> None:
        self._pool: Callable[[], Pool | None] = lambda: None

    def open(self) -> Pool:
        """The pool, which lives as long as it is referred to."""
        pool = self._pool() or Pool()
        self._pool = weakref.ref(pool)
        return pool

    def __call__(self, size: Any, stride: Any, dtype: torch.dtype, private: bool = False) -> torch.Tensor:
        pool = self._pool()
        return _new(size, stride, dtype) if pool is None else pool.empty(size, stride, dtype, private)

    def private(self, size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
        """The same for memory that no result of the graph is in."""
        return self(size, stride, dtype, private=True)


def _new(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    found: torch.Tensor = guard_functions._empty_strided_cpu(size, stride, dtype)
    return found


def _share(size: Any, stride: Any, dtype: torch.dtype) -> _Share:
    memory = _new(size, stride, dtype)
    storage = memory.untyped_storage()
    owners = storage_use_count(storage._cdata)
    names = sys.getrefcount(storage)  # of which this function's is to be the share's
    return _Share(memory, storage, memory.data_ptr(), storage.nbytes(), owners, names)

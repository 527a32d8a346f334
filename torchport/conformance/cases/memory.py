"""Cases of memory: no writes out of bounds, unchanged inputs, no leaks. Language cases have guards as well."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from typing import Any

import torch

from torchport.conformance.bounds import equal
from torchport.conformance.case import Bench, Case, Measured, Wrong
from torchport.conformance.cases.graphs import compiled
from torchport.conformance.cases.language_elementwise import elementwise
from torchport.conformance.kernels import Guarded, check
from torchport.conformance.values import draw

__all__ = ["cases"]


def cases() -> Iterator[Case]:
    """All cases of this file."""
    for size in (1, 2, 7, 63, 127, 255, 256, 257, 511, 1021):
        for dtype in ("fp32", "int8", "int64"):
            level = "quick" if dtype == "fp32" else "full"
            run = _tail(dtype, size)
            yield Case("memory", "tail", dtype, (size,), "special", run, (dtype,), level, required=True)
    yield Case("memory", "inplace_stays_inside", "fp32", (37, 61), "randn", _inplace, ("fp32",))
    yield Case("memory", "inputs_unchanged", "fp32", (37, 61), "randn", _unchanged, ("fp32",))
    yield Case("memory", "expanded_inputs", "fp32", (37, 61), "randn", _expanded, ("fp32",))
    yield Case("memory", "overlapping_results", "fp32", (37, 61), "randn", _fresh, ("fp32",))
    yield Case("memory", "leak", "fp32", (256, 1024), "randn", _leak(200), ("fp32",))
    yield Case("memory", "leak_long", "fp32", (256, 1024), "randn", _leak(2000), ("fp32",), "full")


def _tail(dtype: str, size: int) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw(dtype, (size,), "special")
        return equal(elementwise(bench, "x", {"x": x}, x.dtype, size), x, bench.able)

    return run


def _inplace(bench: Bench) -> Measured:
    """Changing a view in the middle of a larger tensor must not change the rest."""
    x = draw("fp32", (37, 61), "randn")
    guarded = Guarded((37, 61), torch.float32, x)
    compiled(bench, lambda x: x.mul_(2))(guarded.tensor)
    guarded.check("x")
    return equal(guarded.tensor, x * 2, bench.able)


def _unchanged(bench: Bench) -> Measured:
    inputs = {name: draw("fp32", (37, 61), "randn", name) for name in "xy"}
    before = {name: x.clone() for name, x in inputs.items()}
    compiled(bench, lambda x, y: (torch.softmax(x, 1) * y).cumsum(0).sort(1).values)(*inputs.values())
    check({}, inputs, before)
    return Measured()


def _expanded(bench: Bench) -> Measured:
    """An expanded input is one row in memory, which is read many times and must not be written."""
    row = draw("fp32", (1, 61), "randn")
    before = row.clone()
    got = compiled(bench, lambda x: x * 2 + 1)(row.expand(37, 61))
    check({}, {"row": row}, {"row": before})
    return equal(got.contiguous(), (before * 2 + 1).expand(37, 61).contiguous(), bench.able)


def _fresh(bench: Bench) -> Measured:
    """A call must not change the result of the call before."""
    function = compiled(bench, lambda x: x + 1)
    first = function(torch.zeros(37, 61))
    function(torch.ones(37, 61))
    return equal(first, torch.ones(37, 61), bench.able)


def _leak(runs: int) -> Any:
    """The process may grow by a tenth of the size of one tensor for each run."""

    def run(bench: Bench) -> Measured:
        function = compiled(bench, lambda x: torch.softmax(x, 1) * 2)
        x = draw("fp32", (256, 1024), "randn")
        for _ in range(20):
            function(x)
        before = _resident()
        if before is None:
            return Measured(notes=("memory in use is not known on this system",))
        for _ in range(runs):
            function(x)
        grown = (_resident() or before) - before
        allowed = runs * x.numel() * x.element_size() // 10
        if grown > allowed:
            raise Wrong(f"{runs} runs left {grown / 2**20:.1f} MiB behind", grown / allowed)
        return Measured(max(0.0, grown / allowed))

    return run


def _resident() -> int | None:
    """Bytes of memory that this process uses, after returning free memory to the system."""
    if not sys.platform.startswith("linux"):
        return None
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096

"""Cases of bad input, which must raise a clear error and not give a wrong answer or crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from torchport.capabilities import Capabilities
from torchport.conformance.case import Bench, Case, Measured, Wrong
from torchport.conformance.cases.graphs import compiled
from torchport.conformance.cases.language_elementwise import elementwise
from torchport.conformance.kernels import launch
from torchport.conformance.values import TORCH, draw
from torchport.errors import KernelAssertionError, OptionError, TargetError, TorchportError

__all__ = ["cases"]


def cases() -> Iterator[Case]:
    """All cases of this file."""
    yield _case("device_assert", "int32", (256,), _device_assert, "int32", required=True)
    yield _case("index_out_of_bounds", "int64", (37,), _out_of_bounds, "fp32", "int64")
    yield _case("works_after_assertion", "int64", (37,), _after_assertion, "fp32", "int64")
    yield _case("unknown_option", "fp32", (4,), _unknown({"no_such_option": 1}, OptionError), "fp32")
    yield _case("unknown_target", "fp32", (4,), _unknown({"target": "no_such_target"}, TargetError), "fp32")
    yield _case("bad_fallback", "fp32", (4,), _unknown({"fallback": "sometimes"}, OptionError), "fp32")
    for dtype in TORCH:
        yield Case("errors", "unsupported_dtype", dtype, (64,), "special", _unsupported(dtype), applies=_lacking(dtype))


def _case(op: str, dtype: str, shape: tuple[int, ...], run: Any, *types: str, required: bool = False) -> Case:
    return Case("errors", op, dtype, shape, "bad", run, types, required=required)


def _expect(kind: type[Exception], words: str, call: Callable[[], Any]) -> Measured:
    """``call`` must raise ``kind`` with ``words`` in its message."""
    try:
        call()
    except kind as error:
        if words not in str(error):
            raise Wrong(f"the {kind.__name__} does not say {words!r}: {error}") from error
        return Measured()
    raise Wrong(f"no {kind.__name__}: the call returned")


def _device_assert(bench: Bench) -> Measured:
    """A failed ``tl.device_assert`` must raise KernelAssertionError with its message."""
    source = """@triton.jit
def kernel(x_ptr, z_ptr):
    i = tl.arange(0, 256)
    x = tl.load(x_ptr + i)
    tl.device_assert(x < 1000, "x is too large")
    tl.store(z_ptr + i, x)
"""
    x, z = draw("int32", (256,), "small"), torch.zeros(256, dtype=torch.int32)
    launch(bench, source, {"x_ptr": x, "z_ptr": z})
    if not torch.equal(x, z):
        raise Wrong("an assertion that holds changed the result")
    x[77] = 1000
    return _expect(KernelAssertionError, "x is too large", lambda: launch(bench, source, {"x_ptr": x, "z_ptr": z}))


def _out_of_bounds(bench: Bench) -> Measured:
    run = compiled(bench, lambda x, i: x[i] + 1, fullgraph=True)
    x, good = draw("fp32", (37,), "randn"), torch.tensor([0, 36, -37])
    if not torch.allclose(run(x, good), x[good] + 1):
        raise Wrong("indices in bounds gave something else")
    return _expect(KernelAssertionError, "index", lambda: run(x, torch.tensor([0, 37, 1])))


def _after_assertion(bench: Bench) -> Measured:
    """After an error, the same compiled function must be right on good indices."""
    run = compiled(bench, lambda x, i: x[i] * 2, fullgraph=True)
    x = draw("fp32", (37,), "randn")
    run(x, torch.tensor([1, 2, 3]))
    _expect(KernelAssertionError, "index", lambda: run(x, torch.tensor([0, 1 << 20, 1])))
    good = torch.tensor([3, 5, 36])
    if not torch.equal(run(x, good), x[good] * 2):
        raise Wrong("after an error, good indices gave something else")
    return Measured()


def _unknown(options: dict[str, Any], kind: type[Exception]) -> Any:
    def run(bench: Bench) -> Measured:
        every = {"target": str(bench.target), **options}
        function = torch.compile(lambda x: x + 1, backend="torchport", options=every)
        words = str(options.get("target", ""))
        return _expect(kind, words, lambda: function(torch.ones(4)))

    return run


def _lacking(dtype: str) -> Callable[[Capabilities], bool]:
    return lambda able: dtype not in able.dtypes


def _unsupported(dtype: str) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw(dtype, (64,), "special")
        try:
            elementwise(bench, "x.to(tl.float32)", {"x": x}, torch.float32, 64)
        except TorchportError as error:
            return Measured(notes=(f"{dtype}: {' '.join(str(error).split())[:160]}",))
        raise Wrong(f"the descriptor has no {dtype}, but a kernel of it compiled and ran without an error")

    return run

"""Cases of operators in eager mode, on the torch device of a target with memory of its own, without fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree

from torchport.conformance.case import Bench, Case
from torchport.conformance.cases.families import FLOAT, INDEXING, INTEGER, SHAPE, pair, rows_and_index, with_gradients
from torchport.conformance.cases.graphs import same_as_float64
from torchport.errors import UnsupportedOperation

__all__ = ["cases"]

Function = Callable[..., Any]


def cases() -> Iterator[Case]:
    """All cases of this file."""
    for dtype in ("fp32", "bf16", "fp16"):
        level = "quick" if dtype == "fp32" else "full"
        for op, function in FLOAT.items():
            yield _case(op, dtype, _plain(function, dtype, "randn"), level=level)
        for op, function in INDEXING.items():
            yield _case(op, dtype, _indexed(function, dtype), "int64", level=level)
    for dtype in ("int32", "int64"):
        for op, function in INTEGER.items():
            yield _case(op, dtype, _plain(function, dtype, "small"), level="full")
    for op in ("pointwise_activations", "softmax", "layer_norm", "reduce_sum", "pooling", "cross_entropy"):
        yield _case(f"{op}_backward", "fp32", _backward(FLOAT[op], "fp32"), level="full")


def _case(op: str, dtype: str, run: Any, *types: str, **more: Any) -> Case:
    return Case("operators", op, dtype, SHAPE, "randn", run, tuple(dict.fromkeys((dtype, *types))), **more)


def _plain(function: Function, dtype: str, distribution: str) -> Any:
    return _checked(function, dtype, lambda: pair(dtype, distribution))


def _indexed(function: Function, dtype: str) -> Any:
    return _checked(function, dtype, lambda: rows_and_index(dtype))


def _backward(function: Function, dtype: str) -> Any:
    return _checked(with_gradients(function), dtype, lambda: [x.requires_grad_() for x in pair(dtype, "randn")])


def _checked(function: Function, dtype: str, inputs: Callable[[], list[torch.Tensor]]) -> Any:
    return lambda bench: same_as_float64(bench, function, inputs(), dtype, run=_on_device(bench, function))


def _on_device(bench: Bench, function: Function) -> Function:
    """``function`` with its tensors on the target's device. Raises UnsupportedOperation if a part runs on the host."""
    from torchport.torch_device.api import device, fallbacks

    place = device(bench.target)

    def there(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.detach().to(place).requires_grad_(value.requires_grad)

    def run(*inputs: Any) -> Any:
        fallbacks(reset=True)
        with place:  # tensors that the function makes are there too
            results = function(*_pytree.tree_map(there, inputs))
        results = _pytree.tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, results)
        if counts := fallbacks(reset=True):
            raise UnsupportedOperation(next(iter(counts)), "the device has no kernel for it: it ran on the host")
        return results

    return run

"""Cases of Inductor's operation families: PyTorch functions through torch.compile, without fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from torchport.conformance.case import Bench, Case, Measured, Wrong
from torchport.conformance.cases.graphs import compiled, same_as_float64
from torchport.conformance.values import TORCH, draw

__all__ = ["FLOAT", "INDEXING", "INTEGER", "SHAPE", "cases", "pair", "rows_and_index", "with_gradients"]

SHAPE = (37, 61)
Function = Callable[..., Any]

FLOAT: dict[str, Function] = {
    "pointwise_arithmetic": lambda x, y: (x * 2 + y) / (y.abs() + 1) - x,
    "pointwise_activations": lambda x, y: F.gelu(x) + torch.sigmoid(y) * F.silu(x) + torch.relu(y),
    "pointwise_functions": lambda x, y: torch.exp(-x.abs()) + torch.sin(y) * torch.log1p(x * x),
    "pointwise_compare": lambda x, y: torch.where(x > y, x.clamp(-1, 1), y),
    "broadcast": lambda x, y: x[:, :1] + y[:1] * 2,
    "reduce_sum": lambda x, y: (x.sum(0), (x * y).sum(1), x.sum()),
    "reduce_extreme": lambda x, y: (x.amax(1), y.amin(0), x.argmax(1), y.argmin(0)),
    "reduce_variance": lambda x, y: (x.var(1), y.mean(0), torch.var_mean(x + y, 0)),
    "softmax": lambda x, y: torch.softmax(x, 1) + torch.log_softmax(y, 0),
    "layer_norm": lambda x, y: F.layer_norm(x, (SHAPE[1],), y[0], y[1]),
    "rms_norm": lambda x, y: x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-5) * y[0],
    "cat_stack": lambda x, y: (torch.cat([x, y * 2], 1), torch.stack([x, y + 1])),
    "transpose": lambda x, y: (x.t() + y.t()).contiguous() * 2,
    "slice_pad": lambda x, y: F.pad(x[3:30:2, 5:], (1, 2, 0, 3)) * 2,
    "views": lambda x, y: (x + y).reshape(-1)[7:].view(2, -1) * 3,
    "flip_roll": lambda x, y: x.flip(0) + torch.roll(y, 3, 1),
    "pooling": lambda x, y: F.avg_pool2d(x[None, None], 2) + F.max_pool2d(y[None, None], 2),
    "cross_entropy": lambda x, y: F.cross_entropy(x, torch.arange(SHAPE[0])),
}

INDEXING: dict[str, Function] = {
    "index_select": lambda x, i: x[i] * 2,
    "gather": lambda x, i: x.gather(0, i[:, None].expand(-1, 8)),
    "embedding": lambda x, i: F.embedding(i, x) + 1,
    "scatter": lambda x, i: torch.zeros_like(x).scatter(0, i[:, None].expand(-1, SHAPE[1]) * 0 + _order(x), x),
    "scatter_add": lambda x, i: torch.zeros_like(x).index_add(0, i, x),
    "index_put": lambda x, i: x.clone().index_put((i,), x[:1].expand(SHAPE[0], -1), accumulate=True),
    "masked_fill": lambda x, i: x.masked_fill((i % 3 == 0)[:, None], -1.0),
}

INTEGER: dict[str, Function] = {
    "integer_arithmetic": lambda x, y: (x + y * 3 - (x & y)) ^ (y | 5),
    "integer_division": lambda x, y: (x // 7, x % 5, torch.div(y, 3, rounding_mode="trunc"), y.abs()),
    "integer_shift": lambda x, y: (x << 2) + (y >> 1),
    "integer_reduce": lambda x, y: (x.sum(1), y.amax(0), (x == y).any(1), (x != y).all(0)),
}


def _order(x: torch.Tensor) -> torch.Tensor:
    return torch.arange(x.shape[0] - 1, -1, -1)[:, None].expand(-1, x.shape[1])


def cases() -> Iterator[Case]:
    """All cases of this file."""
    for dtype in ("fp32", "fp16", "bf16", "fp64"):
        yield from _float_cases(dtype)
    for dtype in ("int8", "int16", "int32", "int64"):
        for op, function in INTEGER.items():
            yield _case(op, dtype, "small", _float(function, dtype, "small"), level=_level(dtype, "int64"))
    yield from _cast_cases()
    yield _case("random", "fp32", "uniform", _random)
    yield _case("dropout", "fp32", "bernoulli", _dropout)


def _float_cases(dtype: str) -> Iterator[Case]:
    level = _level(dtype, "fp32")
    for op, function in FLOAT.items():
        run = _float(function, dtype)
        yield _case(op, dtype, "randn", run, level=level, required=op == "pointwise_arithmetic")
    for op, function in INDEXING.items():
        yield _case(op, dtype, "randn", _indexed(function, dtype), "int64", level=level)
    for op in ("pointwise_activations", "softmax", "layer_norm", "reduce_sum", "cross_entropy"):
        backward_level = level if op in ("softmax", "layer_norm") else "full"
        yield _case(f"{op}_backward", dtype, "randn", _backward(FLOAT[op], dtype), level=backward_level)
    yield _case("mutation", dtype, "randn", _float(_mutation, dtype), level=level)
    yield _case("strided_inputs", dtype, "randn", _strided(dtype), level=level)
    yield _case("dynamic_shapes", dtype, "randn", _dynamic(dtype), level=level)


def _cast_cases() -> Iterator[Case]:
    for source in ("fp32", "fp16", "bf16", "fp64", "int32", "int64", "int1"):
        for to in ("fp32", "fp16", "bf16", "int32", "int64", "int1"):
            if source != to:
                level = _level(source, "fp32")
                yield _case(f"cast_to_{to}", source, "small", _cast(source, to), to, level=level)


def _level(dtype: str, *quick: str) -> str:
    return "quick" if dtype in quick else "full"


def _case(op: str, dtype: str, distribution: str, run: Any, *types: str, **more: Any) -> Case:
    return Case("inductor", op, dtype, SHAPE, distribution, run, tuple(dict.fromkeys((dtype, *types))), **more)


def pair(dtype: str, distribution: str) -> list[torch.Tensor]:
    """The inputs x and y of a function in FLOAT or INTEGER."""
    return [draw(dtype, SHAPE, distribution, name) for name in "xy"]


def _float(function: Function, dtype: str, distribution: str = "randn") -> Any:
    return lambda bench: same_as_float64(bench, function, pair(dtype, distribution), dtype)


def rows_and_index(dtype: str) -> list[torch.Tensor]:
    """The inputs x and i of a function in INDEXING."""
    return [draw(dtype, SHAPE, "randn"), draw("int64", (SHAPE[0],), "bits") % SHAPE[0]]


def _indexed(function: Function, dtype: str) -> Any:
    return lambda bench: same_as_float64(bench, function, rows_and_index(dtype), dtype)


def _mutation(x: torch.Tensor, y: torch.Tensor) -> Any:
    """Writes into an input through a view, and returns an alias of it."""
    x[1:].mul_(2)
    x.t().add_(y.t())
    return x, x[2:], y + x


def _strided(dtype: str) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw(dtype, (2 * SHAPE[1], SHAPE[0]), "randn", "x")[::2].t()
        y = draw(dtype, (SHAPE[0], 1), "randn", "y").expand(SHAPE)
        return same_as_float64(bench, lambda x, y: (x + y, (x * y).sum(0)), [x, y], dtype)

    return run


def _dynamic(dtype: str) -> Any:
    def run(bench: Bench) -> Measured:
        def function(x: torch.Tensor) -> Any:
            return torch.softmax(x * 2, 1), x.sum(0)

        compiled_once = compiled(bench, function, dynamic=True, fullgraph=True)
        measured = [
            same_as_float64(bench, function, [draw(dtype, size, "randn")], dtype, run=compiled_once)
            for size in ((17, 31), (5, 129), (64, 64), (3, 2))
        ]
        return Measured(max(result.worst for result in measured))

    return run


def with_gradients(run: Function) -> Function:
    """A function that returns what ``run`` does, and the gradients of the sum of its squares."""

    def gradients(x: torch.Tensor, y: torch.Tensor) -> Any:
        results = run(x, y)
        parts = results if isinstance(results, tuple) else (results,)
        total = sum((part * part).sum() for part in parts)
        return parts, torch.autograd.grad(total, [x, y], allow_unused=True)

    return gradients


def _backward(function: Function, dtype: str) -> Any:
    def run(bench: Bench) -> Measured:
        inputs = [x.requires_grad_() for x in pair(dtype, "randn")]
        on_target = with_gradients(compiled(bench, function, fullgraph=True))
        return same_as_float64(bench, with_gradients(function), inputs, dtype, run=on_target)

    return run


def _cast(source: str, to: str) -> Any:
    kind = TORCH[to]

    def run(bench: Bench) -> Measured:
        x = draw(source, SHAPE, "randn" if "int" not in source else "small")
        return same_as_float64(bench, lambda x: x.to(kind), [x], source if "int" not in source else "fp32")

    return run


def _random(bench: Bench) -> Measured:
    """Checks range and mean (to five standard deviations) of uniform numbers, and that seeds repeat them."""
    run = compiled(bench, lambda x: torch.rand_like(x) + x * 0, fullgraph=True)
    x = torch.zeros(101, 103)
    torch.manual_seed(5)
    first, second = run(x), run(x)
    torch.manual_seed(5)
    again = run(x)
    count = x.numel()
    if not torch.equal(first, again):
        raise Wrong("the same seed gave other numbers")
    if torch.equal(first, second):
        raise Wrong("two calls gave the same numbers")
    if float(first.min()) < 0 or float(first.max()) >= 1:
        raise Wrong(f"numbers outside [0, 1): {float(first.min())} to {float(first.max())}")
    error = abs(float(first.double().mean()) - 0.5) / (5 * (1 / 12 / count) ** 0.5)
    if error > 1:
        raise Wrong(f"the mean is {float(first.double().mean())} instead of 0.5", error)
    return Measured(error)


def _dropout(bench: Bench) -> Measured:
    """Checks the scale and share (to five standard deviations) of kept elements, and that backward drops the same."""
    run = compiled(bench, lambda x: F.dropout(x, 0.25, training=True), fullgraph=True)
    x = torch.ones(101, 103, requires_grad=True)
    result = run(x)
    (gradient,) = torch.autograd.grad(result.sum(), [x])
    if not torch.equal(result.detach(), gradient):
        raise Wrong("forward and backward drop different elements")
    if not set(result.detach().unique().tolist()) <= {0.0, float(torch.tensor(1 / 0.75))}:
        raise Wrong(f"wrong values: {result.detach().unique().tolist()[:5]}")
    share = float((result > 0).double().mean())
    error = abs(share - 0.75) / (5 * (0.75 * 0.25 / x.numel()) ** 0.5)
    if error > 1:
        raise Wrong(f"{share:.4f} of the elements were kept instead of 0.75", error)
    return Measured(error)

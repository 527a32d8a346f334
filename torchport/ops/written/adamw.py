"""One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101) on a list of tensors, one kernel a tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "adamw_step"]

_BLOCK = 1024


@Kernel
def _step(param, grad, mean, square, n, keep, rate, beta1, rest1, beta2, rest2, root, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """A block. keep = 1 - lr * decay; rate = lr / (1 - beta1^step); root = 1 / sqrt(1 - beta2^step)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    given = tl.load(grad + i, i < n, 0.0).to(tl.float32)
    first = tl.load(mean + i, i < n, 0.0).to(tl.float32) * beta1 + given * rest1
    second = tl.load(square + i, i < n, 0.0).to(tl.float32) * beta2 + given * given * rest2
    value = tl.load(param + i, i < n, 0.0).to(tl.float32) * keep - rate * first / (tl.sqrt(second) * root + eps)
    tl.store(param + i, value.to(param.dtype.element_ty), i < n)
    tl.store(mean + i, first.to(mean.dtype.element_ty), i < n)
    tl.store(square + i, second.to(square.dtype.element_ty), i < n)


def _update(
    params: list[torch.Tensor],
    grads: list[torch.Tensor],
    means: list[torch.Tensor],
    squares: list[torch.Tensor],
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
) -> None:
    if step < 1 or not len(params) == len(grads) == len(means) == len(squares):
        raise ValueError(
            f"adamw_step: step {step}, {len(params)} params, {len(grads)} grads, {len(means)} means, {len(squares)} "
            "squares; steps count from 1, and the lists must be of one length"
        )
    numbers = (
        1 - lr * decay, lr / (1 - beta1**step), beta1, 1 - beta1, beta2, 1 - beta2, 1 / math.sqrt(1 - beta2**step), eps,
    )  # fmt: skip
    for param, grad, mean, square in zip(params, grads, means, squares, strict=True):
        given = _like(grad, param)
        for name, state in (("mean", mean), ("square", square)):
            if state.shape != param.shape or not _same_places(state, param):
                raise ValueError(f"adamw_step: a {name} does not lie in memory as its parameter does")
        n = param.numel()
        launch(_step, (-(-n // _BLOCK), 1, 1), (param, given, mean, square, n, *numbers), {"BLOCK": _BLOCK})


def _same_places(state: torch.Tensor, param: torch.Tensor) -> bool:
    return state.stride() == param.stride() or (state.is_contiguous() and param.is_contiguous())


def _like(grad: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
    """``grad`` with its elements where ``param`` has them. Raises ValueError if ``param`` has gaps or overlaps."""
    if grad.shape != param.shape:
        raise ValueError(f"adamw_step: a gradient has shape {tuple(grad.shape)}, its parameter {tuple(param.shape)}")
    if param.is_contiguous():
        return grad.contiguous()
    places = torch.empty_like(param)
    if places.stride() != param.stride():
        raise ValueError("adamw_step: a parameter has gaps in memory, or elements that share it; make it contiguous")
    return places.copy_(grad)


_SCHEMA = (
    "(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] means, Tensor(c!)[] squares, int step, float lr, float beta1, "
    "float beta2, float eps, float decay) -> ()"
)
_call = define("adamw_step", _SCHEMA, _update)


def adamw_step(
    params: list[torch.Tensor],
    grads: list[torch.Tensor],
    means: list[torch.Tensor],
    squares: list[torch.Tensor],
    step: int,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> None:
    """Step number ``step`` (from 1) of torch.optim.AdamW: changes ``params``, ``means`` and ``squares``.

    Computed in float32, whatever the tensors' dtypes; each is rounded once. Tensors of one parameter have one shape and
    lie in memory alike; a gradient may lie as it likes.
    """
    with torch.no_grad():
        _call(params, grads, means, squares, step, lr, beta1, beta2, eps, weight_decay)


def _reference(
    params: list[torch.Tensor],
    grads: list[torch.Tensor],
    means: list[torch.Tensor],
    squares: list[torch.Tensor],
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
) -> Tensors:
    first = [beta1 * mean + (1 - beta1) * grad for mean, grad in zip(means, grads, strict=True)]
    second = [beta2 * square + (1 - beta2) * grad**2 for square, grad in zip(squares, grads, strict=True)]
    roots = [(square / (1 - beta2**step)).sqrt() + eps for square in second]
    moved = [
        param * (1 - lr * decay) - lr / (1 - beta1**step) * mean / root
        for param, mean, root in zip(params, first, roots, strict=True)
    ]
    return (*moved, *first, *second)


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """A number passed to the kernel is rounded to float32, too. squares are sums of positive terms."""
    params, given, means, _, step, lr, beta1, beta2, eps, _ = args
    count = len(params)
    found = _reference(*args)
    first = [4 * (beta1 * mean.abs() + (1 - beta1) * grad.abs()) for mean, grad in zip(means, given, strict=True)]
    second = [5 * square for square in found[2 * count :]]
    roots = [(square / (1 - beta2**step)).sqrt() + eps for square in found[2 * count :]]
    moved = [
        4 * param.abs() + lr / (1 - beta1**step) * (error + 12 * mean.abs()) / root
        for param, error, mean, root in zip(params, first, found[count:], roots, strict=False)
    ]
    return (*moved, *first, *second)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def state(*shapes: tuple[int, ...]) -> tuple[list[torch.Tensor], ...]:
        params, grads, means = ([torch.randn(shape).to(dtype) for shape in shapes] for _ in range(3))
        return params, grads, means, [torch.rand(shape).to(dtype) for shape in shapes]

    yield Sample("prime sizes", (*state((7, 131), (3,), ()), 3, 1e-3, 0.9, 0.999, 1e-8, 1e-2))
    yield Sample("several blocks", (*state((41, 101)), 1, 1e-2, 0.8, 0.95, 1e-6, 0.0))
    yield Sample("no elements", (*state((0, 3), (5,)), 2, 1e-3, 0.9, 0.999, 1e-8, 1e-2))
    params, grads, means, squares = state((40, 17))
    turned = [[one.t() for one in each] for each in (params, means, squares)]
    turned.insert(1, [torch.randn(17, 40).to(dtype)])
    yield Sample("transposed", (*turned, 7, 1e-3, 0.9, 0.999, 1e-8, 1e-2))
    wide = [[one.float() for one in each] for each in (means, squares)]
    yield Sample("wide moments", (params, grads, *wide, 7, 1e-3, 0.9, 0.999, 1e-8, 1e-2))
    yield Sample("no tensors", ([], [], [], [], 7, 1e-3, 0.9, 0.999, 1e-8, 1e-2))


OPERATORS = (
    Operator(
        name="adamw_step",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=(),
        source="written",
        call=adamw_step,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="One step of AdamW on a list of tensors",
        mutates=("params", "means", "squares"),
    ),
)

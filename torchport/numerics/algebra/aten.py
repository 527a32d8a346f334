"""aten's operators on payload tensors; what is not here is decomposed, or named as unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchport.arithmetic.payload.field import FINITE, INFINITY, MINUS_INFINITY, NAN
from torchport.numerics.algebra.lanes import compute
from torchport.numerics.algebra.sums import added_up, extreme, matrix_product, multiplied, running_sum
from torchport.numerics.algebra.tensor import NoAlgebra, PayloadTensor, payloads, plain

__all__ = ["Payloads"]

Operator = Callable[..., Any]


def _wrapped(payload: torch.Tensor) -> PayloadTensor:
    return Payloads(payload)


def _function(name: str) -> Operator:
    def operator(func: Any, *operands: Any, **kwargs: Any) -> PayloadTensor:
        if kwargs:
            raise NoAlgebra(f"{name} with {', '.join(kwargs)} is not known on payloads")
        return _wrapped(compute(name, *map(payloads, operands)))

    return operator


def _scaled(name: str) -> Operator:
    def operator(func: Any, x: Any, y: Any, alpha: Any = 1) -> PayloadTensor:
        other = payloads(y) if alpha == 1 else compute("mul", payloads(y), payloads(alpha))
        return _wrapped(compute(name, payloads(x), other))

    return operator


def _reversed_difference(func: Any, x: Any, y: Any, alpha: Any = 1) -> PayloadTensor:
    return OPERATORS["sub"](func, y, x, alpha)  # type: ignore[no-any-return]


def _quotient(func: Any, x: Any, y: Any, rounding_mode: str | None = None) -> PayloadTensor:
    value = compute("div", payloads(x), payloads(y))
    return _wrapped(value if rounding_mode is None else compute(rounding_mode, value))


def _comparison(name: str) -> Operator:
    def operator(func: Any, x: Any, y: Any) -> torch.Tensor:
        a, b = payloads(x), payloads(y)
        holds: torch.Tensor = getattr(torch, name)(compute("order", a), compute("order", b))
        nan = (a == NAN) | (b == NAN)
        return holds | nan if name == "ne" else holds & ~nan

    return operator


def _sum(func: Any, x: PayloadTensor, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> PayloadTensor:
    return _wrapped(added_up(x.payload, _dims(dim), keepdim))


def _dims(dim: Any) -> Sequence[int]:
    return [] if dim is None else [dim] if isinstance(dim, int) else list(dim)


def _mean(func: Any, x: PayloadTensor, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> PayloadTensor:
    total = added_up(x.payload, _dims(dim), keepdim)
    count = x.payload.numel() // max(total.numel(), 1)
    return _wrapped(compute("div", total, payloads(count)))


def _variance(
    func: Any, x: PayloadTensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, correction: Any = None
) -> PayloadTensor:
    return _variance_and_mean(func, x, dim, unbiased, keepdim, correction=correction)[0]


def _variance_and_mean(
    func: Any, x: PayloadTensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, correction: Any = None
) -> tuple[PayloadTensor, PayloadTensor]:
    dims = _dims(dim) or list(range(x.ndim))
    less = int(unbiased) if correction is None else correction
    mean = _mean(func, x, dims, True).payload
    centred = compute("sub", x.payload, mean)
    total = added_up(compute("mul", centred, centred), dims, keepdim)
    count = x.payload.numel() // max(total.numel(), 1)
    return _wrapped(compute("div", total, payloads(count - less))), _mean(func, x, dims, keepdim)


def _over(largest: bool) -> Operator:
    """``amax``, ``amin``: over several dimensions, without where they are."""

    def operator(func: Any, x: PayloadTensor, dim: Any = (), keepdim: bool = False) -> PayloadTensor:
        value = x.payload
        for one in sorted((d % max(x.ndim, 1) for d in _dims(dim) or range(x.ndim)), reverse=True):
            value, _ = extreme(value, one, keepdim, largest=largest)
        return _wrapped(value)

    return operator


def _along(largest: bool) -> Operator:
    """``max``, ``min``: over all, over one dimension with where they are, or of two tensors."""

    def operator(func: Any, x: PayloadTensor, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return _over(largest)(func, x)
        if not isinstance(dim, int):
            return _function("maximum" if largest else "minimum")(func, x, dim)
        value, place = extreme(x.payload, dim, keepdim, largest=largest)
        return _wrapped(value), place

    return operator


def _place(largest: bool) -> Operator:
    def operator(func: Any, x: PayloadTensor, dim: int | None = None, keepdim: bool = False) -> torch.Tensor:
        value, axis = (x.payload.flatten(), 0) if dim is None else (x.payload, dim)
        return extreme(value, axis, keepdim, largest=largest)[1]

    return operator


def _product(func: Any, x: PayloadTensor, dim: int | None = None, keepdim: bool = False, dtype: Any = None) -> Any:
    value, axis = (x.payload.flatten(), 0) if dim is None else (x.payload, dim)
    return _wrapped(multiplied(value, axis, keepdim))


def _running(func: Any, x: PayloadTensor, dim: int, dtype: Any = None) -> PayloadTensor:
    return _wrapped(running_sum(x.payload, dim))


def _matrix_product(func: Any, a: Any, b: Any) -> PayloadTensor:
    return _wrapped(matrix_product(payloads(a), payloads(b)))


def _matrix_product_and_sum(func: Any, c: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> PayloadTensor:
    value = compute("mul", matrix_product(payloads(a), payloads(b)), payloads(alpha))
    return _wrapped(compute("add", value, compute("mul", payloads(c), payloads(beta))))


def _converted(func: Any, x: Any, *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
    """Between floats the identity; to integers exact where it can be."""
    dtype = dtype if dtype is not None else next((one for one in args if isinstance(one, torch.dtype)), None)
    if dtype is None or dtype.is_floating_point:
        return _wrapped(payloads(x).clone())
    if dtype == torch.bool:
        return payloads(x) != 0
    if dtype.is_complex:
        raise NoAlgebra("complex numbers are not known")
    return compute("to_signed", payloads(x)).to(dtype)


def _moved(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Operators that move elements, and do not compute with them."""
    for name in ("dtype", "layout", "device", "pin_memory", "memory_format"):
        kwargs.pop(name, None)
    result = func(*plain(args), **{name: plain(value) for name, value in kwargs.items()})
    if isinstance(result, (list, tuple)):
        return type(result)(map(_wrapped, result))
    return _wrapped(result)


def _viewed(func: Any, x: PayloadTensor, shape: Sequence[int]) -> PayloadTensor:
    return _wrapped(x.payload.reshape(list(shape)))


def _where(func: Any, condition: torch.Tensor, x: Any, y: Any) -> PayloadTensor:
    return _wrapped(torch.where(condition, payloads(x), payloads(y)))


def _masked_fill(func: Any, x: Any, mask: torch.Tensor, value: Any) -> PayloadTensor:
    return _wrapped(torch.where(mask, payloads(value), payloads(x)))


def _padded(func: Any, x: PayloadTensor, pad: Sequence[int], value: Any = 0) -> PayloadTensor:
    padded = torch.constant_pad_nd(x.payload, list(pad), 0)
    inside = torch.constant_pad_nd(torch.ones_like(x.payload), list(pad), 0)
    return _wrapped(torch.where(inside == 1, padded, payloads(value)))


def _clamped(func: Any, x: Any, low: Any = None, high: Any = None, **kwargs: Any) -> PayloadTensor:
    low, high = kwargs.get("min", low), kwargs.get("max", high)
    value = payloads(x)
    value = value if low is None else compute("maximum", value, payloads(low))
    return _wrapped(value if high is None else compute("minimum", value, payloads(high)))


def _filled(func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Constants of a tensor's shape: real numbers, until they meet payloads."""
    real = torch.zeros(x.shape, dtype=torch.float64)
    kwargs.pop("layout", None), kwargs.pop("device", None), kwargs.pop("pin_memory", None)
    return func(real, *args, **kwargs)


def _sigmoid(func: Any, x: PayloadTensor) -> PayloadTensor:
    one = payloads(1)
    return _wrapped(compute("div", one, compute("add", one, compute("exp", compute("neg", x.payload)))))


def _relu(func: Any, x: PayloadTensor) -> PayloadTensor:
    return _wrapped(compute("maximum", x.payload, payloads(0)))


def _square(func: Any, x: PayloadTensor) -> PayloadTensor:
    return _wrapped(compute("mul", x.payload, x.payload))


def _test(holds: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda func, x: holds(x.payload)


_FUNCTIONS = (
    "abs acos acosh asin asinh atan atan2 atanh ceil cos cosh erf erfc erfinv exp exp2 expm1 floor fmod hypot lgamma "
    "log log10 log1p log2 maximum minimum mul neg pow reciprocal remainder rsqrt sign sin sinh sqrt tan tanh trunc"
).split()
_MOVES = (
    "alias as_strided cat clone copy detach diagonal embedding expand flip gather index index_select lift "
    "lift_fresh lift_fresh_copy permute repeat roll select slice slice_scatter select_scatter split split_with_sizes "
    "squeeze stack t transpose tril triu unbind unfold unsqueeze scatter contiguous narrow"
).split()

OPERATORS: Mapping[str, Operator] = {
    **{name: _function(name) for name in _FUNCTIONS if name != "sign"},
    **dict.fromkeys(_MOVES, _moved),
    **{name: _comparison(name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{name: _filled for name in ("full_like", "ones_like", "zeros_like", "new_full", "new_ones", "new_zeros",
                                  "empty_like", "new_empty")},
    **dict.fromkeys(("_unsafe_view", "reshape", "view"), _viewed),
    "_reshape_alias": lambda func, x, shape, stride: _viewed(func, x, shape),
    "_to_copy": _converted,
    "add": _scaled("add"),
    "addmm": _matrix_product_and_sum,
    "amax": _over(largest=True),
    "amin": _over(largest=False),
    "argmax": _place(largest=True),
    "argmin": _place(largest=False),
    "baddbmm": _matrix_product_and_sum,
    "bmm": _matrix_product,
    "clamp": _clamped,
    "clamp_max": lambda func, x, high: _clamped(func, x, None, high),
    "clamp_min": lambda func, x, low: _clamped(func, x, low),
    "constant_pad_nd": _padded,
    "convert_element_type": _converted,
    "cumsum": _running,
    "div": _quotient,
    "fmax": _function("maxnum"),
    "fmin": _function("minnum"),
    "isinf": _test(lambda x: (x == INFINITY) | (x == MINUS_INFINITY)),
    "isnan": _test(lambda x: x == NAN),
    "isfinite": _test(lambda x: (x >= 0) & (x < FINITE)),
    "masked_fill": _masked_fill,
    "max": _along(largest=True),
    "mean": _mean,
    "min": _along(largest=False),
    "mm": _matrix_product,
    "prod": _product,
    "relu": _relu,
    "round": _function("rint"),
    "rsub": _reversed_difference,
    "scalar_tensor": _filled,
    "sigmoid": _sigmoid,
    "square": _square,
    "sub": _scaled("sub"),
    "sum": _sum,
    "var": _variance,
    "var_mean": _variance_and_mean,
    "where": _where,
}  # fmt: skip
"""By the operator's name, for all its overloads."""


class Payloads(PayloadTensor):
    """A payload tensor that knows aten's operators."""

    operators = OPERATORS

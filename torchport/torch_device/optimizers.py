"""Fused optimizers and scaled losses: one kernel a tensor, which reads its step where it is.

torch's operators take lists of tensors, and compute with powers of numbers that float32 does not hold well: 0.999. Here
each tensor is a call of an operator of our own, which is given their logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

__all__ = ["COMPOSED", "DEFINITIONS"]

Tensor = torch.Tensor
_aten, _own = torch.ops.aten, torch.ops.torchport_device
_library: Any = torch.library.Library("torchport_device", "DEF")
_library.define(
    "adam_(Tensor(a!) param, Tensor(b!) grad, Tensor(c!) mean, Tensor(d!) square, Tensor(e!)? largest, Tensor step, "
    "Tensor? scale, Tensor? found_inf, float rate, float decay, float log_beta1, float rest1, float log_beta2, "
    "float beta2, float rest2, float eps, bool decays, bool apart, bool maximize) -> ()"
)
_library.define(
    "sgd_(Tensor(a!) param, Tensor(b!) grad, Tensor(c!)? momentum, Tensor? scale, Tensor? found_inf, float rate, "
    "float decay, float factor, float rest, bool decays, bool nesterov, bool maximize, bool first) -> ()"
)

_library.define("unscale_(Tensor(a!) grad, Tensor(b!) found_inf, Tensor inverse) -> ()")


def _adam(
    param: Tensor, grad: Tensor, mean: Tensor, square: Tensor, largest: Tensor | None, step: Tensor,
    scale: Tensor | None, found_inf: Tensor | None, rate: float, decay: float, log_beta1: float, rest1: float,
    log_beta2: float, beta2: float, rest2: float, eps: float, decays: bool, apart: bool, maximize: bool,
) -> tuple[()]:  # fmt: skip
    """Adam (Kingma and Ba, arXiv 1412.6980); AdamW if weights decay ``apart`` from gradients (arXiv 1711.05101).

    ``rest1``, ``rest2``: 1 - beta1 and 1 - beta2. ``decay``: times ``rate`` if ``apart``.
    """
    given, value, first, second = _wide(grad, scale), _wide(param), _wide(mean), _wide(square)
    slope = -given if maximize else given
    if decays and apart:
        value = value - decay * value
    elif decays:
        slope = slope + decay * value
    first = first + rest1 * (slope - first)
    second = beta2 * second + rest2 * slope * slope
    most = second if largest is None else torch.maximum(_wide(largest), second)
    count = step.to(value.dtype)
    bias1, bias2 = -torch.expm1(count * log_beta1), -torch.expm1(count * log_beta2)
    value = value - rate / bias1 * first / (most.sqrt() / bias2.sqrt() + eps)
    _write(found_inf, (param, value), (mean, first), (square, second))
    if largest is not None:
        _write(found_inf, (largest, most))
    if scale is not None:
        _write(found_inf, (grad, given))
    return ()


def _sgd(
    param: Tensor, grad: Tensor, momentum: Tensor | None, scale: Tensor | None, found_inf: Tensor | None, rate: float,
    decay: float, factor: float, rest: float, decays: bool, nesterov: bool, maximize: bool, first: bool,
) -> tuple[()]:  # fmt: skip
    """A step along the gradient, or along ``momentum``; ``rest``: 1 - dampening."""
    given, value = _wide(grad, scale), _wide(param)
    slope = -given if maximize else given
    if decays:
        slope = slope + decay * value
    if momentum is not None:
        moved = slope if first else factor * _wide(momentum) + rest * slope
        _write(found_inf, (momentum, moved))
        slope = slope + factor * moved if nesterov else moved
    _write(found_inf, (param, value - rate * slope))
    if scale is not None:
        _write(found_inf, (grad, given))
    return ()


def _unscale(grad: Tensor, found_inf: Tensor, inverse: Tensor) -> tuple[()]:
    """Divide by the scale of a loss, and note whether a number was not finite."""
    found_inf.copy_(torch.where(grad.isfinite().all(), found_inf, 1.0))
    grad.copy_(_wide(grad) * inverse)
    return ()


def _update_scale(
    self: Tensor, growth_tracker: Tensor, found_inf: Tensor, growth: float, backoff: float, interval: int
) -> Tensor:
    """``aten._amp_update_scale_``: the scale shrinks after an overflow, and grows after ``interval`` steps without."""
    found, steps, larger = found_inf != 0, growth_tracker + 1, self * growth
    grows = ~found & (steps == interval)
    growth_tracker.copy_(torch.where(found | grows, 0, steps))
    return self.copy_(torch.where(found, self * backoff, torch.where(grows & larger.isfinite(), larger, self)))


def _wide(tensor: Tensor, scale: Tensor | None = None) -> Tensor:
    """In the type to compute in, divided by the scale of a loss."""
    wide = tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
    return wide if scale is None else wide / scale.to(wide.dtype)


def _write(found_inf: Tensor | None, *pairs: tuple[Tensor, Tensor]) -> None:
    """Write second tensors into first ones, unless a gradient was infinite."""
    for target, value in pairs:
        target.copy_(value if found_inf is None else torch.where(found_inf == 1, target, value.to(target.dtype)))


def _each(lists: Sequence[Sequence[Tensor | None]]) -> Iterator[tuple[Tensor | None, ...]]:
    """The tensors of one parameter after the other; None from lists that are empty."""
    return zip(*[each or [None] * len(lists[0]) for each in lists], strict=True)


def _adam_step(apart: bool) -> Callable[..., None]:
    def step(
        params: Any, grads: Any, means: Any, squares: Any, largest: Any, steps: Any, *, lr: Any, beta1: float,
        beta2: float, weight_decay: float, eps: float, amsgrad: bool, maximize: bool,
        grad_scale: Tensor | None = None, found_inf: Tensor | None = None,
    ) -> None:  # fmt: skip
        rate = float(lr)
        decay = rate * weight_decay if apart else weight_decay
        numbers = (rate, float(decay), _log(beta1), 1.0 - beta1, _log(beta2), float(beta2), 1.0 - beta2, float(eps))
        for *tensors, count in _each((params, grads, means, squares, largest if amsgrad else (), steps)):
            _own.adam_(*tensors, count, grad_scale, found_inf, *numbers, weight_decay != 0, apart, maximize)

    return step


def _sgd_step(
    params: Any, grads: Any, momenta: Any, *, weight_decay: float, momentum: float, lr: Any, dampening: float,
    nesterov: bool, maximize: bool, is_first_step: bool, grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:  # fmt: skip
    numbers = (float(lr), float(weight_decay), float(momentum), 1.0 - dampening)
    for tensors in _each((params, grads, momenta if momentum else ())):
        _own.sgd_(*tensors, grad_scale, found_inf, *numbers, weight_decay != 0, nesterov, maximize, is_first_step)


def _unscale_each(grads: Any, found_inf: Tensor, inverse: Tensor) -> None:
    for grad in grads:
        _own.unscale_(grad, found_inf, inverse)


def _log(number: float) -> float:
    return math.log(number) if number else float("-inf")


for _name, _step in (("adam_", _adam), ("sgd_", _sgd), ("unscale_", _unscale)):
    _library.impl(_name, lambda *args, step=_step: step(*args) or None, "CPU")


DEFINITIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        _own.adam_.default: _adam, _own.sgd_.default: _sgd, _own.unscale_.default: _unscale,
        _aten._amp_update_scale_.default: _update_scale,
    }
)  # fmt: skip
"""Steps of one tensor."""

COMPOSED: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        _aten._fused_adam_.default: _adam_step(apart=False), _aten._fused_adam_.tensor_lr: _adam_step(apart=False),
        _aten._fused_adamw_.default: _adam_step(apart=True), _aten._fused_adamw_.tensor_lr: _adam_step(apart=True),
        _aten._amp_foreach_non_finite_check_and_unscale_.default: _unscale_each,
        _aten._fused_sgd_.default: _sgd_step, _aten._fused_sgd_.tensor_lr: _sgd_step,
    }
)  # fmt: skip
"""Steps of lists of tensors."""

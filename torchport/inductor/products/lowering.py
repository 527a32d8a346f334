"""Lowers aten's matrix products with few rows to kernels of ``templates``, where ``choose`` says that these win."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.codegen.templates import Template
from torchport.inductor.compat import V, flex, ir, lowerings
from torchport.inductor.products import templates
from torchport.inductor.products.rules import choose, next_power
from torchport.inductor.scope import current
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["LOWERINGS"]

_aten = torch.ops.aten
_TEMPLATES = {
    name: Template(f"torchport_mm_{name.lower()}", getattr(templates, name)) for name in ("ROWS", "COLUMNS", "DOT")
}


def _mm(a: Any, b: Any, out_dtype: Any = None, **kwargs: Any) -> Any:
    if out_dtype is not None or kwargs:
        return NotImplemented
    return _product(a, b, None, 1, 1)


def _addmm(bias: Any, a: Any, b: Any, *, alpha: Any = 1, beta: Any = 1, **kwargs: Any) -> Any:
    if kwargs or not all(type(factor) in (int, float) for factor in (alpha, beta)) or beta == 0:
        return NotImplemented
    return _product(a, b, bias, alpha, beta)


def _product(a: Any, b: Any, bias: Any, alpha: float, beta: float) -> Any:
    """alpha * a @ b + beta * bias, or NotImplemented where aten is not slower."""
    lanes = _lanes()
    if lanes is None or a.get_dtype() != b.get_dtype() or (bias is not None and bias.get_dtype() != a.get_dtype()):
        return NotImplemented
    sizes = V.graph.sizevars
    shape = [*a.get_size(), b.get_size()[1]]
    if not all(sizes.statically_known_equals(size, sizes.optimization_hint(size)) for size in shape):
        return NotImplemented
    m, k, n = (int(size) for size in shape)
    a, b = flex.maybe_realize([a, b])
    strides = [sizes.optimization_hint(stride) for stride in b.get_stride()]
    choice = choose(m, n, k, tuple(strides), a.get_dtype(), lanes)
    if choice is None:
        return NotImplemented
    constants = {
        "M_BLOCK": max(next_power(m), choice.least_rows),
        "XBLOCK": choice.columns,
        "BLOCK": choice.terms,
        "REST": bool(k % choice.terms),
        "BIASED": bias is not None,
        "ALPHA": alpha,
        "BETA": beta,
    }
    inputs = [a, b]
    if bias is not None:
        inputs += flex.maybe_realize([lowerings[_aten.expand.default](bias, [m, n])])
    layout = ir.FixedLayout(a.get_device(), a.get_dtype(), [m, n])
    return _TEMPLATES[choice.kernel].append(inputs, layout, [n, 1, 1], [], [], constants)


def _lanes() -> int | None:
    """float32 lanes of a vector of the CPU that kernels are compiled for; None where aten's products stay."""
    scope = current()
    if scope is None or scope.settings.own_memory or scope.settings.device != "cpu" or scope.settings.arithmetic:
        return None
    target = Target.parse(scope.settings.target)
    return backend_for(target).capabilities(target).simd_width


LOWERINGS: dict[Any, Callable[..., Any]] = {_aten.mm.default: _mm, _aten.addmm.default: _addmm}

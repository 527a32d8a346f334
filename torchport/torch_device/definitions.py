"""Operators that Inductor has no lowering for, by others that it has one for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from torchport.torch_device import distances, gamma, optimizers, random
from torchport.torch_device.arguments import facts_of

__all__ = ["definition_of"]

_aten = torch.ops.aten


_PLAIN_WRITES = frozenset({_aten.copy_.default})
"""Writes whose result has the type of what they read."""


def _put(
    self: torch.Tensor, indices: Any, values: torch.Tensor, accumulate: bool = False, unsafe: bool = False
) -> torch.Tensor:
    _aten.index_put_(self, indices, values, accumulate)
    return self


def _weight_norm_backward(
    grad_w: torch.Tensor, saved_v: torch.Tensor, saved_g: torch.Tensor, saved_norms: torch.Tensor, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """``w = g * v / |v|``, with norms over all dimensions but ``dim``."""
    others = [d for d in range(saved_v.dim()) if d != dim % saved_v.dim()]
    along = (grad_w * saved_v).sum(others, keepdim=True)
    return saved_g / saved_norms * (grad_w - saved_v * (along / (saved_norms * saved_norms))), along / saved_norms


def _addcmul(self: torch.Tensor, tensor1: torch.Tensor, tensor2: torch.Tensor, *, value: Any = 1) -> Any:
    """torch's decomposition expands tensors without dimensions to symbolic sizes, which C++ refuses."""
    if self.dim() and tensor1.dim() and tensor2.dim():
        return _aten.addcmul(self, tensor1, tensor2, value=value)
    return self + value * tensor1 * tensor2


def _addcdiv(self: torch.Tensor, tensor1: torch.Tensor, tensor2: torch.Tensor, *, value: Any = 1) -> Any:
    """As ``_addcmul``."""
    if self.dim() and tensor1.dim() and tensor2.dim():
        return _aten.addcdiv(self, tensor1, tensor2, value=value)
    return self + value * tensor1 / tensor2


_DEFINITIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        **random.DEFINITIONS,
        **optimizers.DEFINITIONS,
        **distances.DEFINITIONS,
        **gamma.DEFINITIONS,
        _aten._index_put_impl_.default: _put,
        _aten.addcmul.default: _addcmul,
        _aten.addcdiv.default: _addcdiv,
        _aten._weight_norm_interface_backward.default: _weight_norm_backward,
    }
)
"""Operator -> what is traced in its place."""


def definition_of(operator: Any) -> Callable[..., Any]:
    """What is traced in an operator's place: itself, if there is nothing better.

    One that writes into ``self`` is the operator that does not, and a copy: functionalization knows no symbolic sizes
    for some of them (``clamp_``, ``tril_``).
    """
    facts, definition = facts_of(operator), _DEFINITIONS.get(operator)
    if facts.functional is None or facts.outs or facts.written != (0,) or operator in _PLAIN_WRITES or definition:
        found: Callable[..., Any] = definition or operator
        return found
    computed: Callable[..., Any] = _DEFINITIONS.get(facts.functional, facts.functional)

    def written(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result = computed(self, *args, **kwargs)
        if not torch.can_cast(result.dtype, self.dtype):
            raise TypeError(f"a result of {result.dtype} cannot be written into {self.dtype}")
        return self.copy_(result)

    return written

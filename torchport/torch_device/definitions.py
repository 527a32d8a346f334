"""Operators that Inductor has no lowering for, by others that it has one for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from torchport.torch_device import random
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


_DEFINITIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {**random.DEFINITIONS, _aten._index_put_impl_.default: _put}
)
"""Operator -> what is traced in its place."""


def definition_of(operator: Any) -> Callable[..., Any]:
    """What is traced in an operator's place: itself, if there is nothing better.

    One that writes into ``self`` is the operator that does not, and a copy: functionalization knows no symbolic sizes
    for some of them (``clamp_``, ``tril_``).
    """
    if operator in _DEFINITIONS:
        return _DEFINITIONS[operator]
    facts = facts_of(operator)
    if facts.functional is None or facts.outs or facts.written != (0,) or operator in _PLAIN_WRITES:
        return operator
    computed = _DEFINITIONS.get(facts.functional, facts.functional)

    def written(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result = computed(self, *args, **kwargs)
        if not torch.can_cast(result.dtype, self.dtype):
            raise TypeError(f"a result of {result.dtype} cannot be written into {self.dtype}")
        return self.copy_(result)

    return written

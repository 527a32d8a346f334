"""Tensors whose floats are payloads: PyTorch's operators on them, by their decompositions where there are any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch.utils._pytree import tree_map

from torchport.arithmetic.payload.constants import payload_of
from torchport.numerics.algebra.lanes import compute

__all__ = ["NoAlgebra", "PayloadTensor", "payloads", "plain"]

_MOST_CONSTANTS = 1 << 14
"""Different numbers in a tensor of constants: each is looked up."""


class NoAlgebra(Exception):
    """An operation that payloads know nothing of; the message names it."""


class PayloadTensor(torch.Tensor):
    """A tensor of floats for PyTorch, which holds payloads (int64, of its shape).

    operators: by name, for all overloads, what takes the operator and its arguments.
    """

    payload: torch.Tensor
    operators: ClassVar[Mapping[str, Callable[..., Any]]] = {}

    @staticmethod
    def __new__(cls, payload: torch.Tensor, dtype: torch.dtype = torch.float32) -> PayloadTensor:
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls, payload.shape, strides=payload.stride(), storage_offset=payload.storage_offset(), dtype=dtype
        )
        made.payload = payload
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[Any, Any] | None = None
    ) -> Any:
        name = func._schema.name.partition("::")[2]
        kwargs = dict(kwargs or {})
        if (operator := cls.operators.get(name)) is not None:
            return operator(func, *args, **kwargs)
        if (decomposition := _decompositions().get(func)) is not None:
            return decomposition(*args, **kwargs)
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            return func.decompose(*args, **kwargs)
        raise NoAlgebra(f"{name} is not known on payloads")


def _decompositions() -> Mapping[Any, Callable[..., Any]]:
    from torchport.inductor.compat import decomposition_table

    table: Mapping[Any, Callable[..., Any]] = decomposition_table
    return table


def plain(value: Any) -> Any:
    """``value`` with payloads (int64) in place of tensors of floats, also in lists; all else unchanged."""

    def one(leaf: Any) -> Any:
        is_float = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        return payloads(leaf) if is_float else leaf

    return tree_map(one, value)


def payloads(value: Any) -> torch.Tensor:
    """The payloads (int64) of a tensor or number: constants are looked up, integers are exact."""
    if isinstance(value, PayloadTensor):
        return value.payload
    if not isinstance(value, torch.Tensor):
        return torch.tensor(payload_of(float(value)))
    if value.is_complex():
        raise NoAlgebra("complex numbers are not known")
    if not value.is_floating_point():
        return compute("from_signed", value.to(torch.int64))
    distinct, places = torch.unique(value.double(), return_inverse=True)
    if distinct.numel() > _MOST_CONSTANTS:
        raise NoAlgebra("a tensor of many constants")
    return torch.tensor([payload_of(number) for number in distinct.tolist()], dtype=torch.int64)[places]

"""Calls of operators on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchport.torch_device.arguments import Facts, facts_of
from torchport.torch_device.host import on_host
from torchport.torch_device.plans import plan_of

__all__ = ["attempt", "call"]


_NUMBERS = (int, float, bool, complex)


def call(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute one operator call whose tensors are on a device; on the host if the device has no kernel for it."""
    facts = facts_of(operator)
    if facts.scalar is not None and type(args[1]) in _NUMBERS:
        return call(facts.scalar, args, kwargs)
    if facts.outs:
        return _into(operator, facts, args, kwargs)
    if facts.written:
        if any(map(_overlaps_itself, facts.targets(args, kwargs))):
            return on_host(operator, args, kwargs, "its result overlaps itself")
        args, kwargs = _without_overlap(facts, args, kwargs)
    plan, leaves = plan_of(operator, args, kwargs)
    if plan.run is None:
        return on_host(operator, args, kwargs, plan.reason)
    return facts.result(plan.run(leaves), args, kwargs)


def attempt(operator: Any, args: tuple[Any, ...]) -> Any:
    """The same on the device only: NotImplemented if it has no kernel for the call."""
    facts = facts_of(operator)
    if any(map(_overlaps_itself, facts.targets(args, {}))):
        return NotImplemented
    args, kwargs = _without_overlap(facts, args, {})
    plan, leaves = plan_of(operator, args, kwargs)
    return NotImplemented if plan.run is None else facts.result(plan.run(leaves), args, kwargs)


def _into(operator: Any, facts: Facts, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Compute what an ``out`` form writes, and copy it there."""
    named = dict(kwargs)
    outs = [named.pop(name) for name in facts.outs if name in named]
    if facts.functional is None or len(outs) < len(facts.outs):
        return on_host(operator, args, kwargs)
    results = call(facts.functional, args, named)
    results = [results] if isinstance(results, torch.Tensor) else list(results)
    for out, result in zip(outs, results, strict=True):
        if out.shape != result.shape:
            out.resize_(result.shape)
        out.copy_(result)
    return outs[0] if len(outs) == 1 else tuple(outs)


def _without_overlap(
    facts: Facts, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with copies of tensors that share some but not all of their memory with one that is written.

    A kernel's programs run in any order, so they must not read what others write.
    """
    targets = facts.targets(args, kwargs)
    places = {_storage(target): target for target in targets}

    def apart(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)([apart(item) for item in value]) if any(map(_is_tensor, value)) else value
        if not _is_tensor(value) or any(value is target for target in targets):
            return value
        target = places.get(_storage(value))
        same = target is None or (
            target.data_ptr() == value.data_ptr()
            and target.shape == value.shape
            and target.stride() == value.stride()
            and target.dtype == value.dtype
        )
        return value if same else value.clone()

    return tuple([apart(value) for value in args]), {name: apart(value) for name, value in kwargs.items()}


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether elements share memory, as in an expanded tensor: most operators refuse to write one."""
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() - int(tensor.storage_offset()) * tensor.itemsize if tensor.numel() else 0

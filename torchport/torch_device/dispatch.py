"""Calls of operators on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from torchport.compat import eval_frame
from torchport.runtime.operators import tensors_in
from torchport.torch_device import random
from torchport.torch_device.arguments import Facts
from torchport.torch_device.host import on_host, on_several_devices
from torchport.torch_device.plans import MIXED, Found, Operation, operation_of
from torchport.torch_device.selecting import without_masks

__all__ = ["attempt", "call", "compute", "untraced"]


_NOT_COMPOSED = "the operators that it is made of do not take these arguments"
_NUMBERS = (int, float, bool, complex)


def call(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute one operator call whose tensors are on a device; on the host if the device has no kernel for it."""
    return compute(operation_of(operator), args, kwargs)


def compute(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``call``, where the operation is known."""
    facts = operation.facts
    if kwargs and (generator := kwargs.get("generator")) is not None:
        if random.of_device(generator):
            with random.drawing_from(generator):
                return compute(operation, args, {**kwargs, "generator": None})
        return on_host(operation.operator, args, kwargs, "it is given a generator of the host's")
    if facts.scalar is not None and type(args[1]) in _NUMBERS:
        return call(facts.scalar, args, kwargs)
    if facts.outs:
        return _into(operation.operator, facts, args, kwargs)
    if facts.composed is not None:
        made = facts.composed(*args, **kwargs)
        return on_host(operation.operator, args, kwargs, _NOT_COMPOSED) if made is NotImplemented else made
    if facts.indexed:
        indices = without_masks(*args)
        if indices is NotImplemented:
            return on_host(operation.operator, args, kwargs, _NOT_COMPOSED)
        args = (args[0], indices, *args[2:])
    found, leaves = _found(operation, args, kwargs)
    if found.overlaps:
        return on_host(operation.operator, args, kwargs, "its result overlaps itself")
    if found.plan.run is None:
        if found.plan is MIXED and torch.Tag.pointwise in operation.operator.tags:
            return compute(operation, *_together(operation, args, kwargs))
        return on_host(operation.operator, args, kwargs, found.plan.reason)
    return facts.result(found.plan.run(leaves), args, kwargs)


def untraced(function: Any) -> Any:
    """``function``, which Dynamo leaves alone with all that it calls.

    Between two graphs of a compiled model, operators run in eager mode while Dynamo looks at every frame.
    """
    skip = eval_frame._FrameAction.SKIP
    eval_frame.set_code_exec_strategy(function.__code__, eval_frame._FrameExecStrategy(skip, skip))
    return function


def attempt(operator: Any, args: tuple[Any, ...]) -> Any:
    """The same on the device only: NotImplemented if it has no kernel for the call."""
    operation = operation_of(operator)
    found, leaves = _found(operation, args, {})
    if found.overlaps or found.plan.run is None:
        return NotImplemented
    return operation.facts.result(found.plan.run(leaves), args, {})


def _found(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Found, list[Any]]:
    """The plan of a call, and the leaves that it takes: none shares some of its memory with one that is written."""
    found, leaves = operation.find(args, kwargs)
    if found.written and not found.overlaps and found.shares(leaves):
        return operation.find(*_without_overlap(operation.facts, args, kwargs))
    return found, leaves


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


def _together(
    operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with 0-dim CPU tensors on the device of the others, which torch allows element by element.

    Raises RuntimeError for any other mixture of devices, as torch does.
    """
    found = {tensor.device for tensor in tensors_in((args, kwargs)) if tensor.dim() or tensor.device.type != "cpu"}
    found |= {tensor.device for tensor in operation.facts.targets(args, kwargs)}
    if len(found) > 1:
        raise on_several_devices(operation.operator, found)
    (device,) = found

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, torch.Tensor) else value

    here: tuple[tuple[Any, ...], dict[str, Any]] = tree_map(moved, (args, kwargs))
    return here


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


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() - int(tensor.storage_offset()) * tensor.itemsize if tensor.numel() else 0

"""Calls of operators on the device: which code computes one, found by its arguments."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from torchport.container import CorruptContainer, pack, unpack
from torchport.device.host import on_host
from torchport.device.targets import target_of
from torchport.plugin import backend_for
from torchport.runtime.cache import object_cache

__all__ = ["attempt", "call"]

MOST = 8192
"""Calls that are remembered by the sizes of their arguments."""
VARIANTS = 16
"""How many values of a number that code depends on get code of their own."""


@dataclass(frozen=True)
class _Slot:
    """Stands for a leaf, a tensor or a number that code takes as an argument, in the arguments of a call."""

    place: int


@dataclass(frozen=True)
class _Plan:
    """How a call is computed. ``run``: the generated code's ``call``; None: the host computes it, for ``reason``."""

    run: Callable[[list[Any]], Sequence[Any]] | None
    guards: Any = None
    reason: str = ""


_exact: dict[Any, _Plan] = {}
_classes: dict[Any, list[_Plan]] = {}
_variants: dict[Any, int] = {}
_numbers: set[Any] = set()
"""Operators whose code depends on the values of numbers."""
_lock = threading.RLock()


def call(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Compute one operator call whose tensors are on a device."""
    facts = _facts(operator)
    if facts.outs:
        return _into(facts, args, kwargs)
    plan, leaves = _planned(operator, args, kwargs)
    if plan.run is None:
        return on_host(operator, args, kwargs, plan.reason)
    return facts.result(plan.run(leaves), args, kwargs)


def attempt(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The same, if the device can: NotImplemented if not."""
    plan, leaves = _planned(operator, args, kwargs)
    return NotImplemented if plan.run is None else _facts(operator).result(plan.run(leaves), args, kwargs)


def _planned(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[_Plan, list[Any]]:
    leaves: list[Any] = []
    floats = operator not in _numbers
    key = [operator]
    for value in args:
        key.append(_key(value, leaves, floats))
    for name, value in kwargs.items():
        key += (name, _key(value, leaves, floats))
    exact = tuple(key)
    plan = _exact.get(exact)
    return (plan, leaves) if plan is not None else _find(operator, args, kwargs, leaves, exact)


def _key(value: Any, leaves: list[Any], floats: bool) -> Any:
    """What of an argument decides about its code. Appends the leaves in it to ``leaves``."""
    if isinstance(value, torch.Tensor):
        leaves.append(value)
        return value.dtype, value.shape, value.stride(), value.device
    kind = type(value)
    if kind is float and floats:
        leaves.append(value)
        return kind
    if kind in (list, tuple):
        return tuple([_key(item, leaves, floats) for item in value])
    return kind, value  # 1, 1.0 and True are equal as keys


@dataclass(frozen=True)
class _Facts:
    """Facts of an operator's schema.

    functional: the operator that returns what this one writes into ``out``.
    written: names of arguments that it writes, in the order of the results that alias them.
    """

    operator: Any
    functional: Any
    outs: tuple[str, ...]
    returned: tuple[int | str | None, ...]

    def result(self, results: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the call returns: new tensors in order, or arguments that were written."""
        fresh = iter(results)
        every = [next(fresh) if place is None else _argument(place, args, kwargs) for place in self.returned]
        if not every:
            return None
        return every[0] if len(every) == 1 else tuple(every)


def _argument(place: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return args[place] if isinstance(place, int) else kwargs[place]


@functools.cache
def _facts(operator: Any) -> _Facts:
    schema = operator._schema
    outs = tuple(a.name for a in schema.arguments if a.is_out)
    aliases: dict[str, int | str] = {}
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            for name in argument.alias_info.before_set:
                aliases[name] = argument.name if argument.kwarg_only else position
    returned = []
    for result in schema.returns:
        names = list(result.alias_info.before_set) if result.alias_info is not None else []
        returned.append(aliases.get(names[0]) if names else None)
    return _Facts(operator, _functional(operator) if outs else None, outs, tuple(returned))


def _functional(operator: Any) -> Any:
    """The overload with the same arguments but for ``out``; None if there is none."""
    packet = getattr(torch.ops.aten, operator._schema.name.partition("::")[2])
    wanted = [(a.name, str(a.type)) for a in operator._schema.arguments if not a.is_out]
    for name in packet.overloads():
        other = getattr(packet, name)
        if [(a.name, str(a.type)) for a in other._schema.arguments] == wanted and not other._schema.is_mutable:
            return other
    return None


def _into(facts: _Facts, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Compute what an ``out`` form writes, and copy it there."""
    named = dict(kwargs)
    outs = [named.pop(name) for name in facts.outs if name in named]
    if facts.functional is None or len(outs) < len(facts.outs):
        return on_host(facts.operator, args, kwargs)
    results = call(facts.functional, args, named)
    results = [results] if isinstance(results, torch.Tensor) else list(results)
    for out, result in zip(outs, results, strict=True):
        if out.shape != result.shape:
            out.resize_(result.shape)
        out.copy_(result)
    return outs[0] if len(outs) == 1 else tuple(outs)


def _find(
    operator: Any, args: Any, kwargs: Mapping[str, Any], leaves: list[Any], exact: Any
) -> tuple[_Plan, list[Any]]:
    """The plan of a call with these arguments, made where there is none, and the leaves that it takes."""
    with _lock:
        family = _family(exact, {})
        for plan in _classes.get(family, ()):
            if plan.guards is None or plan.guards(leaves):
                break
        else:
            plan = _make(operator, args, kwargs, leaves, family)
            if plan is None:  # its code depends on the numbers after all
                return _find(operator, args, kwargs, *_again(operator, args, kwargs))
            _classes.setdefault(family, []).append(plan)
        if len(_exact) >= MOST:
            _exact.clear()
        _exact[exact] = plan
        return plan, leaves


def _again(operator: Any, args: Any, kwargs: Mapping[str, Any]) -> tuple[list[Any], Any]:
    leaves: list[Any] = []
    key = [operator, *(_key(value, leaves, False) for value in args)]
    for name, value in kwargs.items():
        key += (name, _key(value, leaves, False))
    return leaves, tuple(key)


def _family(key: Any, sizes: dict[int, int]) -> Any:
    """A key in which sizes beyond 1 are numbered, equal ones alike, and strides are in classes."""
    if not isinstance(key, tuple):
        return key
    if len(key) == 4 and isinstance(key[0], torch.dtype):
        dtype, shape, strides, device = key
        return dtype, tuple(_size(n, sizes) for n in shape), _strides(shape, strides), device
    return tuple(_family(part, sizes) for part in key)


def _size(size: int, sizes: dict[int, int]) -> Any:
    return size if size < 2 else ("s", sizes.setdefault(size, len(sizes)))


def _strides(shape: Sequence[int], strides: Sequence[int]) -> Any:
    """For each dimension from the innermost out: its place, and whether it follows the one inside without a gap."""
    order = sorted(range(len(shape)), key=lambda d: (strides[d], -d))
    dense, found = 1, []
    for d in order:
        found.append((d, "dense" if strides[d] == dense else "0" if strides[d] == 0 else "gap"))
        dense = strides[d] * max(shape[d], 1)
    return tuple(found)


def _make(operator: Any, args: Any, kwargs: Mapping[str, Any], leaves: list[Any], family: Any) -> _Plan | None:
    device = next((leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor)), None)
    if device is None or any(isinstance(x, torch.Tensor) and not _is_on(x, device) for x in leaves):
        return _Plan(None, reason="it mixes devices" if device is not None else "it has no tensor")
    floats = any(not isinstance(leaf, torch.Tensor) for leaf in leaves)
    counted = _unnumbered(family)
    _variants[counted] = _variants.get(counted, 0) + 1
    if _variants[counted] > VARIANTS:
        return _Plan(None, reason=f"it was compiled for {VARIANTS} values of its numbers already")
    key = _cache_key(operator, family, leaves, device)
    try:
        code, guards = unpack(object_cache().get(key) or b"")[1].decode(), ""
        code, _, guards = code.rpartition("\0")
    except CorruptContainer:
        made = _worker().submit(_generate, operator, args, kwargs, leaves, device).result()
        if isinstance(made, str):
            if floats:
                _numbers.add(operator)
                return None
            return _Plan(None, reason=made)
        code, guards = made
        object_cache().put(key, pack({"operator": str(operator)}, f"{code}\0{guards}".encode()))
    return _load(code, guards)


def _unnumbered(family: Any) -> Any:
    """A family without the values of its numbers."""
    if isinstance(family, tuple):
        if len(family) == 2 and family[0] in (int, float):
            return family[0]
        return tuple(_unnumbered(part) for part in family)
    return family


def _is_on(tensor: torch.Tensor, device: torch.device) -> bool:
    return tensor.device == device and tensor.layout == torch.strided and not tensor.is_conj() and not tensor.is_neg()


def _cache_key(operator: Any, family: Any, leaves: Sequence[Any], device: torch.device) -> str:
    target = target_of(device.index)
    from torchport.inductor.scope import source_hash

    compiler = backend_for(target).compiler(target)
    parts = (torch.__version__, source_hash(), compiler.fingerprint(), str(target), repr(operator), repr(family))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def _worker() -> ThreadPoolExecutor:
    """A thread for tracing: the caller's dispatch state, modes and autograd must not be seen by it."""
    return ThreadPoolExecutor(1, "torchport-trace")


def _generate(
    operator: Any, args: Any, kwargs: Mapping[str, Any], leaves: Sequence[Any], device: torch.device
) -> tuple[str, str] | str:
    from torchport.device import trace
    from torchport.device.request import request_for

    places = iter(range(len(leaves)))
    floats = any(not isinstance(leaf, torch.Tensor) for leaf in leaves)

    def slots(value: Any) -> Any:
        if isinstance(value, torch.Tensor) or (type(value) is float and floats):
            return _Slot(next(places))
        return [slots(item) for item in value] if isinstance(value, (list, tuple)) else value

    slotted, named = [slots(value) for value in args], {name: slots(value) for name, value in kwargs.items()}
    returned = _facts(operator).returned

    def bind(values: Sequence[Any]) -> list[Any]:
        def fill(value: Any) -> Any:
            if isinstance(value, _Slot):
                return values[value.place]
            return [fill(item) for item in value] if isinstance(value, list) else value

        results = operator(*map(fill, slotted), **{name: fill(value) for name, value in named.items()})
        results = list(results) if isinstance(results, (list, tuple)) else [results]
        if returned and len(returned) == len(results):
            results = [r for r, place in zip(results, returned, strict=True) if place is None]
        return results

    try:
        made = trace.generate(operator, bind, leaves, request_for(device.index))
    except trace.NotGenerated as error:
        return str(error)
    return made.code, made.guards


def _load(code: str, guards: str) -> _Plan:
    from torchport.triton.compat import PyCodeCache

    module = PyCodeCache.load(code)
    return _Plan(module.call, _checker(guards) if guards else None)


def _checker(guards: str) -> Callable[[Sequence[Any]], bool]:
    """A function that says whether leaves satisfy an expression over the sizes of the tensors among them."""
    from torchport.inductor.compat import SYMPY_INTERP

    code, names = compile(guards, "<guards>", "eval"), dict(SYMPY_INTERP)

    def check(leaves: Sequence[Any]) -> bool:
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        return bool(eval(code, names, {"L": {f"t{place}": tensor for place, tensor in enumerate(tensors)}}))

    return check

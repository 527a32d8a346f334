"""Arguments of an operator call: what of them decides about its code, and what its code takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.compat import numbers_are_tensors
from torchport.runtime.operators import tensors_in
from torchport.torch_device.composed import composed

__all__ = ["Call", "Facts", "Slot", "facts_of", "family", "operator_named"]


@dataclass(frozen=True)
class Slot:
    """Stands for a leaf in the arguments of a call. ``place``: among the leaves."""

    place: int


_aten = torch.ops.aten
_COUNTING = frozenset(
    {
        _aten.add.Tensor, _aten.add_.Tensor, _aten.sub.Tensor, _aten.sub_.Tensor, _aten.rsub.Scalar, _aten.mul.Tensor,
        _aten.mul_.Tensor, _aten.eq.Scalar, _aten.ne.Scalar, _aten.lt.Scalar, _aten.le.Scalar, _aten.gt.Scalar,
        _aten.ge.Scalar, _aten.fill_.Scalar, _aten.masked_fill.Scalar, _aten.clamp.default,
    }
)  # fmt: skip
"""Operators whose integers are arguments of their code, if their tensor is of integers: they count tokens.

Others may be computed in another way for some numbers, as powers are."""
_COUNTERS = (torch.int64, torch.int32)


class Call:
    """One call of an operator.

    operator, args, kwargs: as torch passes them.
    leaves: what its code takes as arguments: tensors, and numbers of some types if ``numbers`` says so.
    key: all else that decides about the operator's code, and for each tensor its type, sizes, strides and device.
    """

    __slots__ = ("_numbers", "args", "key", "kwargs", "leaves", "operator")

    def __init__(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], numbers: bool) -> None:
        self.operator = operator
        self.args = args
        self.kwargs = kwargs
        self._numbers: tuple[type, ...] = (float,) if numbers else ()
        if numbers and operator in _COUNTING and not kwargs and getattr(args[0], "dtype", None) in _COUNTERS:
            self._numbers = (float, int)
        self.leaves: list[Any] = []
        key: list[Any] = []
        for value in args:
            key.append(self._key(value))
        for name, value in kwargs.items():
            key += (name, self._key(value))
        self.key = tuple(key)

    def _key(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            self.leaves.append(value)
            return value.dtype, value.shape, value.stride(), value.device
        kind = type(value)
        if kind in self._numbers:
            self.leaves.append(value)
            return kind
        if kind in (list, tuple):
            return tuple([self._key(item) for item in value])
        return kind, value  # 1, 1.0 and True are equal as keys

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors among the leaves."""
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    @property
    def has_numbers(self) -> bool:
        """Whether there are numbers among the leaves."""
        return len(self.tensors) < len(self.leaves)

    def written(self, facts: Facts) -> tuple[int, ...]:
        """Which leaves the call writes."""
        args, kwargs = self.template()
        values = [
            (args[place] if place < len(args) else None) if isinstance(place, int) else kwargs.get(place)
            for place in facts.written
        ]
        slots = [slot for value in values for slot in (value if isinstance(value, list) else [value])]
        return tuple(slot.place for slot in slots if isinstance(slot, Slot))

    def template(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with a Slot for each leaf."""
        places = iter(range(len(self.leaves)))

        def slotted(value: Any) -> Any:
            if isinstance(value, torch.Tensor) or type(value) in self._numbers:
                return Slot(next(places))
            return [slotted(item) for item in value] if isinstance(value, (list, tuple)) else value

        return [slotted(value) for value in self.args], {name: slotted(value) for name, value in self.kwargs.items()}


@dataclass(frozen=True)
class Facts:
    """Facts of an operator's schema.

    functional: the operator that returns what this one writes into its ``out`` arguments, or into ``self``; None if
        there is none.
    outs: names of these arguments.
    written: names or positions of the arguments that it writes.
    returned: for each result, the name or position of the argument that it is; None for a new tensor.
    many: the result is one list of new tensors.
    indexed: its second argument are indices, masks perhaps.
    composed: what computes it out of other operators; None if a kernel of its own does.
    scalar: the operator that takes a number as second argument, where this one is given numbers but takes tensors only.
    """

    functional: Any
    outs: tuple[str, ...]
    written: tuple[int | str, ...]
    returned: tuple[int | str | None, ...]
    many: bool
    indexed: bool
    composed: Callable[..., Any] | None
    scalar: Any

    @functools.cached_property
    def single(self) -> int | None:
        """Of an operator with one result: -1 for a new tensor, or the position of the argument that it is."""
        if self.many or len(self.returned) != 1:
            return None
        place = self.returned[0]
        return -1 if place is None else place if isinstance(place, int) else None

    def result(self, made: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a call returns, with ``made`` for the new tensors."""
        if self.single is not None:
            return made[0] if self.single < 0 else args[self.single]
        if self.many:
            return list(made)
        fresh = iter(made)
        every = [
            next(fresh) if place is None else args[place] if isinstance(place, int) else kwargs[place]
            for place in self.returned
        ]
        if not every:
            return None
        return every[0] if len(every) == 1 else tuple(every)

    def targets(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The tensors that a call writes."""
        found = [
            (args[place] if place < len(args) else None) if isinstance(place, int) else kwargs.get(place)
            for place in self.written
        ]
        return list(tensors_in(found))


@functools.cache
def facts_of(operator: Any) -> Facts:
    """The facts of ``operator``."""
    schema = operator._schema
    outs = tuple(a.name for a in schema.arguments if a.is_out)
    aliases: dict[str, int | str] = {}
    written: list[int | str] = []
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            place = argument.name if argument.kwarg_only else position
            written.append(place)
            aliases.update(dict.fromkeys(argument.alias_info.before_set, place))
    returned = []
    for result in schema.returns:
        names = list(result.alias_info.before_set) if result.alias_info is not None else []
        returned.append(aliases.get(names[0]) if names else None)
    many = returned == [None] and isinstance(schema.returns[0].type, torch.ListType)
    types = [str(a.type) for a in schema.arguments]
    functional = _functional(operator)
    return Facts(
        functional=functional,
        outs=outs,
        written=tuple(written),
        returned=tuple(returned),
        many=many,
        indexed=types[1:2] == ["List[Optional[Tensor]]"],
        composed=composed(operator, functional),
        scalar=_scalar_form(operator),
    )


def _scalar_form(operator: Any) -> Any:
    """The overload whose second argument is a number, if this one's is a tensor and torch does not convert numbers."""
    packet, arguments = _packet(operator), operator._schema.arguments
    if len(arguments) < 2 or str(arguments[1].type) != "Tensor" or numbers_are_tensors(packet.__name__):
        return None
    wanted = [(a.name, "number" if place == 1 else str(a.type)) for place, a in enumerate(arguments)]
    return next((o for o in _overloads(packet) if [(a.name, str(a.type)) for a in o._schema.arguments] == wanted), None)


def _functional(operator: Any) -> Any:
    """The operator with the same arguments that writes none of them."""
    if not operator._schema.is_mutable:
        return None
    wanted = [(a.name, str(a.type)) for a in operator._schema.arguments if not a.is_out]
    packet = _packet(operator) if any(a.is_out for a in operator._schema.arguments) else _packet(operator, "_")
    for other in _overloads(packet) if packet is not None else ():
        if [(a.name, str(a.type)) for a in other._schema.arguments] == wanted and not other._schema.is_mutable:
            return other
    return None


def operator_named(name: str) -> Any:
    """The operator of aten with that name, without or with ``aten::`` before it and an overload behind a dot."""
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _packet(operator: Any, without: str = "") -> Any:
    """All overloads of an operator's name, less ``without`` at its end; None if there is no such name."""
    namespace, _, name = operator._schema.name.partition("::")
    return getattr(getattr(torch.ops, namespace), name.removesuffix(without), None)


def _overloads(packet: Any) -> Iterator[Any]:
    return (getattr(packet, name) for name in packet.overloads())


def family(key: Any) -> Any:
    """A key in which sizes and strides are in classes: 0, 1 or more, in which order, with or without gaps."""
    if not isinstance(key, tuple):
        return key
    if len(key) == 4 and isinstance(key[0], torch.dtype):
        dtype, shape, strides, device = key
        return dtype, tuple([min(size, 2) for size in shape]), _strides(shape, strides), device
    return tuple(family(part) for part in key)


def _strides(shape: Sequence[int], strides: Sequence[int]) -> Any:
    """For each dimension from the innermost out: its place, and whether it follows the one inside without a gap."""
    dense, found = 1, []
    for d in sorted(range(len(shape)), key=lambda d: (strides[d], -d)):
        found.append((d, "dense" if strides[d] == dense else "still" if strides[d] == 0 else "gap"))
        dense = strides[d] * max(shape[d], 1)
    return tuple(found)

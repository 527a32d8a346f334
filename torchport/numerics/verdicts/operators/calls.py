"""Recorded operator calls: the operator and its arguments, so that it can be called again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.numerics.graphs.decode import decode
from torchport.numerics.graphs.permitted import overload
from torchport.numerics.graphs.special import Refused
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.verdicts.observed import tensor_of

__all__ = ["OperatorCall", "operator_call"]


@dataclass(frozen=True)
class OperatorCall:
    """A call of an operator that returns its results.

    function: the overload.
    args: in the order of its schema.
    kwargs: the keyword-only arguments.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Without overload, and without the namespace of aten: ``addmm``."""
        return str(self.function._schema.name).removeprefix("aten::")

    def argument(self, name: str) -> Any:
        """A value by its name in the schema; the default if it was not given."""
        for index, one in enumerate(self.function._schema.arguments):
            if one.name == name:
                given = self.args[index] if index < len(self.args) else self.kwargs.get(name, one.default_value)
                return given
        raise KeyError(name)

    @property
    def dtype(self) -> torch.dtype | None:
        """Of its first floating-point tensor, if it has one."""
        return next((value.dtype for value in self.args if _is_float(value)), None)

    def with_floats(self, change: Callable[[torch.Tensor], torch.Tensor]) -> OperatorCall:
        """The same call with changed copies of its floating-point tensors."""

        def other(value: Any) -> Any:
            return change(value) if _is_float(value) else value

        return OperatorCall(
            self.function, tuple(map(other, self.args)), {name: other(value) for name, value in self.kwargs.items()}
        )

    def run(self) -> tuple[torch.Tensor, ...]:
        """Call it: the tensors it returns, in order."""
        return tensors(self.function(*self.args, **self.kwargs))


def tensors(result: Any) -> tuple[torch.Tensor, ...]:
    """The tensors of what an operator returned, in order."""
    found: Sequence[Any] = result if isinstance(result, (list, tuple)) else (result,)
    return tuple(one for one in found if isinstance(one, torch.Tensor))


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def operator_call(run: Run, launch: Launch) -> OperatorCall | None:
    """The operator that a launch called, with the tensors it read and without ``out``.

    None if something was not kept, or the operator may not be called (``overload``). Raises RunError for damaged files.
    """
    try:
        function = overload(re.sub(r"\.out$", ".default", launch.operation or ""))
    except Refused:
        return None
    values = dict(_values(run, launch))
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for wanted in function._schema.arguments:
        if wanted.name not in values and not wanted.has_default_value():
            return None
        value = values.get(wanted.name, wanted.default_value)
        if value is _MISSING:
            return None
        if wanted.kwarg_only:
            kwargs[wanted.name] = value
        else:
            args.append(value)
    return OperatorCall(function, tuple(args), kwargs)


_MISSING = object()


def _values(run: Run, launch: Launch) -> Iterator[tuple[str, Any]]:
    """Arguments by name, lists of tensors put together."""
    members: dict[str, list[Any]] = {}
    for arg in launch.args:
        value = _value(run, arg)
        name, is_member, _ = arg.name.partition("[")
        if not is_member:
            yield arg.name, value
        else:
            members.setdefault(name, []).append(value)
    for name, found in members.items():
        yield name, _MISSING if any(one is _MISSING for one in found) else found


def _value(run: Run, arg: Arg) -> Any:
    if arg.storage is not None:
        found = tensor_of(run, arg, after=False)
        return _MISSING if found is None else found
    try:
        return decode(arg.value, lambda node: _MISSING)
    except Refused:
        return _MISSING

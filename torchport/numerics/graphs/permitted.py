"""Which operators and functions a graph may name. Graphs come from run folders, which strangers may have written."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from torchport.numerics.graphs.special import RULES, Refused
from torchport.program.operators import NAMESPACES, computes

__all__ = ["overload", "plain_call"]

_NARROW = ("int4pack", "quantize", "fake_quant", "mkldnn", "_cudnn", "miopen", "nextafter")

_NAMES = (
    "abs add and_ eq floordiv ge getitem gt index inv invert le lshift lt mod mul ne neg not_ or_ pos pow rshift sub "
    "truediv truth xor"
)
_PLAIN: Mapping[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in _NAMES.split()},
    **{f"builtins.{name}": function for name, function in (("max", max), ("min", min), ("round", round), ("pow", pow))},
    **{f"torch.{name}": getattr(torch, name) for name in ("sym_float", "sym_int", "sym_max", "sym_min", "sym_not")},
}
_POWERS = ("operator.pow", "builtins.pow", "operator.lshift")
_MOST = 64  # what powers and shifts of numbers may be by: sizes have that many bits


def plain_call(target: str) -> Callable[..., Any] | None:
    """A function on numbers, and on tuples, that a graph may call; None if ``target`` is none.

    It raises Refused for other arguments, and for powers that would be endless.
    """
    function = _PLAIN.get(target)
    if function is None:
        return None
    allowed = (int, float, complex, torch.Tensor)

    def call(*args: Any, **kwargs: Any) -> Any:
        first, *others = args or (None,)
        indexed = target == "operator.getitem" and isinstance(first, (list, tuple))
        if kwargs or not all(isinstance(one, allowed) for one in (others if indexed else args)):
            raise Refused("it is given something else than numbers")
        if target in _POWERS and not all(isinstance(one, float) or abs(one) <= _MOST for one in others):
            raise Refused(f"it computes a power beyond {_MOST}")
        return function(*args)

    return call


def overload(target: str) -> torch._ops.OpOverload:
    """The operator that a dump or a launch calls ``target``, if that may be called.

    It may, by its schema, if it takes and returns tensors and numbers, besides devices and options in words: then it
    can touch no file, and changes nothing but the tensors that it is given. Operators of other libraries must have a
    rule here. Raises Refused for others, and for those that have no float64 value.
    """
    namespace, _, rest = target.partition(".")
    name, _, overload_name = rest.rpartition(".")
    if namespace == "higher_order":
        raise Refused("it calls graphs of its own")
    if namespace not in NAMESPACES and target not in RULES:
        raise Refused(f"operations of {namespace[:40]} are not known to compute in float64")
    if namespace == "torchport":
        importlib.import_module("torchport.ops.attention.sdpa")  # which defines those that have a rule
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), name), overload_name)
    except (AttributeError, RuntimeError):
        raise Refused("this build of PyTorch has no such operation") from None
    if not isinstance(found, torch._ops.OpOverload):
        raise Refused("it is not an operation of PyTorch")
    if torch.Tag.nondeterministic_seeded in found.tags and target not in RULES:  # rules refuse dropout themselves
        raise Refused("it draws random numbers; its value must be recorded")
    if not computes(found._schema):
        raise Refused("it may do more than compute tensors from tensors")
    if any(part in str(found) for part in _NARROW):
        raise Refused("its result is defined by a narrower type's representation")
    return found

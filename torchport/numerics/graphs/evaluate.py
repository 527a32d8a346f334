"""Evaluating a dumped FX graph in float64, eagerly: the truth of a graph, and a second opinion on a kernel.

Floating-point tensors are widened, what the graph makes itself (constants, factories) is float64, and conversions
between floating-point types do not round: the semantics of golden kernels (docs/numerics.md). Conversions to integers,
comparisons and indices are made on the float64 values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch

from torchport.errors import TorchportError
from torchport.numerics.graphs import special as fx_special
from torchport.numerics.graphs.dump import Dump, by_name, needed, references
from torchport.numerics.graphs.special import Refused
from torchport.numerics.graphs.writes import Writes

__all__ = ["NotEvaluated", "decode", "evaluate", "widened"]

Value: TypeAlias = Any
"""A tensor, a number, None, or a tuple or list of them."""

_PLAIN: Mapping[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in operator.__all__},
    **{f"builtins.{name}": function for name, function in (("max", max), ("min", min), ("round", round), ("pow", pow))},
    **{f"torch.{name}": getattr(torch, name) for name in ("sym_float", "sym_int", "sym_max", "sym_min", "sym_not")},
}


_KERNEL = "higher_order.triton_kernel_wrapper_mutation"
_OVERWRITTEN = "a Triton kernel of the user's may have written into it"


class NotEvaluated(TorchportError):
    """A node of an FX graph has no float64 value: ``node``, ``target`` and the ``reason``."""

    def __init__(self, node: str, target: str, reason: str) -> None:
        super().__init__(f"FX node {node} ({target}) has no float64 value: {reason}")
        self.node, self.target, self.reason = node, target, reason


def widened(value: Value, dtype: torch.dtype = torch.float64) -> Value:
    """Floating-point tensors as ``dtype`` (complex ones as that of the same width), also in lists; all else as is."""
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            return value.to(torch.promote_types(dtype, torch.complex64))
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return type(value)(widened(one, dtype) for one in value)
    return value


def evaluate(
    graph: Dump,
    inputs: Mapping[str, Value],
    dtype: torch.dtype = torch.float64,
    wanted: Iterable[str] | None = None,
    given: Mapping[str, Value] | None = None,
    refused: dict[str, str] | None = None,
) -> dict[str, Value]:
    """Values of the nodes ``wanted`` (default: the graph's outputs), by name.

    ``inputs``: values of placeholders, tensors of any dtype or integers; ``given``: values of other nodes, which are
    then not computed: all that is behind them is not needed either. Tensors given are not changed. Values keep the
    shape of the graph's; their strides may differ. Raises NotEvaluated for a node that has no such value or lacks an
    input, ArtifactError for a dump or a name that is not valid. Where ``refused`` is given, such nodes, and those that
    need them, get their reason in it instead, and are not in the result.
    """
    nodes = by_name(graph)
    names = [name for name in graph["outputs"] if name is not None] if wanted is None else list(wanted)
    known = {**inputs, **(given or {})}
    order = needed(graph, names, known.keys())
    last_use = _last_uses(nodes, order)
    changed, after = _written_by_kernels(graph, given or {})
    writes = Writes(nodes)
    values: dict[str, Value] = {}
    kept = set(names)

    def value_of(name: str) -> Value:
        if name not in values:
            value = widened(known[name], dtype)
            values[name] = value.clone() if writes.owned(name, known) and isinstance(value, torch.Tensor) else value
        return values[name]

    def apart(name: str, value: Value) -> Value:
        """A value in memory of its own, where it is the graph's own and another is written into."""
        if not writes.changed or writes.root(name) != name or not isinstance(value, torch.Tensor):
            return value
        memory = {values[one].untyped_storage().data_ptr() for one in writes.changed if one in values}
        return value.clone() if value.untyped_storage().data_ptr() in memory else value

    def computed(node: dict[str, Any]) -> Value:
        if node["name"] in after:
            raise NotEvaluated(node["name"], node["target"], _OVERWRITTEN)
        uses = set(references([node["args"], node["kwargs"]]))
        uses |= set(writes.before(node["name"], uses, known))
        for used in sorted(uses):
            if refused is not None and used in refused:
                raise NotEvaluated(node["name"], node["target"], refused[used])
        first = next(references(node["args"]), None)
        described = {
            **node,
            "first": nodes[first]["value"] if first is not None else None,
            "own": first is not None and writes.owned(first, known),
        }
        try:
            with torch.no_grad():
                return _compute(graph, described, value_of, dtype)
        except Refused as error:
            raise NotEvaluated(node["name"], node["target"], str(error)) from None
        except (RuntimeError, TypeError, ValueError, NotImplementedError, IndexError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise NotEvaluated(node["name"], node["target"], reason or type(error).__name__) from error

    for name in order:
        try:
            values[name] = apart(name, computed(nodes[name]))
        except NotEvaluated as error:
            if refused is None:
                raise
            refused[name] = error.reason if error.reason in refused.values() else str(error)
        for used in set(references([nodes[name]["args"], nodes[name]["kwargs"]])):
            if last_use.get(used) == name and used not in kept and used not in writes.changed:
                values.pop(used, None)
    for name in changed.intersection(names):
        if refused is None:
            raise NotEvaluated(name, nodes[name]["target"], _OVERWRITTEN)
        refused[name] = _OVERWRITTEN
    for name in names:
        for writer in writes.ever(name, known):
            if refused is not None and writer in refused:
                refused[name] = refused[writer]
    return {name: value_of(name) for name in names if refused is None or name not in refused}


def _written_by_kernels(graph: Dump, given: Mapping[str, Value]) -> tuple[set[str], set[str]]:
    """Nodes that are handed to Triton kernels of the user's, which may write into them, and those that read such a node
    afterwards; without nodes whose values are ``given``."""
    handed: set[str] = set()
    after: set[str] = set()
    for node in graph["nodes"]:
        used = set(references([node["args"], node["kwargs"]]))
        if node["target"] == _KERNEL:
            handed |= used - given.keys()
        elif used & handed:
            after.add(node["name"])
    return handed, after


def _last_uses(nodes: Mapping[str, dict[str, Any]], order: Iterable[str]) -> dict[str, str]:
    last: dict[str, str] = {}
    for name in order:
        for used in references([nodes[name]["args"], nodes[name]["kwargs"]]):
            last[used] = name
    return last


def _compute(graph: Dump, node: dict[str, Any], value_of: Callable[[str], Value], dtype: torch.dtype) -> Value:
    target: str = node["target"]
    if node["op"] == "placeholder":
        raise Refused("this input was not recorded")
    if node["op"] == "get_attr":
        return widened(_constant(graph, target), dtype)
    if node["op"] != "call_function":
        raise Refused(f"{node['op']} is no operation of a compiled graph")
    args = [decode(one, value_of) for one in node["args"]]
    kwargs = {name: decode(one, value_of) for name, one in node["kwargs"].items()}
    if (plain := _PLAIN.get(target)) is not None:
        return plain(*args, **kwargs)
    if (special := fx_special.RULES.get(target)) is not None:
        return widened(special(node, *args, **kwargs), dtype)
    return _call(node, _overload(target), args, kwargs, dtype)


def _overload(target: str) -> torch._ops.OpOverload:
    namespace, _, rest = target.partition(".")
    name, _, overload = rest.rpartition(".")
    if namespace == "higher_order":
        raise Refused("it calls graphs of its own")
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except (AttributeError, RuntimeError):
        raise Refused("this build of PyTorch has no such operation") from None
    if not isinstance(found, torch._ops.OpOverload):
        raise Refused("it is no operation of PyTorch's")
    if (reason := fx_special.refusal(found)) is not None:
        raise Refused(reason)
    return found


def _call(
    node: dict[str, Any], target: torch._ops.OpOverload, args: list[Value], kwargs: dict[str, Value], dtype: torch.dtype
) -> Value:
    """Call an operation with wide dtypes. What it would change is copied first where it is not the graph's own, and it
    gives what it changed."""
    parameters = target._schema.arguments
    positional = {parameter.name: value for parameter, value in zip(parameters, args, strict=False)}
    bound = {**positional, **kwargs}
    makes = not any(isinstance(one, torch.Tensor) for one in torch.utils._pytree.tree_leaves(list(bound.values())))
    written: Value = None
    for parameter in parameters:
        name = parameter.name
        if "ScalarType" in str(parameter.type) or name in ("dtype", "out_dtype"):
            if bound.get(name) is None and makes and _floats(node):  # the default type is another one
                bound[name] = dtype
            elif name in bound:
                bound[name] = _wide(bound[name], dtype)
        elif name == "device" and bound.get(name) is not None:
            bound[name] = torch.device("cpu")
        elif parameter.alias_info is not None and parameter.alias_info.is_write and name in bound:
            if not node["own"]:
                bound[name] = torch.utils._pytree.tree_map_only(torch.Tensor, _copy, bound[name])
            written = bound[name]
    result = _invoke(target, bound)
    if _floats(node) and isinstance(result, torch.Tensor) and result.is_floating_point() and result.dtype != dtype:
        # Integers only went in, and PyTorch's rule made them its default type.
        wide = {name: one.to(dtype) if isinstance(one, torch.Tensor) else one for name, one in bound.items()}
        result = _invoke(target, wide) if torch.Tag.pointwise in target.tags else result.to(dtype)
    return written if result is None else result


def _invoke(target: torch._ops.OpOverload, bound: Mapping[str, Value]) -> Value:
    parameters = target._schema.arguments
    # Positional-only parameters are named `self` and the like, which keywords can say as well.
    return target(
        *[bound[p.name] for p in _leading(parameters, bound)],
        **{p.name: bound[p.name] for p in parameters[len(_leading(parameters, bound)) :] if p.name in bound},
    )


def _leading(parameters: list[torch.Argument], bound: Mapping[str, Value]) -> list[torch.Argument]:
    found = []
    for parameter in parameters:
        if parameter.kwarg_only or parameter.name not in bound:
            break
        found.append(parameter)
    return found


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone()


def _floats(node: dict[str, Any]) -> bool:
    """Whether the graph says that the node is one floating-point tensor."""
    value = node["value"]
    name = value.get("dtype") if isinstance(value, dict) else None
    return name is not None and bool(getattr(torch, name).is_floating_point)


def _wide(given: Value, dtype: torch.dtype) -> Value:
    if not isinstance(given, torch.dtype):
        return given
    if given.is_complex:
        return torch.promote_types(dtype, torch.complex64)
    return dtype if given.is_floating_point else given


def _constant(graph: Dump, target: str) -> torch.Tensor:
    found = graph.get("constants", {}).get(target)
    if found is None or found["values"] is None:
        raise Refused("the value of this constant was not kept")
    values = [decode(one, lambda name: name) for one in found["values"]]
    kind: torch.dtype = getattr(torch, found["dtype"])
    return torch.tensor(values, dtype=torch.float64 if kind.is_floating_point else kind).reshape(found["shape"])


def decode(value: Any, value_of: Callable[[str], Value]) -> Value:
    """What ``fx_graph.encode`` wrote, with ``value_of`` a node's name. Raises Refused for what has no value here."""
    if isinstance(value, list):
        return [decode(one, value_of) for one in value]
    if not isinstance(value, dict):
        return value
    ((key, inner),) = value.items()
    if key == "node":
        return value_of(inner)
    if key == "tuple":
        return tuple(decode(one, value_of) for one in inner)
    if key == "dict":
        return {name: decode(one, value_of) for name, one in inner.items()}
    if key == "slice":
        return slice(*(decode(one, value_of) for one in inner))
    if key == "float":
        return float(inner)
    if key == "complex":
        return complex(*(decode(one, value_of) for one in inner))
    if key == "device":
        return torch.device("cpu")
    if key in ("dtype", "layout", "memory_format"):
        return getattr(torch, inner)
    raise Refused(f"an argument is {inner!r}, which is known by name only")

"""Calls of collectives, eager (``c10d``) and functional (``_c10d_functional``), in one form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from torchport.compat import resolve_process_group
from torchport.numerics.runs.schema import CollectiveInfo, Operation
from torchport.runtime.operators import bound_arguments, is_plain

__all__ = ["NOT_COLLECTIVE", "CollectiveCall", "calls_of_operator", "is_distributed", "waited_tensor"]

_EAGER, _FUNCTIONAL = "c10d::", "_c10d_functional::"
NOT_COLLECTIVE = frozenset(
    ("barrier", "monitored_barrier_", "check_for_nan", "wait_tensor", "_wrap_tensor_autograd", "start_coalescing")
)
"""Operators of both libraries that move nothing between ranks."""

_REDUCTIONS = ("sum", "avg", "product", "min", "max", "band", "bor", "bxor", "premul_sum")
"""By c10d's numbers (``ReduceOp.RedOpType``)."""


@dataclass
class CollectiveCall:
    """What one rank gives to a collective and gets from it.

    info: operation, group and number, as launches.jsonl has it; ``number`` is the recorder's to fill in
    given: tensors that it reads, in the order of ranks where there is one for each
    taken: tensors that it writes, likewise; empty for functional ones until they are called
    """

    info: CollectiveInfo
    given: list[torch.Tensor]
    taken: list[torch.Tensor] = field(default_factory=list)


def is_distributed(func: Any) -> bool:
    """Whether an operator is one of torch's libraries of collectives."""
    name = getattr(getattr(func, "_schema", None), "name", "")
    return name.startswith((_EAGER, _FUNCTIONAL))


def waited_tensor(func: Any, args: Sequence[Any]) -> torch.Tensor | None:
    """The tensor that ``wait_tensor`` waits for; None for other operators."""
    return args[0] if func._schema.name == f"{_FUNCTIONAL}wait_tensor" else None


def calls_of_operator(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[CollectiveCall] | None:
    """The collectives that a call of an operator makes: several if it is coalesced; None if it is not known here.

    Of a functional operator that makes its results, ``taken`` is empty.
    """
    library, _, name = func._schema.name.partition("::")
    bound = {argument.name: value for argument, _, value in bound_arguments(func._schema, args, kwargs)}
    read = _READERS.get((library, name))
    if read is None:
        return None
    group = _group(bound)
    if group is None:
        return None
    calls = list(read(bound, group))
    return calls if all(map(is_plain, (one for call in calls for one in (*call.given, *call.taken)))) else None


@dataclass(frozen=True)
class _Group:
    name: str
    ranks: list[int]
    own: int  # this process' place in it


def _group(bound: dict[str, Any]) -> _Group | None:
    from torch import distributed

    group = bound.get("process_group", bound.get("group_name"))
    if isinstance(group, str):
        group = resolve_process_group(group)
    elif isinstance(group, torch.ScriptObject):
        group = distributed.ProcessGroup.unbox(group)
    if group is None:
        return None
    try:
        ranks = distributed.get_process_group_ranks(group)
    except (KeyError, ValueError, RuntimeError):  # one that torch.distributed did not make: its ranks are its own
        ranks = list(range(group.size()))
    return _Group(str(group.group_name), list(ranks), int(group.rank()))


def _reduction(value: Any) -> str:
    """``sum``, ``avg`` ...; ``premul_sum`` and others that say no more."""
    if isinstance(value, str):
        return value.lower()
    number = int(value.op())
    return _REDUCTIONS[number] if number < len(_REDUCTIONS) else f"reduction {number}"


def _info(
    operation: Operation,
    group: _Group,
    reduce: str | None = None,
    root: int | None = None,
    sends: list[int] | None = None,
    takes: list[int] | None = None,
) -> CollectiveInfo:
    return {
        "operation": operation, "group": group.name, "ranks": group.ranks, "number": 0, "reduce": reduce, "root": root,
        "sends": sends, "takes": takes, "backward": False, "waited": True,
    }  # fmt: skip


def _root(bound: dict[str, Any], group: _Group) -> int:
    """The rank that sends or takes all: eager operators count within the group, ``src`` among all ranks."""
    return int(bound["src"]) if "src" in bound else group.ranks[int(bound["root_rank"])]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


_Calls = Iterator[CollectiveCall]


def _all_reduce(bound: dict[str, Any], group: _Group) -> _Calls:
    """``allreduce_`` and the functional ones in place write what they read."""
    inputs = bound["tensors"] if "tensors" in bound else bound.get("inputs", bound.get("input"))
    for one in _list(inputs):
        yield CollectiveCall(_info("all_reduce", group, reduce=_reduction(bound["reduce_op"])), [one], [one])


def _new_all_reduce(bound: dict[str, Any], group: _Group) -> _Calls:
    for call in _all_reduce(bound, group):
        yield CollectiveCall(call.info, call.given)


def _all_gather(bound: dict[str, Any], group: _Group) -> _Calls:
    inputs = bound["input_tensors"] if "input_tensors" in bound else bound.get("inputs", bound.get("input_tensor"))
    outputs = bound["output_tensors"] if "output_tensors" in bound else bound.get("outputs", bound.get("output_tensor"))
    for taken, given in zip(_list(outputs), _list(inputs), strict=True):
        yield CollectiveCall(_info("all_gather", group), [given], _list(taken))


def _new_all_gather(bound: dict[str, Any], group: _Group) -> _Calls:
    out = [bound["out"]] if "out" in bound else []
    for given in _list(bound["inputs"] if "inputs" in bound else bound["input"]):
        yield CollectiveCall(_info("all_gather", group), [given], out)


def _reduce_scatter(bound: dict[str, Any], group: _Group) -> _Calls:
    inputs = bound["input_tensors"] if "input_tensors" in bound else bound.get("inputs", bound.get("input_tensor"))
    outputs = bound["output_tensors"] if "output_tensors" in bound else bound.get("outputs", bound.get("output_tensor"))
    reduce = _reduction(bound["reduce_op"])
    for taken, given in zip(_list(outputs), _list(inputs), strict=True):
        yield CollectiveCall(_info("reduce_scatter", group, reduce=reduce), _list(given), [taken])


def _new_reduce_scatter(bound: dict[str, Any], group: _Group) -> _Calls:
    out = [bound["out"]] if "out" in bound else []
    reduce = _reduction(bound["reduce_op"])
    for given in _list(bound["inputs"] if "inputs" in bound else bound["input"]):
        yield CollectiveCall(_info("reduce_scatter", group, reduce=reduce), [given], out)


def _broadcast(bound: dict[str, Any], group: _Group) -> _Calls:
    for one in _list(bound.get("tensors", bound.get("input"))):
        yield CollectiveCall(_info("broadcast", group, root=_root(bound, group)), [one], [one])


def _new_broadcast(bound: dict[str, Any], group: _Group) -> _Calls:
    for call in _broadcast(bound, group):
        yield CollectiveCall(call.info, call.given)


def _reduce(bound: dict[str, Any], group: _Group) -> _Calls:
    reduce, root = _reduction(bound["reduce_op"]), _root(bound, group)
    for one in bound["tensors"]:
        yield CollectiveCall(_info("reduce", group, reduce, root), [one], [one])


def _gather(bound: dict[str, Any], group: _Group) -> _Calls:
    taken = [tensor for row in bound["output_tensors"] for tensor in row]
    yield CollectiveCall(_info("gather", group, root=_root(bound, group)), list(bound["input_tensors"]), taken)


def _scatter(bound: dict[str, Any], group: _Group) -> _Calls:
    given = [tensor for row in bound["input_tensors"] for tensor in row]
    yield CollectiveCall(_info("scatter", group, root=_root(bound, group)), given, list(bound["output_tensors"]))


def _all_to_all(bound: dict[str, Any], group: _Group) -> _Calls:
    given, taken = list(bound["input_tensors"]), list(bound["output_tensors"])
    sends, takes = [one.numel() for one in given], [one.numel() for one in taken]
    yield CollectiveCall(_info("all_to_all", group, sends=sends, takes=takes), given, taken)


def _all_to_all_single(bound: dict[str, Any], group: _Group) -> _Calls:
    given, taken = bound["input"], bound["output"]
    sends = _parts(given, bound["input_split_sizes"], group)
    takes = _parts(taken, bound["output_split_sizes"], group)
    yield CollectiveCall(_info("all_to_all", group, sends=sends, takes=takes), [given], [taken])


def _new_all_to_all(bound: dict[str, Any], group: _Group) -> _Calls:
    given = bound["input"]
    row = math.prod(given.shape[1:])
    sends = _parts(given, bound["input_split_sizes"], group)
    takes = [int(size) * row for size in bound["output_split_sizes"]] or sends
    yield CollectiveCall(_info("all_to_all", group, sends=sends, takes=takes), [given])


def _parts(tensor: torch.Tensor, sizes: Sequence[int], group: _Group) -> list[int]:
    """Elements of a tensor for each rank. ``sizes``: rows for each; empty for equal parts."""
    row = math.prod(tensor.shape[1:])
    return [int(size) * row for size in sizes] or [tensor.numel() // len(group.ranks)] * len(group.ranks)


_EAGER_READERS: dict[str, Callable[[dict[str, Any], _Group], _Calls]] = {
    "allreduce_": _all_reduce, "allreduce_coalesced_": _all_reduce, "allgather_": _all_gather,
    "_allgather_base_": _all_gather, "allgather_into_tensor_coalesced_": _all_gather,
    "reduce_scatter_": _reduce_scatter, "_reduce_scatter_base_": _reduce_scatter,
    "reduce_scatter_tensor_coalesced_": _reduce_scatter, "broadcast_": _broadcast, "reduce_": _reduce,
    "gather_": _gather, "scatter_": _scatter, "alltoall_": _all_to_all, "alltoall_base_": _all_to_all_single,
}  # fmt: skip
_NEW_READERS: dict[str, Callable[[dict[str, Any], _Group], _Calls]] = {
    "all_reduce": _new_all_reduce, "all_reduce_coalesced": _new_all_reduce, "all_reduce_": _all_reduce,
    "all_reduce_coalesced_": _all_reduce, "all_gather_into_tensor": _new_all_gather,
    "all_gather_into_tensor_out": _new_all_gather, "all_gather_into_tensor_coalesced": _new_all_gather,
    "reduce_scatter_tensor": _new_reduce_scatter, "reduce_scatter_tensor_out": _new_reduce_scatter,
    "reduce_scatter_tensor_coalesced": _new_reduce_scatter, "broadcast": _new_broadcast, "broadcast_": _broadcast,
    "all_to_all_single": _new_all_to_all,
}  # fmt: skip
_READERS = {
    **{("c10d", name): read for name, read in _EAGER_READERS.items()},
    **{("_c10d_functional", name): read for name, read in _NEW_READERS.items()},
}

"""Whether a recorded kernel computes the algebra of its FX nodes: both on the same payloads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from torchport.arithmetic.payload.field import NAN
from torchport.errors import ArtifactError, CompilationError, RunError, UnsupportedOperation
from torchport.numerics.algebra.aten import Payloads
from torchport.numerics.algebra.equivalence import NOT_PROVABLE, PROVEN, REFUTED, SEEDS, Difference, Equivalence
from torchport.numerics.algebra.launch import AlgebraLaunch, NotProvable
from torchport.numerics.algebra.payloads import alike, shown
from torchport.numerics.algebra.tensor import NoAlgebra, payloads
from torchport.numerics.graphs.decode import decode
from torchport.numerics.graphs.dump import Dump, by_name, needed
from torchport.numerics.graphs.permitted import overload, plain_call
from torchport.numerics.graphs.sizes import same_order
from torchport.numerics.graphs.special import Refused
from torchport.numerics.graphs.subgraph import called, constant
from torchport.numerics.graphs.views import aliases_of
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.numerics.verdicts.replay import NotReplayable, view
from torchport.numerics.verdicts.verdict import KernelVerdict

__all__ = ["node_values", "of_nodes", "with_algebra"]

_CALL_ERRORS = (
    RuntimeError, TypeError, ValueError, NotImplementedError, LookupError, ArithmeticError, AttributeError,
)  # fmt: skip
"""What calling an operation with arguments that are not its own raises: a dump's need not fit."""


def of_nodes(call: RecordedCall, launch: Launch, seeds: int = SEEDS) -> Equivalence:
    """The verdict on a kernel's results against its FX nodes, from random payloads in what the kernel reads."""
    try:
        replay, storages, _ = replay_of(call.run, launch)
        algebra = AlgebraLaunch.of(replay, storages)
        elements = sum(_seed(call, launch, algebra, seed) for seed in range(seeds))
    except _Differs as found:
        return Equivalence(REFUTED, "", 0, found.difference)
    except (
        NotProvable, NotReplayable, UnsupportedOperation, CompilationError, ArtifactError, RunError
    ) as error:  # fmt: skip
        return Equivalence(NOT_PROVABLE, str(error))
    return Equivalence(PROVEN if elements else NOT_PROVABLE, "" if elements else "all results are NaN", elements)


def with_algebra(verdict: KernelVerdict, call: RecordedCall, launch: Launch) -> KernelVerdict:
    """The verdict on a kernel's launch, and whether it computes the algebra of its FX nodes.

    A refutation is a reason for the reader; it does not change the level, as the kernel may be a legal rewrite that the
    field does not model.
    """
    found = of_nodes(call, launch)
    if (difference := found.difference) is None:
        return replace(verdict, algebra=found.verdict)
    reason = f"{difference.argument}{list(difference.index)} is not the algebra of its FX nodes"
    return replace(verdict, algebra=found.verdict, reasons=(*verdict.reasons, reason))


class _Differs(Exception):
    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.argument)
        self.difference = difference


def _seed(call: RecordedCall, launch: Launch, algebra: AlgebraLaunch, seed: int) -> int:
    """The number of elements that agree. Raises _Differs, and what ``of_nodes`` catches."""
    arguments = {one.name: one for one in algebra.arguments}
    before = algebra.payloads(seed)
    left = call.observed.left_by(launch)
    given = _given(call, launch, algebra, before)
    for name in left:
        given.pop(name, None)
    values = node_values(call.dump, list(left), given)
    if not left:
        raise NotProvable("no FX node stands for what the kernel leaves")
    after = algebra.run(before)
    agree = 0
    for node, observed in left.items():
        one = arguments[observed.arg.name]
        if one.storage is None:
            raise NotProvable(f"what {node} left is not known")
        found = view(one, after[one.storage])
        wanted = payloads(values[node]) if algebra.storages[one.storage].is_floating_point() else values[node]
        if math.prod(found.shape) != wanted.numel():
            raise NotProvable(f"{node} has another size than argument {one.name}")
        found, wanted = found.reshape(wanted.shape), wanted.to(found.dtype)
        same = alike(found, wanted) if algebra.storages[one.storage].is_floating_point() else found == wanted
        if not bool(same.all()):
            index = tuple(int(i) for i in (~same).nonzero()[0])
            raise _Differs(Difference(node, index, *(_text(x[index]) for x in (found, wanted))))  # type: ignore[arg-type]
        agree += int((found != NAN).sum())
    return agree


def _text(value: torch.Tensor) -> str:
    return shown(int(value)) if value.dtype == torch.int64 else str(value.item())


def _given(
    call: RecordedCall, launch: Launch, algebra: AlgebraLaunch, before: Mapping[int, torch.Tensor]
) -> dict[str, Any]:
    """Values of the nodes and inputs that a launch read, floats as payloads, and the numbers of its call."""
    graph, known, left = call.graph, call.observed.nodes_read(launch), call.observed.left_before(launch)
    given: dict[str, Any] = {
        name: value for name, value in graph.inputs.items()
        if not isinstance(value, torch.Tensor) or not value.is_floating_point()
    }  # fmt: skip
    roles = {arg.name: arg.role for arg in launch.args}
    for one in algebra.arguments:
        if one.storage is None or roles.get(one.name) not in ("in", "inout"):
            continue
        if one.name not in known:
            raise NotProvable(f"argument {one.name} holds no FX node's value")
        node = known[one.name]
        made = left[node].arg if node in left else graph.input_args.get(node)
        if made is not None:  # the kernel may read it as another shape
            one = replace(one, shape=made.shape, stride=made.stride, offset=made.offset)
        value, shape = view(one, before[one.storage]), graph.shape(node)  # type: ignore[index]
        if shape is not None and tuple(value.shape) != tuple(shape):
            if math.prod(shape) != value.numel() or not same_order(shape, tuple(value.shape)):
                raise NotProvable(f"argument {one.name} is not in the shape of {node}")
            value = value.reshape(shape)
        held: Any = Payloads(value) if algebra.storages[one.storage].is_floating_point() else value  # type: ignore[index]
        for name in (node, *aliases_of(graph.nodes, node, graph.shape)):
            given[name] = held
    return given


def node_values(graph: Dump, wanted: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of FX nodes, of which floats are payloads where they follow from payloads.

    ``given``: values of other nodes and of inputs. Raises NotProvable for an operation that is not known, by name.
    """
    nodes, wanted = by_name(graph), list(wanted)
    values: dict[str, Any] = dict(given)

    def value_of(name: str) -> Any:
        if name not in values:
            raise NotProvable(f"the value of {name} is not known")
        return values[name]

    for name in needed(graph, wanted, given.keys()):
        node = nodes[name]
        try:
            with torch.no_grad():
                values[name] = _computed(graph, node, value_of)
        except (Refused, NoAlgebra) as error:
            raise NotProvable(f"FX node {name} ({node['target']}): {error}") from None
        except _CALL_ERRORS as error:
            reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
            raise NotProvable(f"FX node {name} ({node['target']}): {reason}") from error
    return {name: values[name] for name in wanted}


def _computed(graph: Dump, node: Mapping[str, Any], value_of: Any) -> Any:
    target: str = node["target"]
    if node["op"] == "placeholder":
        raise Refused("the kernel does not read this input")
    if node["op"] == "get_attr":
        return constant(graph, target)
    args = [decode(value, value_of) for value in node["args"]]
    kwargs = {key: decode(value, value_of) for key, value in node["kwargs"].items()}
    if target == "operator.getitem" and (plain := plain_call(target)) is not None:
        return plain(*args, **kwargs)
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    if not any(isinstance(tensor, Payloads) for tensor in tensors):
        real = called({**node, "own": False, "first": None}, args, kwargs, torch.float64)
        makes_floats = isinstance(real, torch.Tensor) and real.is_floating_point()
        if not makes_floats or not tensors or any(tensor.is_floating_point() for tensor in tensors):
            return real
        args, kwargs = tree_map(_from_integers, (args, kwargs))  # so that floats of integers are what kernels have
    found = overload(target)
    if any(one.alias_info is not None and one.alias_info.is_write for one in found._schema.arguments):
        raise Refused("it writes into what it is given")
    return found(*args, **kwargs)


def _from_integers(value: Any) -> Any:
    return Payloads(payloads(value)) if isinstance(value, torch.Tensor) else value

"""Records the operators that a compiled graph calls: products, convolutions, attention, sorting and the like."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from torchport.inductor.codegen.description import DESCRIPTION
from torchport.inductor.observation.generated_code import buffer_names, results_named
from torchport.numerics.graphs.dump import encode
from torchport.numerics.recording.first_launch import FirstLaunch
from torchport.numerics.recording.graph_calls import Graph, GraphCall
from torchport.numerics.recording.launch_writer import LaunchWriter
from torchport.numerics.recording.memory import storage_key, to_host, without_dispatch_modes
from torchport.numerics.recording.operand import Operand
from torchport.numerics.recording.site import Site
from torchport.runtime.operators import HIDDEN_VIEWS, UNINITIALIZED, bound_arguments, is_plain, is_written

__all__ = ["COLLECTIVES", "OperatorMode", "OperatorRecorder", "arguments_of", "repeat_call", "returned_tensors"]

_REPEATED = frozenset(
    ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention_for_cpu", "torchport::sdpa")
)
"""Operators whose first call is repeated; both calls should give the same bits."""

COLLECTIVES = ("c10d", "_c10d_functional", "_c10d_functional_autograd")
"""Libraries of operators between ranks."""


class OperatorMode(TorchDispatchMode):
    """Has the operators recorded that a graph calls while the mode is active."""

    supports_higher_order_operators = True

    def __init__(self, recorder: OperatorRecorder, call: GraphCall) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.call = call

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile works under this mode."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Dynamo is off already where a graph runs; turning it off again would cost more than this mode does."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            self.recorder.skip(func)
            return func(*args, **kwargs)
        if func.namespace in COLLECTIVES:
            return func(*args, **kwargs)  # recorded by ``recording.collectives``, if there are several ranks
        frame = _generated_frame(sys._getframe(1))
        if frame is None or func.is_view or func in UNINITIALIZED or func in HIDDEN_VIEWS:
            return func(*args, **kwargs)
        return self.recorder.run(self.call, func, args, kwargs, frame)


def _generated_frame(frame: FrameType | None) -> FrameType | None:
    """The nearest caller that is a graph's code."""
    while frame is not None and DESCRIPTION not in frame.f_globals:
        frame = frame.f_back
    return frame


@dataclass
class OperatorSite(Site):
    """A line of generated code that calls an operator.

    written: positions or keywords of the tensors that it writes; if empty, it writes only its results
    """

    written: tuple[int | str, ...]

    def outputs(self, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> list[torch.Tensor]:
        """The tensors that a call wrote."""
        if not self.written:
            return returned_tensors(result)
        return [args[place] if isinstance(place, int) else kwargs[place] for place in self.written]


class OperatorRecorder:
    """Runs operators and records them."""

    def __init__(self, writer: LaunchWriter) -> None:
        self._writer = writer
        self._sites: dict[tuple[int, int, Any], OperatorSite] = {}

    def skip(self, func: Any) -> None:
        """Note that a call was not recorded."""
        self._writer.store.note(f"operation {func} was not recorded: it is no plain operator")

    def run(self, call: GraphCall, func: Any, args: Any, kwargs: Any, frame: FrameType) -> Any:
        """Call an operator at the line that ``frame`` is at, and record it. Returns its result."""
        site = self._site(func, args, kwargs, frame)
        first = None
        if self._writer.stores_tensors(site):
            with without_dispatch_modes():
                first = self._first(call, site, func, args, kwargs, frame)
        result = func(*args, **kwargs)
        outputs = site.outputs(args, kwargs, result)
        shapes = tuple(tensor.shape for tensor in outputs) if call.graph.dynamic else None
        variant = site.variants.get(shapes)
        if variant is not None and first is None:
            self._writer.write_repeat(call, variant, self._writer.summaries(call, variant, outputs)[0])
            return result
        flags = repeat_call(call, func, args, kwargs, result)
        with without_dispatch_modes():
            if first is None:
                first = self._first(call, site, func, args, kwargs, frame)
            if not site.written:
                first.operands += _results(call.graph, result, frame)
            if flags is not None:
                first.checks.append("repeat")
                first.flags += flags
            first.summarize()
            nodes = [operand.node for operand in first.written if operand.node is not None]
            site.variants[shapes] = first.write("extern", operation=str(func), nodes=nodes)
        return result

    def _site(self, func: Any, args: Any, kwargs: Any, frame: FrameType) -> OperatorSite:
        key = (id(frame.f_code), frame.f_lineno, func)
        site = self._sites.get(key)
        if site is None:
            bound = bound_arguments(func._schema, args, kwargs)
            written = tuple(place for argument, place, value in bound if is_written(argument) and is_plain(value))
            site = self._sites.setdefault(key, OperatorSite(written))
        return site

    def _first(
        self, call: GraphCall, site: OperatorSite, func: Any, args: Any, kwargs: Any, frame: FrameType
    ) -> FirstLaunch:
        return FirstLaunch(self._writer, call, site, _arguments(call.graph, func, args, kwargs, frame))


def _arguments(graph: Graph, func: Any, args: Any, kwargs: Any, frame: FrameType) -> list[Operand]:
    """The arguments of a call, in the order of the schema, so that the recorded call can be repeated."""
    values = list(_values(func, args, kwargs))
    buffers = buffer_names(frame, [value for _, _, value in values])
    return [
        Operand(name, role, buffer, graph.node(buffer, role), value)
        for (name, role, value), buffer in zip(values, buffers, strict=True)
    ]


def arguments_of(func: Any, args: Any, kwargs: Any, node: Callable[[torch.Tensor], str | None]) -> list[Operand]:
    """The same of a call that no graph's code makes. ``node``: the FX node that stands for a tensor."""
    return [
        Operand(name, role, None, node(value) if is_plain(value) else None, value)
        for name, role, value in _values(func, args, kwargs)
    ]


def _values(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[str, str, Any]]:
    """Name, role and value of each argument of a call."""
    for argument, _, bound in bound_arguments(func._schema, args, kwargs):
        role = ("out" if argument.is_out else "inout") if is_written(argument) else "in"
        for name, value in _elements(argument.name, bound):
            yield name, role, value


def _results(graph: Graph, result: Any, frame: FrameType) -> list[Operand]:
    """The results of a call: ``result``, ``result[1]`` ..."""
    returned = list(result) if isinstance(result, (list, tuple)) else [result]
    named = zip(results_named(frame.f_code, frame.f_lineno, len(returned)), returned, strict=True)
    tensors = [(buffer, value) for buffer, value in named if is_plain(value)]  # gradients not asked for are None
    return [
        Operand(f"result[{index}]" if index else "result", "out", buffer, graph.node(buffer, "out"), value)
        for index, (buffer, value) in enumerate(tensors)
    ]


def _elements(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A tensor argument, or the elements of a list of tensors, by name; other values as JSON."""
    if is_plain(value):
        yield name, value
    elif isinstance(value, (list, tuple)) and any(map(is_plain, value)):
        for index, element in enumerate(value):
            yield f"{name}[{index}]", element if is_plain(element) else encode(element)
    else:
        yield name, encode(value)


def returned_tensors(result: Any) -> list[torch.Tensor]:
    """The tensors that an operator returned."""
    return [value for value in (result if isinstance(result, (list, tuple)) else [result]) if is_plain(value)]


def repeat_call(call: GraphCall, func: Any, args: Any, kwargs: Any, result: Any) -> list[str] | None:
    """Call an operator again on the same values and flag results with other bits.

    Returns None for operators that are not repeated: they write to what they read, or may add in another order.
    """
    if func._schema.name.removeprefix("aten::") not in _REPEATED:
        return None
    outputs = returned_tensors(result)
    read = [*args, *(value for name, value in kwargs.items() if name != "out")]
    if {storage_key(tensor) for tensor in outputs} & {storage_key(value) for value in read if is_plain(value)}:
        return None
    with without_dispatch_modes():
        first = [_bits(tensor, call) for tensor in outputs]
    again = returned_tensors(func(*args, **kwargs))
    with without_dispatch_modes():
        pairs = zip(first, again, strict=True)
        changed = [index for index, (bits, tensor) in enumerate(pairs) if not torch.equal(bits, _bits(tensor, call))]
    return [f"nondeterministic: a second call gave other bits in result {index}" for index in changed]


def _bits(tensor: torch.Tensor, call: GraphCall) -> torch.Tensor:
    """A copy of a tensor's elements as bytes."""
    whole = to_host(tensor, call.graph.mirrors).detach()
    return whole.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)

"""Operators of torch's that a compiled graph calls: products, convolutions, attention, sorting and the like."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from torchport.inductor.description import DESCRIPTION
from torchport.numerics.graphs.dump import encode
from torchport.numerics.recording.first_launch import Site, Variant
from torchport.numerics.recording.generated_code import buffer_names, results_named
from torchport.numerics.recording.memory import fetch, is_plain, storage_key, unseen
from torchport.numerics.runs.summary import plan
from torchport.runtime.operators import HIDDEN_VIEWS, UNINITIALIZED

if TYPE_CHECKING:
    from torchport.numerics.recording.graph_calls import GraphCall
    from torchport.numerics.recording.recorder import Recorder

__all__ = ["Operations", "first_operation"]

_REPEATED = frozenset(("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention_for_cpu"))
"""Operators that are called twice when they are first seen, and should give the same bits."""


class Operations(TorchDispatchMode):
    """Active while a graph runs."""

    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder, call: GraphCall) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.call = call

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile works under this mode."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Dynamo is off already where a graph runs; to turn it off again takes longer than all that is done here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        recorder, call = self.recorder, self.call
        if not isinstance(func, torch._ops.OpOverload):
            recorder.store.note(f"operation {func} was not recorded: it is no plain operator")
            return func(*args, **kwargs)
        frame = _generated(sys._getframe(1))
        if frame is None or func.is_view or func in UNINITIALIZED or func in HIDDEN_VIEWS:
            return func(*args, **kwargs)
        site = recorder.operation_site(frame, func)
        if not site.variants or (recorder.level == "full" and site.seen < recorder.calls):
            result, variant = recorder.first_operation(
                call, site, func, args, kwargs, lambda: func(*args, **kwargs), frame
            )
            site.variants[_shapes(_written(site, args, kwargs, result), call)] = variant
            return result
        result = func(*args, **kwargs)
        outputs = _written(site, args, kwargs, result)
        known = site.variants.get(_shapes(outputs, call))
        if known is None:
            _, variant = recorder.first_operation(call, site, func, args, kwargs, lambda: result, frame)
            site.variants[_shapes(outputs, call)] = variant
        else:
            recorder.later(call, site, known, outputs, ())
        return result


def _generated(frame: FrameType | None) -> FrameType | None:
    """The frame of a graph's code that is the nearest caller."""
    while frame is not None and DESCRIPTION not in frame.f_globals:
        frame = frame.f_back
    return frame


def _shapes(outputs: list[torch.Tensor], call: GraphCall) -> Any:
    return tuple(one.shape for one in outputs) if call.graph.dynamic else None


def _written(site: Site, args: Any, kwargs: Any, result: Any) -> list[torch.Tensor]:
    """The tensors that a call of an operator wrote or made, in the order of its first line."""
    found = [args[place] if isinstance(place, int) else kwargs[place] for place in site.places]
    if site.results:
        found += _tensors(result)
    return found


def _tensors(value: Any) -> list[torch.Tensor]:
    if is_plain(value):
        return [value]
    return [one for one in value if is_plain(one)] if isinstance(value, (list, tuple)) else []


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A tensor argument, or those of a list of tensors, by name; others as JSON."""
    if is_plain(value):
        yield name, value
    elif isinstance(value, (list, tuple)) and any(is_plain(one) for one in value):
        for index, one in enumerate(value):
            yield f"{name}[{index}]", one if is_plain(one) else encode(one)
    else:
        yield name, encode(value)


def first_operation(
    recorder: Recorder,
    call: GraphCall,
    site: Site,
    func: Any,
    args: Any,
    kwargs: Any,
    run: Callable[[], Any],
    frame: FrameType,
) -> tuple[Any, Variant]:
    """Call an operator, and write down all there is to say of it. Returns its result too.

    Its arguments stand in the order of its schema, so that it can be called again from what is written; what it makes
    is called ``result``, ``result[1]`` ...
    """
    full = recorder.level == "full" and site.seen < recorder.calls
    site.seen += 1
    values: list[tuple[str, str, Any]] = []
    places: list[int | str] = []
    for index, argument in enumerate(func._schema.arguments):
        given = index < len(args)
        if not given and argument.name not in kwargs:
            continue
        value = args[index] if given else kwargs[argument.name]
        written = argument.alias_info is not None and argument.alias_info.is_write
        role = ("out" if argument.is_out else "inout") if written else "in"
        if written and is_plain(value):
            places.append(index if given else argument.name)
        values += [(name, role, one) for name, one in _flat(argument.name, value)]
    kept: dict[int, str | None] = {}
    if full:
        with unseen():
            kept = {i: recorder.keep(call, v) for i, (_, r, v) in enumerate(values) if is_plain(v)}
    result = run()
    flags = _repeated(call, func, args, kwargs, result)
    if flags and not full:  # what it read is as it was
        full = True
        with unseen():
            kept = {i: recorder.keep(call, v) for i, (_, r, v) in enumerate(values) if is_plain(v) and r == "in"}
    made = [] if places else _tensors(result)
    returned = list(result) if isinstance(result, (list, tuple)) else [result]
    site.places, site.results = places, bool(made)
    with unseen():
        buffers = buffer_names(frame, [value for _, _, value in values])
        named = results_named(frame.f_code, frame.f_lineno, len(returned))
        # What was not asked for is None, gradients of inputs for one.
        buffers += [name for name, one in zip(named, returned, strict=True) if is_plain(one)] if made else []
        values += [("result" if i == 0 else f"result[{i}]", "out", one) for i, one in enumerate(made)]
        storages: dict[int, int] = {}
        described = []
        for index, ((name, role, value), buffer) in enumerate(zip(values, buffers, strict=True)):
            one = recorder.argument(call, name, role, buffer, value, storages)
            if is_plain(value):
                one["before"] = kept.get(index)
                if role != "in":
                    one["summary"] = recorder.summary(call, value)
                    one["after"] = recorder.keep(call, value) if full else None
            described.append(one)
        outputs = [value for _, role, value in values if role != "in" and is_plain(value)]
        variant = Variant(recorder.number(), [plan(one) for one in outputs], bool(flags))
        nodes = [one["node"] for one in described if one["role"] in ("out", "inout") and one["node"] is not None]
        recorder.line(
            call,
            "extern",
            described,
            operation=str(func),
            nodes=nodes,
            site=variant.number,
            checks=[] if flags is None else ["repeat"],
            flags=flags or [],
            unrecorded=recorder.missing(described) if full else f"level {recorder.level}",
        )
    return result, variant


def _repeated(call: GraphCall, func: Any, args: Any, kwargs: Any, result: Any) -> list[str] | None:
    """What a second call of an operator on the same values says of it; None where it is not called again: it writes to
    what it reads, or may add up in another order each time."""
    if func._schema.name.removeprefix("aten::") not in _REPEATED:
        return None
    outputs = _tensors(result)
    read = [value for name, value in kwargs.items() if name != "out"]
    if {storage_key(one) for one in outputs} & {storage_key(one) for one in [*args, *read] if is_plain(one)}:
        return None
    with unseen():
        first = [_bits(one, call) for one in outputs]
    again = _tensors(func(*args, **kwargs))
    with unseen():
        pairs = zip(first, again, strict=True)
        wrong = [index for index, (bits, one) in enumerate(pairs) if not torch.equal(bits, _bits(one, call))]
    return [f"nondeterministic: a second call gave other bits in result {index}" for index in wrong]


def _bits(tensor: torch.Tensor, call: GraphCall) -> torch.Tensor:
    """A copy of a tensor's elements as bytes."""
    whole = fetch(tensor, call.graph.mirrors).detach()
    return whole.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)

"""Records the collectives of a rank: what it gave before, and what it had when the result was waited for."""

from __future__ import annotations

import math
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from torchport.compat import TracingContext, current_graph_task
from torchport.inductor.codegen.description import DESCRIPTION
from torchport.inductor.observation.generated_code import buffer_names
from torchport.numerics.recording.caller import source_line
from torchport.numerics.recording.collective_calls import (
    NOT_COLLECTIVE,
    CollectiveCall,
    calls_of_operator,
    is_distributed,
    waited_tensor,
)
from torchport.numerics.recording.graph_calls import Graph, GraphCall
from torchport.numerics.recording.launch_writer import LaunchWriter
from torchport.numerics.recording.memory import storage_key, without_dispatch_modes
from torchport.numerics.recording.operand import Operand
from torchport.numerics.recording.operators import returned_tensors
from torchport.numerics.recording.overhead import OverheadBudget
from torchport.runtime.operators import tensors_in, written_arguments

__all__ = ["CollectiveRecorder"]

_OVERWRITING = frozenset({torch.ops.aten.copy_.default, torch.ops.aten.zero_.default, torch.ops.aten.fill_.Scalar})
_ELSEWHERE = (
    "collectives were called in another thread than the one that opened the recording: they are not recorded, and "
    "those that follow in their groups may be taken for others; open the recording in the thread that calls them"
)
NOT_COMPLETE = "it was not complete when the recording ended"


@dataclass
class _Pending:
    """A collective that was called and whose result was not seen yet.

    memory: storages that it writes
    work: what an eager one is waited for with; None for functional ones, which ``wait_tensor`` waits for
    """

    call: CollectiveCall
    operation: str
    within: GraphCall
    frame: FrameType | None
    operands: list[Operand]
    source: Any
    memory: frozenset[int]
    work: Any

    @property
    def is_complete(self) -> bool:
        """Whether an eager one has ended; of functional ones that is not known."""
        return self.work is not None and bool(self.work.is_completed())


class CollectiveRecorder(TorchDispatchMode):
    """Records collectives while it is active, in the thread that opened the recording.

    What a rank gives is read before the operator runs. What it gets is read when the program has waited for it; where
    no Python waits, as in DDP's reducer, when another operator reads it. The recording itself waits for nothing: a
    program that reads too early is seen doing so.
    """

    def __init__(self, writer: LaunchWriter, current_call: Callable[[], GraphCall | None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self._writer, self._current_call = writer, current_call
        self._pending: list[_Pending] = []
        self._numbers: Counter[str] = Counter()
        self._known: dict[Any, bool] = {}
        self._written: dict[int, tuple[str, int]] = {}
        self._outside = Graph("", {}, {}, None, False, OverheadBudget(math.inf, 1))

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile works under this mode."""
        return True

    def written(self) -> dict[int, tuple[str, int]]:
        """By memory, group and number of the last collective that wrote it; afterwards none is known."""
        written, self._written = self._written, {}
        return written

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record until the context closes."""
        from torch import distributed

        kind: Any = distributed.Work
        original, own = kind.wait, threading.get_ident()

        def wait(work: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != own and not any(one.work is work for one in self._pending):
                self._elsewhere()
            done = original(work, *args, **kwargs)
            self._settle(lambda one: one.work is work, waited=True)
            return done

        kind.wait = wait
        with ExitStack() as stack:
            stack.callback(self._finish)
            stack.callback(setattr, kind, "wait", original)
            stack.enter_context(self)
            yield

    def _elsewhere(self) -> None:
        """Say, once, that a collective was waited for that no thread of the recording called."""
        if not self.counts["elsewhere"]:
            self.counts["elsewhere"] = 1
            self._writer.store.note(_ELSEWHERE)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(kind.__module__.startswith("torch.distributed") for kind in types):
            return NotImplemented  # a DTensor, or a result that is not there yet: what it calls is seen here next
        known = self._known.get(func)
        if known is None:
            known = self._known[func] = is_distributed(func)
        if not known and not self._pending:
            return func(*args, **kwargs)
        if TracingContext.try_get() is not None:
            return func(*args, **kwargs)
        if self._pending:
            self._settle_read(func, args, kwargs)
        if not known:
            return func(*args, **kwargs)
        waited = waited_tensor(func, args)
        if waited is not None:
            result = func(*args, **kwargs)
            memory = storage_key(waited)
            self._settle(lambda one: memory in one.memory, waited=True)
            return result
        return self._run(func, args, kwargs, sys._getframe(1))

    def _run(self, func: Any, args: Any, kwargs: Any, frame: FrameType) -> Any:
        if func._schema.name.rpartition("::")[2] in NOT_COLLECTIVE:
            return func(*args, **kwargs)
        calls = calls_of_operator(func, args, kwargs)
        if calls is None:
            self._writer.store.note(f"{func} was not recorded: it is no collective that is known here")
            return func(*args, **kwargs)
        generated = _generated(frame)
        within = self._current_call() if generated is not None else None
        inner = GraphCall(self._outside, 0) if within is None else GraphCall(within.graph, within.number)
        source = source_line(frame) if within is None else None
        with without_dispatch_modes():
            given = [self._given(call, inner, generated) for call in calls]
        result = func(*args, **kwargs)
        made = iter(returned_tensors(result)) if any(not call.taken for call in calls) else iter(())
        for call, operands in zip(calls, given, strict=True):
            call.info["number"] = self._numbers[call.info["group"]]
            self._numbers[call.info["group"]] += 1
            call.info["backward"] = current_graph_task() != -1
            if not call.taken and func._schema.name.startswith("_c10d_functional"):
                call.taken = [next(made)]
            memory = frozenset(map(storage_key, call.taken))
            self._written.update(dict.fromkeys(memory, (call.info["group"], call.info["number"])))
            self._pending.append(
                _Pending(call, str(func), inner, generated, operands, source, memory, _work_of(result))
            )
        if not any(call.taken for call in calls):  # a rank that only gives, as all but one in a gather
            self._settle(lambda one: not one.memory, waited=True)
        return result

    def _given(self, call: CollectiveCall, inner: GraphCall, frame: FrameType | None) -> list[Operand]:
        operands = _operands("in", call.given, inner, frame)
        for operand in operands:
            operand.summary = self._writer.summary(inner, operand.value, detailed=False)
            if self._writer.level == "full":
                operand.before = self._writer.store_tensor(inner, operand.value)
        return operands

    def _settle(self, chosen: Callable[[_Pending], bool], *, waited: bool) -> None:
        """Write some collectives with what their results hold now. ``waited``: whether these are complete."""
        for one in [one for one in self._pending if chosen(one)]:
            self._pending.remove(one)
            self._write(one, seen=True, waited=waited or one.is_complete)

    def _settle_read(self, func: Any, args: Any, kwargs: Any) -> None:
        """Write eager collectives that nobody waited for in Python and whose results an operator reads now."""
        if func.is_view:
            return
        # Waiting may itself write the result, as gloo's reduce_scatter does.
        written = {id(one) for one in written_arguments(func._schema, args, kwargs)}
        read = [
            _place(one)
            for one in tensors_in([args, kwargs])
            if one.layout == torch.strided and not (id(one) in written and func in _OVERWRITING)
        ]
        self._settle(
            lambda one: (
                one.work is not None and any(_overlap(place, _place(t)) for place in read for t in one.call.taken)
            ),
            waited=False,
        )

    def _finish(self) -> None:
        """Write what is left."""
        for one in self._pending:
            self._write(one, seen=one.is_complete, waited=one.is_complete)
        self._pending.clear()

    def _write(self, one: _Pending, *, seen: bool, waited: bool) -> None:
        """``seen``: whether the program goes on with what the results hold now."""
        writer, call = self._writer, one.within
        one.call.info["waited"] = waited
        with without_dispatch_modes():
            taken = _operands("out", one.call.taken, call, one.frame)
            for operand in taken if seen else ():
                operand.summary = writer.summary(call, operand.value, detailed=False)
                if writer.level == "full":
                    operand.after = writer.store_tensor(call, operand.value)
            operands = [*one.operands, *taken]
            reason = writer.missing_reason(operands) if writer.level == "full" else f"level {writer.level}"
            nodes = [operand.node for operand in taken if operand.node is not None]
            about = {"source": one.source} if one.source is not None else {}
            writer.write_launch(
                call, "collective", operands, operation=one.operation, collective=one.call.info, nodes=nodes,
                unrecorded=reason if seen else NOT_COMPLETE, **about,
            )  # fmt: skip
        self.counts["collectives"] += 1
        writer.store.append(call.lines, flush=True)
        call.lines.clear()


def _place(tensor: torch.Tensor) -> tuple[int, int, int]:
    """A strided tensor's memory, and the first byte and the one behind the last that it can reach there."""
    begin, size_of_one = int(tensor.storage_offset()), tensor.element_size()
    last = sum(int(size - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end = begin + (last + 1 if tensor.numel() else 0)
    return storage_key(tensor), begin * size_of_one, end * size_of_one


def _overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def _operands(role: str, tensors: Sequence[torch.Tensor], call: GraphCall, frame: FrameType | None) -> list[Operand]:
    names = [role if index == 0 else f"{role}[{index}]" for index in range(len(tensors))]
    if frame is None or not call.graph.sha:
        return [Operand(name, role, None, None, tensor) for name, tensor in zip(names, tensors, strict=True)]
    buffers = buffer_names(frame, list(tensors))
    return [
        Operand(name, role, buffer, call.graph.node(buffer, role), tensor)
        for name, buffer, tensor in zip(names, buffers, tensors, strict=True)
    ]


def _generated(frame: FrameType | None) -> FrameType | None:
    """The nearest caller that is a graph's code."""
    while frame is not None and DESCRIPTION not in frame.f_globals:
        frame = frame.f_back
    return frame


def _work_of(result: Any) -> Any:
    """What an eager collective is waited for with: the object that its caller gets, too."""
    from torch import distributed

    last = result[-1] if isinstance(result, tuple) and result else result
    return distributed.Work.unbox(last) if isinstance(last, torch.ScriptObject) else None

"""Records launches and operator calls of compiled graphs."""

from __future__ import annotations

import hashlib
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torchport.inductor.codegen.description import DESCRIPTION, read_description
from torchport.inductor.observation.graphs import generated_code, is_cuda_graph
from torchport.numerics.recording.graph_calls import Graph, GraphCall
from torchport.numerics.recording.inductor_launches import InductorLaunches
from torchport.numerics.recording.kernel_launches import KernelLaunches
from torchport.numerics.recording.launch_writer import LaunchWriter
from torchport.numerics.recording.memory import without_dispatch_modes
from torchport.numerics.recording.operand import Operand
from torchport.numerics.recording.operators import OperatorMode, OperatorRecorder
from torchport.numerics.recording.overhead import OverheadBudget
from torchport.numerics.runs.writer import Store
from torchport.runtime.devices.device import mirrors_of
from torchport.runtime.observation import Observable

__all__ = ["Recorder"]


class Recorder:
    """Records launches and operator calls of compiled graphs; an observer as in ``torchport.runtime.observation``.

    store: the run folder
    writer: writes to it, at one of LEVELS
    inductor: records launches by Inductor's own launcher
    counts: launches, flagged and unrecorded ones; ``calls_seen`` and ``calls_unseen``: graph calls recorded and not
    """

    def __init__(
        self,
        store: Store,
        level: str,
        calls: int = 1,
        wanted: Callable[[Any], bool] | None = None,
        overhead: float = math.inf,
    ) -> None:
        """``calls``, ``wanted``, ``overhead``: as for ``torchport.record``."""
        self.store = store
        self.writer = LaunchWriter(store, level, calls)
        self.inductor = InductorLaunches(self.writer, self.current_call)
        self.counts: Counter[str] = Counter()
        self._operators = OperatorRecorder(self.writer)
        self._calls = calls
        self._wanted = wanted
        self._overhead = overhead
        self._lock = threading.Lock()
        self._graphs: dict[int, Graph] = {}
        self._thread = threading.local()

    @property
    def title(self) -> str:
        """The run folder, for messages."""
        return str(self.store.path)

    @property
    def targets(self) -> list[str]:
        """The targets of the graphs that were called."""
        return sorted({graph.description["target"] for graph in self._graphs.values()})

    def current_call(self) -> GraphCall | None:
        """The recorded graph call that this thread is in."""
        return getattr(self._thread, "call", None)

    def add(self, counts: Counter[str]) -> None:
        """Add counts of what was recorded elsewhere."""
        with self._lock:
            self.counts += counts

    def launcher(self, kernel: Observable, launch: Callable[..., None]) -> Callable[..., None]:
        """Replaces ``launch`` of a loaded kernel."""
        launches, thread = KernelLaunches(self.writer, kernel), self._thread

        def observed(*args: Any) -> None:
            call: GraphCall | None = getattr(thread, "call", None)
            if call is None:
                launch(*args)
            else:
                launches.launch(call, launch, args, sys._getframe(1))

        return observed

    def operations(self) -> AbstractContextManager[Any]:
        """Records the operators that are called while the context is open."""
        call = self.current_call()
        return nullcontext() if call is None else OperatorMode(self._operators, call)

    def around(self, compiled: Any, inputs: Sequence[Any], run: Callable[[Sequence[Any]], Any]) -> Any:
        """Run a graph and record it if it is due. The graph empties ``inputs``."""
        code = self._recordable_code(compiled)
        if code is None:
            return run(inputs)
        graph = self._graph(code)
        with self._lock:
            call = GraphCall(graph, graph.calls)
            graph.calls += 1
            recorded = graph.budget.allows(call.number)
            self.counts["calls_seen" if recorded else "calls_unseen"] += 1
        if recorded:
            return self._record(call, inputs, run)
        started = time.perf_counter()
        outputs = run(inputs)
        graph.budget.add_unrecorded(time.perf_counter() - started)
        return outputs

    def _recordable_code(self, compiled: Any) -> dict[str, Any] | None:
        """The globals of a graph's module; None for graphs that are not recorded, which is noted unless intended."""
        if self.store.ended is not None or (self._wanted is not None and not self._wanted(compiled)):
            return None
        if is_cuda_graph(compiled):
            self.store.note("a graph runs as a CUDA graph, which no Python sees: nothing of it was recorded")
            return None
        code = generated_code(compiled)
        if code is None:
            self.store.note("a graph's code was not generated by torchport: nothing of it was recorded")
        return code

    def _graph(self, code: dict[str, Any]) -> Graph:
        with self._lock:
            known = self._graphs.get(id(code))
        if known is not None:
            return known
        description = read_description(code[DESCRIPTION])
        sha = hashlib.sha256(code[DESCRIPTION].encode()).hexdigest()[:32]
        values = [node["value"] for node in description["fx"]["nodes"] if isinstance(node["value"], dict)]
        dynamic = any(isinstance(size, str) for value in values for size in value.get("shape", ()))
        budget = OverheadBudget(self._overhead, self._calls)
        graph = Graph(sha, description, code, mirrors_of(description["target"]), dynamic, budget)
        self.store.put_json("graphs", sha, description)
        self.inductor.attach()
        with self._lock:
            return self._graphs.setdefault(id(code), graph)

    def _record(self, call: GraphCall, inputs: Sequence[Any], run: Callable[[Sequence[Any]], Any]) -> Any:
        """Run a graph with its launches recorded; of the first calls also the inputs and outputs."""
        graph, outer = call.graph, self.current_call()
        self._thread.call = call
        started = time.perf_counter()
        try:
            if call.number < self._calls:
                self._write_boundary(call, "input", [*graph.inputs(inputs), *graph.constants()])
            with nullcontext() if graph.mirrors is not None else self.operations():
                outputs = run(inputs)
            if call.number < self._calls:
                self._write_boundary(call, "output", graph.outputs(outputs))
            return outputs
        finally:
            self._thread.call = outer
            with self._lock:
                self.counts += call.counts
            self.store.append(call.lines, flush=True)
            graph.budget.add_recorded(call.number, time.perf_counter() - started)

    def _write_boundary(self, call: GraphCall, kind: str, operands: Sequence[Operand]) -> None:
        """Write the inputs or outputs of a graph call."""
        writer = self.writer
        stored = writer.level == "full"
        with without_dispatch_modes():
            for operand in operands:
                if operand.is_tensor:
                    operand.summary = writer.summary(call, operand.value)
                    if stored:
                        sha = writer.store_tensor(call, operand.value)
                        operand.before, operand.after = (sha, None) if kind == "input" else (None, sha)
        reason = writer.missing_reason(operands) if stored else f"level {writer.level}"
        writer.write_launch(call, kind, operands, unrecorded=reason)

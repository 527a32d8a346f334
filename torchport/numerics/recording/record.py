"""Implements ``torchport.record``: records the inputs and results of a model's kernels (docs/numerics/recording.md)."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from torchport.config import parse_size
from torchport.errors import OptionError, TorchportError
from torchport.inductor.observation.graphs import observing_graphs
from torchport.numerics.recording.collectives import CollectiveRecorder
from torchport.numerics.recording.eager import EagerRecorder
from torchport.numerics.recording.launch_writer import LEVELS
from torchport.numerics.recording.recorder import Recorder
from torchport.numerics.recording.states import StateRecorder
from torchport.numerics.recording.surroundings import (
    compilers,
    environment,
    flushing,
    operator_sources,
    quarantined,
)
from torchport.numerics.runs.ranks import folder_of, write_ranks
from torchport.numerics.runs.writer import Store
from torchport.plugin import backend_for
from torchport.runtime import events
from torchport.runtime.observation import check_free, observing
from torchport.runtime.ranks import is_job, rank, world_size
from torchport.target import Target

__all__ = ["BUDGET", "LEVELS", "OVERHEAD", "record"]

BUDGET = "2G"
"""Default limit for the bytes of tensors in a run folder."""

OVERHEAD = 0.4
"""Default time for recording, in seconds for each second of the model's own."""


@contextmanager
def record(
    folder: str | Path,
    level: str = "stats",
    budget: str | int = BUDGET,
    calls: int = 1,
    overhead: float = OVERHEAD,
    ttir: bool = True,
    wanted: Callable[[Any], bool] | None = None,
    eager: torch.nn.Module | None = None,
    model: torch.nn.Module | None = None,
) -> Iterator[Recorder]:
    """Record what compiled graphs launch, in every thread, into ``folder`` while the context is open.

    folder: new or empty
    level: ``stats`` keeps summaries, and the tensors of flagged launches; ``full`` also the tensors of the first
        ``calls`` launches of each line of generated code
    budget: limit for the bytes of tensors, a number or text like ``500M``
    overhead: seconds that recording may take for each second that the model takes; after the first ``calls`` calls of
        a graph, calls beyond that are counted but not recorded; infinite to record all calls
    ttir: whether to keep every kernel's TTIR, which takes some milliseconds for each kernel at the end
    wanted: which compiled graphs are recorded
    eager: a model whose operators are recorded, too, where it is not compiled, in this thread. Each of its calls is a
        graph, and so are the gradients of each; memory that it uses is kept until the call ends. All launches are
        written in full, tensors only of the first ``calls`` calls
    model: a model whose parameters and gradients are recorded before each step of an optimizer and when the context
        closes, by name; in a job they are, too, for any optimizer

    In a job of several ranks (``torchport.runtime.ranks``), each records into ``folder/rankN``, with the
    collectives that this thread calls, and parameters and gradients; ``folder/ranks.json`` says
    which ranks have finished. Ranks do not wait for each other. ``torchport diff`` compares them.

    Models compiled before are recorded too: nothing is compiled again. On a device with memory of its own, tensors are
    copied to the host first. If the disk becomes full, the recording ends and the model goes on.

    Raises OptionError for invalid values, and RecordingError if the folder is in use or cannot be made or if another
    recording is open.
    """
    if level not in LEVELS:
        raise OptionError(f"level {level!r} of torchport.record is not valid; valid: {', '.join(map(repr, LEVELS))}")
    try:
        size = budget if isinstance(budget, int) else parse_size(budget)
    except ValueError as error:
        raise OptionError(f"budget {budget!r} of torchport.record is not valid; expected {error}") from error
    path = whole = Path(folder).expanduser().absolute()
    ranks = world_size()
    about: dict[str, Any] = {"level": level, "budget": size, "calls": calls, "environment": environment()}
    check_free()  # before a folder is made
    if ranks > 1:
        path = whole / folder_of(rank())
        about |= {"rank": rank(), "world_size": ranks, "host": platform.node()}
    with ExitStack() as stack:
        store = Store(path, size, about)
        if ranks > 1:
            stack.callback(write_ranks, whole, ranks)
            write_ranks(whole, ranks)
        recorder = Recorder(store, level, calls, wanted, overhead)
        stack.callback(_finish, store, recorder, ttir)
        stack.enter_context(observing(recorder))
        stack.callback(recorder.inductor.detach)
        stack.enter_context(observing_graphs(recorder.around))
        written: Callable[[], Mapping[int, tuple[str, int]]] = dict
        if ranks > 1:
            collectives = CollectiveRecorder(recorder.writer, recorder.current_call)
            stack.callback(lambda: recorder.add(collectives.counts))
            stack.enter_context(collectives.recording())
            written = collectives.written
        if is_job() or model is not None:
            stack.enter_context(StateRecorder(recorder.writer, calls, model, written).recording())
        if eager is not None:
            modules = EagerRecorder(eager, recorder.writer, calls, lambda: recorder.current_call() is not None)
            stack.callback(lambda: recorder.add(modules.counts))
            stack.enter_context(modules.recording())
        try:
            yield recorder
        except BaseException as error:
            store.about["failed"] = type(error).__name__
            raise


_COUNTS = ("launches", "collectives", "flagged", "unrecorded", "calls_seen", "calls_unseen")


def _finish(store: Store, recorder: Recorder, ttir: bool) -> None:
    """Write the kernels' TTIR and the counts, and report the recording as an event."""
    if ttir:
        for key, kernel in recorder.writer.kernels.items():
            _add_ttir(store, key, kernel)
    store.about["targets"] = recorder.targets
    store.about["compilers"] = compilers(recorder.targets)
    store.about["flushing"] = flushing(recorder.targets)
    store.about["quarantine"] = quarantined(recorder.targets)
    store.about["operators"] = operator_sources(recorder.writer.operations)
    counts = {name: recorder.counts[name] for name in _COUNTS}
    store.close({**counts, "tensors": store.tensors, "bytes": store.stored})
    notes = tuple(store.notes)
    events.record(
        events.Recording(str(store.path), counts["launches"], store.tensors, store.stored, counts["flagged"], notes)
    )


def _add_ttir(store: Store, key: str, kernel: dict[str, Any]) -> None:
    from triton.errors import TritonError

    from torchport.triton.source import triton_kernel
    from torchport.triton.ttir import ttir_of

    target = Target.parse(kernel["target"])
    frontend = kernel["target"] if backend_for(target).driver(target).stock else "cpu"
    try:
        kernel["ttir"] = ttir_of(kernel["source"], kernel["function"], frontend)
        kernel["options"] = dict(triton_kernel(kernel["function"], kernel["source"]).options)
    except (TorchportError, TritonError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        # A user-defined kernel may fail in any way here; it has run already, and only its description is missing.
        store.note(f"kernel {kernel['function']} has no TTIR: {type(error).__name__}: {error}")
        return
    store.put_json("kernels", key, kernel, again=True)

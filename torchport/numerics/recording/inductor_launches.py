"""Records the launches that Inductor's own launcher makes: on GPUs, and of user-defined Triton kernels."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from torchport.inductor.observation.autotuners import AutotunerHook, InductorKernel
from torchport.numerics.recording.graph_calls import GraphCall
from torchport.numerics.recording.kernel_launches import KernelLaunches
from torchport.numerics.recording.launch_writer import LaunchWriter
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["InductorLaunches"]


class InductorLaunches:
    """Records launches by Inductor from ``attach`` to ``detach``. ``current_call``: the graph call of this thread."""

    def __init__(self, writer: LaunchWriter, current_call: Callable[[], GraphCall | None]) -> None:
        self._writer = writer
        self._current_call = current_call
        self._lock = threading.Lock()
        self._known: weakref.WeakKeyDictionary[Any, tuple[KernelLaunches, int]] = weakref.WeakKeyDictionary()
        hook = AutotunerHook(self._launched)
        self.attach, self.detach = hook.attach, hook.detach

    def _launched(
        self, autotuner: Any, launch: Callable[..., Any], args: tuple[Any, ...], frame: FrameType | None
    ) -> None:
        call = self._current_call()
        if call is None:
            launch(*args)
            return
        if frame is None:
            name = autotuner.fn.__name__
            self._writer.store.note(f"kernel {name}: launches by other code than the graph's own are left out")
            launch(*args)
            return
        with self._lock:
            known = self._known.get(autotuner)
            if known is None:
                kernel = InductorKernel(autotuner, _target(call))
                known = self._known[autotuner] = KernelLaunches(self._writer, kernel), len(kernel.arguments)
        launches, count = known
        grid_args = args[count:]
        launches.launch(call, lambda *kernel_args: launch(*kernel_args, *grid_args), args[:count], frame, grid_args)


def _target(call: GraphCall) -> str:
    """Where Inductor launches a graph's kernels: the graph's target, or the host for user-defined kernels."""
    target = Target.parse(call.graph.description["target"])
    return str(target) if backend_for(target).driver(target).stock else "cpu"

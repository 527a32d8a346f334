"""Launches of kernels, from torchport's launcher or Inductor's, handed to what writes them down."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from torchport.inductor.autotuners import AutotunerHook, InductorKernel
from torchport.numerics.recording.first_launch import Site, first_launch, kernel_site
from torchport.numerics.recording.memory import unseen
from torchport.plugin import backend_for
from torchport.runtime.observation import Observable
from torchport.target import Target

if TYPE_CHECKING:
    from torchport.numerics.recording.graph_calls import GraphCall
    from torchport.numerics.recording.recorder import Recorder

__all__ = ["InductorLaunches", "launched"]

VARIANTS = 64
"""Shapes of one site that are told apart; launches with more are counted only."""


def launched(
    recorder: Recorder,
    call: GraphCall,
    sites: dict[Any, Site],
    kernel: Observable,
    launch: Callable[..., None],
    args: Sequence[Any],
    frame: FrameType,
    grid_args: Sequence[Any] = (),
) -> None:
    """Launch a kernel where ``frame`` is, in a graph's code, and write that down.

    ``sites``: those of the kernel that are known; ``grid_args``: what the kernel's grid depends on besides ``args``.
    """
    place = (id(frame.f_code), frame.f_lineno)  # the recorder keeps the graph's code alive
    site = sites.get(place)
    if site is None:
        with unseen():
            site = sites[place] = kernel_site(call.graph, kernel, frame, args)
    shapes = tuple(args[index].shape for index in site.tensors) if call.graph.dynamic else None
    variant = site.variants.get(shapes)
    if variant is not None and not (recorder.level == "full" and site.seen < recorder.calls):
        launch(*args)
        recorder.later(call, site, variant, [args[index] for index in site.written], args)
    elif variant is None and len(site.variants) >= VARIANTS:
        recorder.store.note(f"kernel {kernel.name}: launches with more than {VARIANTS} shapes are left out")
        launch(*args)
    else:
        with unseen():
            site.variants[shapes] = first_launch(recorder, call, site, kernel, launch, args, grid_args)


class InductorLaunches:
    """Launches by Inductor (``torchport.inductor.autotuners``)."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.Lock()
        self._known: weakref.WeakKeyDictionary[Any, tuple[InductorKernel, dict[Any, Site]]]
        self._known = weakref.WeakKeyDictionary()
        hook = AutotunerHook(self._launched)
        self.attach, self.detach = hook.attach, hook.detach

    def _launched(
        self, autotuner: Any, launch: Callable[..., Any], args: tuple[Any, ...], frame: FrameType | None
    ) -> None:
        call = self._recorder.call()
        if call is None:
            launch(*args)
            return
        if frame is None:
            name = autotuner.fn.__name__
            self._recorder.store.note(f"kernel {name}: launches by other code than the graph's own are left out")
            launch(*args)
            return
        with self._lock:
            known = self._known.get(autotuner)
            if known is None:
                known = self._known[autotuner] = InductorKernel(autotuner, _target(call)), {}
        kernel, sites = known
        count = len(kernel.arguments)
        given, rest = args[:count], args[count:]
        launched(self._recorder, call, sites, kernel, lambda *now: launch(*now, *rest), given, frame, rest)


def _target(call: GraphCall) -> str:
    """Where Inductor launches a graph's kernels: on the graph's target, or those of the user's on the host."""
    target = Target.parse(call.graph.description["target"])
    return str(target) if backend_for(target).driver(target).stock else "cpu"

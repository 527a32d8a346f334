"""Kernels that Inductor itself loads and launches: those of targets it generates code for, and Triton kernels of the
user's own inside a graph.

In generated code such a kernel is a ``CachingAutotuner``, called by ``run``: nothing of it is changed while nobody
looks. What is used of that class is private to Inductor: ``run``, ``fn``, ``triton_meta``, ``inductor_meta``,
``launchers`` (one, once a configuration is chosen), ``filename``, and ``GridExpr`` beside it. They were compared in the
sources of torch 2.13 and of a version before 2.11, where they are the same; they ran in 2.13 only.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from torchport.inductor.codegen.description import DESCRIPTION
from torchport.inductor.kernels import kernel_key
from torchport.quarantine import configuration
from torchport.target import Target
from torchport.triton.source import in_configuration

__all__ = ["AutotunerHook", "InductorKernel"]

Launched = Callable[[Any, Callable[..., Any], tuple[Any, ...], FrameType | None], Any]
"""Called in place of a launch with the autotuner, what launches, its arguments, and the frame of the graph's code that
launches; None where other code does."""

_MODULE = "torch._inductor.runtime.triton_heuristics"
_lock = threading.Lock()


class AutotunerHook:
    """Has ``launched`` called for every launch of these kernels, in every thread, from ``attach`` to ``detach``.

    What Inductor runs to choose a configuration is no launch.
    """

    def __init__(self, launched: Launched) -> None:
        self._launched = launched
        self._original: Callable[..., Any] | None = None

    def attach(self) -> None:
        """Begin, unless that was done. Nothing is imported: without Inductor's launcher there are no launches."""
        with _lock:
            if self._original is not None or _MODULE not in sys.modules:
                return
            kind: Any = sys.modules[_MODULE].CachingAutotuner
            original, launched = kind.run, self._launched

            def run(self: Any, *args: Any, **keywords: Any) -> Any:
                if keywords.get("benchmark_run"):
                    return original(self, *args, **keywords)
                caller = sys._getframe(1)
                frame = caller if DESCRIPTION in caller.f_globals else None
                return launched(self, lambda *given: original(self, *given, **keywords), args, frame)

            self._original, kind.run = original, run

    def detach(self) -> None:
        """Have everything as it was."""
        with _lock:
            if self._original is not None:
                kind: Any = sys.modules[_MODULE].CachingAutotuner
                kind.run, self._original = self._original, None


class InductorKernel:
    """Such a kernel, as a ``torchport.runtime.observation.Observable``.

    ``target``: on which it runs; ``types``: Triton's, of all arguments; ``arguments``: names of those that a launch is
    given, the kernel's, before what only the grid depends on. ``key``, ``source``, ``config`` and ``grid`` follow from
    the configuration, which is known after the first launch.
    """

    def __init__(self, autotuner: Any, target: str) -> None:
        self._autotuner = autotuner
        self.name: str = autotuner.fn.__name__
        self.target = target
        self.types: Mapping[str, str] = {n: str(type_) for n, type_ in autotuner.triton_meta["signature"].items()}
        compiled_in = {parameter.name for parameter in autotuner.fn.params if parameter.is_constexpr}
        # As CompileResult._get_arg_lists has it: what is declared a constexpr is not passed; what turned out to be
        # one, a size of 1, is.
        self.arguments = [name for name in autotuner.fn.arg_names if name not in compiled_in]
        self.launch: Callable[..., None] = autotuner.run

    @property
    def key(self) -> str:
        """The same for kernels of the same source and configuration, compiled by the same compiler."""
        return kernel_key(f"{self.name}\n{self.source}", Target.parse(self.target))

    @property
    def source(self) -> str:
        """The kernel's text with its configuration (null while that is not known), as ``triton_kernel`` reads it.
        Without the text where its file is gone."""
        path = Path(self._autotuner.filename or "")
        return in_configuration(path.read_text() if path.is_file() else "", json.dumps(self._chosen(), default=str))

    @property
    def config(self) -> str:
        """The configuration as ``torchport.quarantine`` writes it."""
        return configuration({name: value for name, value in (self._chosen() or {}).items() if type(value) is int})

    @property
    def grid(self) -> InductorKernel:
        """See ``of``."""
        return self

    def of(self, args: Sequence[Any]) -> tuple[int, int, int] | None:
        """Program instances in x, y and z for the arguments of a launch, those for the grid alone included. None where
        Inductor has not settled on a configuration, as when it chooses between calls."""
        from torchport.inductor.compat import GridExpr

        if self._chosen() is None:
            return None
        meta, (launcher,) = self._autotuner.inductor_meta, self._autotuner.launchers
        names = [*self.arguments, *meta.get("extra_launcher_args", ())]
        x, y, z = GridExpr.from_meta(meta, launcher.config).eval_slow(dict(zip(names, args, strict=True)))
        return x, y, z

    def _chosen(self) -> dict[str, Any] | None:
        launchers = self._autotuner.launchers
        if len(launchers) != 1:
            return None
        chosen = launchers[0].config
        return {**chosen.kwargs, "num_warps": chosen.num_warps, "num_stages": chosen.num_stages}

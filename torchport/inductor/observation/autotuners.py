"""Observes launches of kernels that Inductor itself loads: those of targets it generates code for, and user-defined
Triton kernels.

In generated code such a kernel is a ``CachingAutotuner``, launched by ``run``, which is replaced while an observer is
attached. The attributes that are read are listed in ``torchport.inductor.compat``.
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
from torchport.triton.source import PAIRS, in_arithmetic, in_configuration, with_pairs

__all__ = ["AutotunerHook", "InductorKernel"]

Launched = Callable[[Any, Callable[..., Any], tuple[Any, ...], FrameType | None], Any]
"""Called in place of a launch with the autotuner, the function that launches, its arguments, and the frame of generated
code that launches (None if other code does)."""

_MODULE = "torch._inductor.runtime.triton_heuristics"
_lock = threading.Lock()


class AutotunerHook:
    """Calls ``launched`` for every launch of these kernels, in every thread, from ``attach`` to ``detach``.

    Runs that Inductor times to choose a configuration are no launches.
    """

    def __init__(self, launched: Launched) -> None:
        self._launched = launched
        self._original: Callable[..., Any] | None = None

    def attach(self) -> None:
        """Begin, unless attached already. Without Inductor's launcher imported there are no launches yet."""
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
                return launched(self, lambda *values: original(self, *values, **keywords), args, frame)

            self._original, kind.run = original, run

    def detach(self) -> None:
        """Restore Inductor's ``run``."""
        with _lock:
            if self._original is not None:
                kind: Any = sys.modules[_MODULE].CachingAutotuner
                kind.run, self._original = self._original, None


class InductorKernel:
    """Such a kernel, as a ``torchport.runtime.observation.Observable``.

    ``target``: its target's text form.
    ``types``: Triton's type of each argument.
    ``arguments``: names of the kernel's arguments in a launch. Values for the grid alone follow them.
    ``key``, ``source``, ``config``, ``grid``: depend on the configuration, which is known after the first launch.
    """

    def __init__(self, autotuner: Any, target: str) -> None:
        self._autotuner = autotuner
        self.name: str = autotuner.fn.__name__
        self.target = target
        self.types: Mapping[str, str] = {n: str(type_) for n, type_ in autotuner.triton_meta["signature"].items()}
        compiled_in = {parameter.name for parameter in autotuner.fn.params if parameter.is_constexpr}
        # As in CompileResult._get_arg_lists: declared constexprs are not passed, arguments specialized to 1 are.
        self.arguments = [name for name in autotuner.fn.arg_names if name not in compiled_in]
        self.launch: Callable[..., None] = autotuner.run

    @property
    def key(self) -> str:
        """Equal for kernels with equal source and configuration, compiled by the same compiler."""
        return kernel_key(f"{self.name}\n{self.source}", Target.parse(self.target))

    @property
    def source(self) -> str:
        """The kernel's text (empty if its file is gone) under its configuration, as ``triton_kernel`` reads it.

        A user-defined kernel has an emulated chip, or the option of pairs of bf16, as its architecture.
        """
        path = Path(self._autotuner.filename or "")
        text = path.read_text() if path.is_file() else ""
        device = self._autotuner.device_props
        if device.type == "cpu":
            text = with_pairs(text) if device.cc == PAIRS else in_arithmetic(text, device.cc)
        return in_configuration(text, json.dumps(self._chosen(), default=str))

    @property
    def config(self) -> str:
        """The configuration as ``torchport.quarantine`` writes it."""
        return configuration({name: value for name, value in (self._chosen() or {}).items() if type(value) is int})

    @property
    def grid(self) -> InductorKernel:
        """See ``of``."""
        return self

    def of(self, args: Sequence[Any]) -> tuple[int, int, int] | None:
        """Program instances in x, y and z for all arguments of a launch. None without a final configuration."""
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
        config = launchers[0].config
        return {**config.kwargs, "num_warps": config.num_warps, "num_stages": config.num_stages}

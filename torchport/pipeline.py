"""Passes, and pipelines that run them in order and verify the IR."""

from __future__ import annotations

import dataclasses
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from torchport.errors import CompilationError, TorchportError
from torchport.phases import Phase, phase

__all__ = ["Pass", "Pipeline", "StageTime", "format_pass"]

# Besides MLIRError, a pass raises these on unexpected IR: the bindings refuse a cast or a value (ValueError, TypeError)
# or find no such attribute, operand or region (KeyError, IndexError), and passes recurse along operands, which may be
# too many for Python's stack. Other exceptions are bugs in a pass and are not caught.
_UNEXPECTED_IR = (ValueError, TypeError, LookupError, RecursionError)


@runtime_checkable
class Pass(Protocol):
    """One transformation of an MLIR module, in place."""

    name: ClassVar[str]

    def apply(self, module: Any) -> None:
        """Rewrite ``module`` (an ``mlir.ir.Module``). The pass's docstring says what IR it takes and leaves.

        A pass may have a class variable ``removes``, a frozenset of operation names (``scf.`` for a whole dialect): it
        leaves none of these operations, and no later pass makes one. ``Pipeline.check`` gets the names.
        """


@dataclass(frozen=True)
class StageTime:
    """The time that one pass took, in seconds."""

    name: str
    seconds: float


@dataclass
class Pipeline:
    """Runs passes in order.

    passes: the passes.
    observer: called as ``observer(name, module)`` after each pass with the verified module, to write dumps.
    check: called as ``check(module, removed)`` before the first pass and after each, to check the IR further; raises
        ValueError. ``removed``: operations that the passes so far have removed, by name.
    times: the time of each pass that ran.
    every: whether the IR is verified after every pass, or before and after the last one only, which takes less time.
    """

    passes: Sequence[Pass]
    observer: Callable[[str, Any], None] | None = None
    check: Callable[[Any, Set[str]], None] | None = None
    times: list[StageTime] = field(default_factory=list)
    every: bool = True

    def run(
        self, module: Any, *, kernel: str | None = None, source: str | None = None, folder: Path | None = None
    ) -> None:
        """Apply every pass to ``module``.

        kernel: the kernel's name, for errors
        source: the text that ``module`` was made from, as ``torchport opt`` reads it
        folder: where the text is written if a pass fails; None for the folder of temporary files

        Raises CompilationError, which names the pass that failed or after which the IR does not verify. With
        ``source``, the message ends with a command that repeats the failure.
        """
        from mlir.ir import MLIRError

        removed: frozenset[str] = frozenset()
        if self.check is not None:
            try:
                self.check(module, removed)
            except ValueError as error:
                message = f"the passes cannot take kernel {kernel or '?'}: {error}"
                raise CompilationError(message, kernel=kernel, stage="import") from error
        for number, one in enumerate(self.passes):
            start = time.perf_counter()
            try:
                with phase(Phase.PASSES, one.name):
                    one.apply(module)
                    if self.every or number >= len(self.passes) - 2:
                        module.operation.verify()
                    if self.check is not None:
                        removed |= getattr(one, "removes", frozenset())
                        self.check(module, removed)
            except TorchportError:
                raise  # OptionError and TargetError are ValueErrors
            except (MLIRError, *_UNEXPECTED_IR) as error:
                raise CompilationError(
                    f"pass {one.name!r} failed on kernel {kernel or '?'}: {type(error).__name__}: {error}"
                    f"{_how_to_repeat(self.passes[: number + 1], source, folder)}",
                    kernel=kernel,
                    stage=one.name,
                ) from error
            self.times.append(StageTime(one.name, time.perf_counter() - start))
            if self.observer is not None:
                self.observer(one.name, module)


def format_pass(one: Pass) -> str:
    """The text form of a pass (a dataclass) with its options; ``parse`` reads it back."""
    options = " ".join(f"{f.name}={getattr(one, f.name)}" for f in dataclasses.fields(one))  # type: ignore[arg-type]
    return f"{one.name}{{{options}}}" if options else one.name


def _how_to_repeat(passes: Sequence[Pass], source: str | None, folder: Path | None) -> str:
    """A sentence with the command that runs ``passes`` on ``source`` again, which it writes into a new file."""
    if source is None:
        return ""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(prefix="torchport-", suffix=".ttir", dir=folder)
        with os.fdopen(descriptor, "w") as file:
            file.write(source)
    except OSError as error:
        return f"\nThe kernel could not be written to a file ({error}), so there is no command that repeats this."
    names = ",".join(map(format_pass, passes))
    return f"\nRepeat it with: torchport opt {shlex.quote(path)} -p {shlex.quote(names)}"

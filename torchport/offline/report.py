"""The result of ``torchport port`` as data: every kernel on every target, and operations that are not kernels."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TargetError
from torchport.offline.capture import Capture
from torchport.offline.compilation import Artifact, compile_kernel
from torchport.offline.manifest import describe
from torchport.plugin import Binary, backend_for
from torchport.quarantine import identity
from torchport.target import Target

__all__ = ["SCHEMA", "PortReport", "TargetState", "look_at", "port", "size", "used"]

SCHEMA = "torchport.port/1"


@dataclass(frozen=True)
class TargetState:
    """One target of a report.

    target: its text form.
    unavailable: why nothing compiles for it here; empty if kernels compile.
    absent: why nothing runs on it here; empty if kernels run.
    compiler: the fingerprint of its compiler.
    capabilities: its capabilities, if it is available.
    memory: where operations that are not kernels run, in words.
    transfers: bytes that one run copies for them; None if unknown.
    """

    target: str
    unavailable: str = ""
    absent: str = ""
    compiler: str = ""
    capabilities: Capabilities | None = None
    memory: str = ""
    transfers: int | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        able = self.capabilities.as_json() if self.capabilities is not None else None
        return {**vars(self), "capabilities": able}


@dataclass(frozen=True)
class PortReport:
    """A model on several targets.

    model: its name.
    capture: its kernels and other operations.
    targets: the targets asked for.
    artifacts: for each available target, one artifact for each kernel of ``capture``, in order.
    """

    model: str
    capture: Capture
    targets: tuple[TargetState, ...]
    artifacts: Mapping[str, tuple[Artifact, ...]]

    @property
    def every_artifact(self) -> list[Artifact]:
        """All artifacts, target by target."""
        return [artifact for group in self.artifacts.values() for artifact in group]

    def failed(self, *, strict: bool = False) -> bool:
        """Whether a target is unavailable or a kernel does not compile; ``strict``: or a kernel exceeds a limit."""
        artifacts = self.every_artifact
        broken = any(state.unavailable for state in self.targets) or any(a.error for a in artifacts)
        return broken or (strict and any(a.limits for a in artifacts))

    def about(self) -> dict[str, Any]:
        """The model, the environment, the targets and the captured graph, as JSON values."""
        return {
            "model": self.model,
            "environment": environment(),
            "targets": {state.target: state.as_json() for state in self.targets},
            "kernels": [
                {
                    "kernel": label,
                    "launches": launches,
                    "identity": identity(kernel.source, kernel.function),
                    "config": kernel.config,
                    "source": kernel.source,
                }
                for label, launches, kernel in zip(
                    self.capture.labels(), self.capture.launches, self.capture.kernels, strict=True
                )
            ],
            "libraries": [vars(library) for library in self.capture.libraries],
            "fallbacks": [str(fallback) for fallback in self.capture.fallbacks],
        }

    def as_json(self) -> dict[str, Any]:
        """Everything except the machine code, as JSON values."""
        return {"schema": SCHEMA, **self.about(), "artifacts": [describe(a) for a in self.every_artifact]}


def environment() -> dict[str, str]:
    """Versions of the compilers, and the machine."""
    import torch
    import triton

    import torchport

    return {
        "torchport": torchport.__version__, "torch": torch.__version__, "triton": triton.__version__,
        "python": platform.python_version(), "system": platform.system(), "machine": platform.machine(),
    }  # fmt: skip


def port(
    model: str, capture: Capture, targets: Sequence[Target], advance: Callable[[], None] = lambda: None
) -> PortReport:
    """Compile every kernel of ``capture`` for every target. An unavailable target is reported as such.

    ``model``: its name. ``advance`` is called after each kernel.
    """
    states: list[TargetState] = []
    artifacts: dict[str, tuple[Artifact, ...]] = {}
    for target in dict.fromkeys(targets):
        state = look_at(target, capture)
        if not state.unavailable:
            done = []
            try:
                for kernel, label in zip(capture.kernels, capture.labels(), strict=True):
                    done.append(compile_kernel(kernel, target, label))
                    advance()
                artifacts[state.target] = tuple(done)
            except TargetError as error:  # known only once a kernel is compiled
                state = TargetState(state.target, unavailable=str(error))
        states.append(state)
    return PortReport(model, capture, tuple(states), artifacts)


def look_at(target: Target, capture: Capture) -> TargetState:
    """Whether a target compiles and runs here, and what the graph's other operations cost on it."""
    try:
        backend = backend_for(target)
        able = backend.capabilities(target)
        compiler = backend.compiler(target).fingerprint()
    except TargetError as error:
        return TargetState(str(target), unavailable=str(error))
    absent, transfers = "", None
    moved = sum(library.fetched + library.uploaded for library in capture.libraries)
    try:
        driver = backend.driver(target)
    except TargetError as error:
        absent = str(error)
        memory = f"PyTorch's libraries run them where they know the device; elsewhere {size(moved)} a run are moved"
    else:
        if driver.stock:
            memory, transfers = "PyTorch's own libraries run them on the device", 0
        elif getattr(driver, "mirrors", None) is None:
            memory, transfers = "the host runs them in the same memory", 0
        else:
            memory, transfers = "the host runs those that the device has no kernel for: at most this is moved", moved
    return TargetState(str(target), "", absent, compiler, able, memory if capture.libraries else "", transfers)


def size(count: int) -> str:
    """A number of bytes, in the unit that makes it short."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.1f} GiB"


def used(binary: Binary) -> list[str]:
    """The size of a binary's code and the resources it uses, in short words."""
    resources = binary.resources
    words = [size(len(binary.data))]
    if resources.registers is not None:
        words.append(f"{resources.registers}r")
    if resources.scratchpad_bytes:
        words.append(f"{resources.scratchpad_bytes}s")
    if resources.spill_bytes:
        words.append(f"{resources.spill_bytes} spill")
    return words

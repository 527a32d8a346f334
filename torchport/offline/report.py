"""What ``torchport port`` found, as data: every kernel on every target, and what is no kernel."""

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
from torchport.plugin import backend_for
from torchport.quarantine import identity
from torchport.target import Target

__all__ = ["SCHEMA", "PortReport", "TargetState", "look_at", "port", "size"]

SCHEMA = "torchport.port/1"


@dataclass(frozen=True)
class TargetState:
    """One target of a report. ``unavailable``: why nothing compiles for it here, ``absent``: why nothing runs on it
    here, both empty where it does. ``compiler``: the fingerprint of what compiles for it. ``memory``: what operations
    that are no kernels mean there, in words; ``transfers``: bytes that one run moves for them, None where unknown.
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
    """A model on several targets. ``artifacts``: for each target that is available one for each kernel of ``capture``,
    by target and then by kernel's index.
    """

    model: str
    capture: Capture
    targets: tuple[TargetState, ...]
    artifacts: Mapping[str, tuple[Artifact, ...]]

    @property
    def every_artifact(self) -> list[Artifact]:
        """All of them, target by target."""
        return [artifact for group in self.artifacts.values() for artifact in group]

    def failed(self, *, strict: bool = False) -> bool:
        """Whether a target is unavailable or a kernel does not compile; ``strict``: or goes beyond a limit."""
        artifacts = self.every_artifact
        broken = any(state.unavailable for state in self.targets) or any(a.error for a in artifacts)
        return broken or (strict and any(a.limits for a in artifacts))

    def about(self) -> dict[str, Any]:
        """The model, the environment, the targets and what is no kernel, as JSON values."""
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
        """All of it but the machine code, as JSON values."""
        return {"schema": SCHEMA, **self.about(), "artifacts": [describe(a) for a in self.every_artifact]}


def environment() -> dict[str, str]:
    """Versions of what compiles, and the machine."""
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
    """Compile every kernel of ``capture`` for every target. A target that is not available is reported as that.

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
            except TargetError as error:  # it came to light with the first kernel only
                state = TargetState(state.target, unavailable=str(error))
        states.append(state)
    return PortReport(model, capture, tuple(states), artifacts)


def look_at(target: Target, capture: Capture) -> TargetState:
    """What can be done with a target here, and what a graph's operations that are no kernels cost on it."""
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
    """A number of bytes in a unit that keeps it short."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.1f} GiB"

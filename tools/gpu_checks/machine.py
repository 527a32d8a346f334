"""The GPU that is here, and what a result is of."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchport.plugin import registry

__all__ = ["PROFILES", "Machine", "environment", "find_gpu"]

ROOT = Path(__file__).resolve().parents[2]
PROFILES = {
    "cuda:70": "v100", "cuda:80": "a100", "cuda:89": "l40s", "cuda:90": "h100", "cuda:100": "b200",
    "hip:gfx908": "mi100", "hip:gfx90a": "mi210", "hip:gfx942": "mi300x",
}  # fmt: skip
"""The profile of each target that has one."""
_SOURCES = ("torchport", "passes", "backends", "tools")


@dataclass(frozen=True)
class Machine:
    """What is checked.

    target: torchport's. device: of its tensors, for torch. name: of the chip.
    profile: with the chip's arithmetic; empty where no profile has it.
    stand_in: whether the CPU stands in for the chip: steps run, and show nothing of a GPU.
    """

    target: str
    device: str
    name: str
    profile: str
    stand_in: bool = False


def find_gpu() -> Machine | None:
    """The GPU that PyTorch sees, whosever it is; None without one."""
    if not torch.cuda.is_available():
        return None
    for name in registry().names:
        for device in registry().get(name).devices():
            if not device.missing and registry().get(name).driver(device.target).device == "cuda":
                target = str(device.target)
                return Machine(target, "cuda", device.description, PROFILES.get(target, ""))
    return None


def environment(machine: Machine) -> dict[str, Any]:
    """What results belong to: a run that is resumed must have the same."""
    import triton

    digest = hashlib.sha256()
    for file in sorted(file for folder in _SOURCES for file in (ROOT / folder).rglob("*.py")):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return {
        "target": machine.target,
        "name": machine.name,
        "profile": machine.profile,
        "stand_in": machine.stand_in,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "sources": digest.hexdigest()[:16],
    }

"""The steps, in the order in which they run: what tells most in least time comes first."""

from __future__ import annotations

import sys
from pathlib import Path

from gpu_checks.machine import Machine
from gpu_checks.running import Step

__all__ = ["plan"]

_HERE = Path(__file__).parent


def plan(machine: Machine, *, quick: bool = False) -> list[Step]:
    """All steps for a machine. ``quick``: small sizes, for tests of the tool. Times are for one GPU with 16 cores."""
    python = sys.executable

    def script(name: str) -> tuple[str, ...]:
        return (
            python, str(_HERE / f"{name}.py"), "--target", machine.target, "--device", machine.device,
            *(["--profile", machine.profile] if machine.profile else []),
            *(["--stand-in"] if machine.stand_in else []), *(["--quick"] if quick else []), "--out", "{out}",
        )  # fmt: skip

    torchport = (python, "-c", "from torchport.cli.app import main; main()")
    emulated = ("--as", machine.profile) if machine.stand_in and machine.profile else ()
    against = ("--profile", machine.profile) if machine.profile else ()
    level = ("--only", "language/add/*", "--only", "batch/mean/*") if quick else ("--level", "quick", "--jobs", "4")
    return [
        Step("passport", "the chip's arithmetic, measured against its profile",
             (*torchport, "probe", "--target", machine.target, *emulated, *against, "--json", "{out}"), 120, 400),
        Step("dots", "bits of tl.dot predicted against bits measured", script("dots"), 180, 550),
        Step("offline", "kernels compiled offline, launched, against predicted bits", script("offline"), 60, 300),
        Step("tests", "tests that need a GPU", script("marked_tests"), 180, 550),
        Step("attention", "attention's speed against FlashAttention", script("attention"), 400, 1200),
        Step("conformance", "the conformance suite, batch invariance in it",
             (*torchport, "conformance", "--target", machine.target, *level, "-o", "{out}"), 400, 1500),
    ]  # fmt: skip

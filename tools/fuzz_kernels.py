#!/usr/bin/env python3
"""Random Triton kernels on torchport's targets, compared with NumPy: ``python tools/fuzz_kernels.py --count 1000``.

Each kernel follows from one integer: ``--seed 17 --count 1 --show`` runs one again. See docs/fuzzing.md.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fuzzing.campaign import Campaign, Fuzzer, arguments
from fuzzing.kernel_program import Program
from fuzzing.kernel_random import random_program
from fuzzing.kernel_run import run
from fuzzing.kernel_shrink import smaller
from fuzzing.outcome import Known

KNOWN = (Known("flip or topk of one element", r"has no attribute .numel..*tl\.(flip|topk)", "Triton's frontend"),)


def show(program: Program) -> str:
    inputs = {i.name: f"{i.dtype}[{i.storage.size}]" for i in program.used_inputs()}
    return f"{program.source()}# grid {program.grid}, {inputs}, {program.numbers()}"


FUZZER = Fuzzer("kernels", random_program, run, smaller, show, KNOWN)


def main() -> int:
    """The exit status: 1 if something is not explained."""
    parser = argparse.ArgumentParser(description="Random Triton kernels on torchport's targets, compared with NumPy.")
    arguments(parser)
    parser.add_argument("--target", default="cpu,opencl", help="targets, with commas between (default cpu,opencl)")
    parser.add_argument(
        "--sanitize-every", type=int, default=20, help="every nth on cpu with the sanitizer (default 20)"
    )
    given = parser.parse_args()
    every = given.sanitize_every

    def options(target: str) -> Any:
        return lambda seed: {"target": target, "sanitized": target == "cpu" and every > 0 and seed % every == 0}

    return Campaign(FUZZER, given, {t: options(t) for t in given.target.split(",")}).run()


if __name__ == "__main__":
    sys.exit(main())

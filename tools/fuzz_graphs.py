#!/usr/bin/env python3
"""Random PyTorch programs, compiled, compared with eager: ``python tools/fuzz_graphs.py --count 1000``.

Each program follows from one integer: ``--seed 17 --count 1 --show`` runs one again. See docs/fuzzing.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from fuzzing.campaign import Campaign, Fuzzer, arguments
from fuzzing.graph_program import Program
from fuzzing.graph_run import run
from fuzzing.graph_shrink import smaller
from fuzzing.graph_statements import random_program
from fuzzing.outcome import Known, Outcome

KNOWN = (
    Known("refused by fake tensors", "when making fake tensor call", "Dynamo: an error where eager has a result"),
    Known("written through as_strided", "banned in compile", "AOTAutograd: an error"),
    Known("written through overlapping elements", "mutated that has internal overlap", "AOTAutograd: an error"),
    Known("written through another dtype", "input mutations on views with different dtypes", "AOTAutograd: an error"),
    Known("view of a written input with gaps", "gen_alias_from_base.*shape '.*' is invalid", "AOTAutograd: an error"),
    Known(
        "written through expand",
        r"(two bool|wrong; at|shape error in scatter op|setStorage: sizes [^\n]*are out of bounds"
        r"|written-to tensor refers to a single memory location)"
        r".*(\bv\d+) = \S+\.expand\(.*\b\2\.[^\n]*\w_\(",
        "AOTAutograd",
    ),
    Known(
        "zeros in place of no gradient", r"gradient, call \d: tensor\([][0., \n]*\) instead of 'none'", "AOTAutograd"
    ),
    Known("shape from before squeeze_", "IndexError: list index out of range.*squeeze_", "Dynamo: an error"),
    Known(
        "view of what unsqueeze_ or squeeze_ reshaped",
        r"incorrect out shape after .* ViewMeta.*squeeze_\(",
        "AOTAutograd: an error",
    ),
    Known(
        "saved value written in the traced program",
        "BackendCompilerFailed.*needed for gradient computation has been modified by an inplace",
        "AOTAutograd: an error",
    ),
)
LAYERS = {"eager": "Dynamo", "aot_eager": "AOTAutograd", "inductor": "Inductor", "torchport": "torchport"}


def show(program: Program) -> str:
    inputs = "\n".join(f"# {i}" for i in program.inputs)
    about = f"# calls {program.calls}, dynamic {program.dynamic}"
    return f"{inputs}\n{about}\n{program.source()}"


def culprit(program: Program, outcome: Callable[..., Outcome]) -> str:
    """The first layer that fails, and what each gives."""
    kinds = {backend: outcome(program, backend=backend).kind for backend in LAYERS}
    first = next((LAYERS[b] for b, kind in kinds.items() if kind not in ("same", "unknown")), "nobody")
    return f"culprit: {first} ({', '.join(f'{b} {kind}' for b, kind in kinds.items())})"


FUZZER = Fuzzer("graphs", random_program, run, smaller, show, KNOWN, culprit)


def main() -> int:
    """The exit status: 1 if something is not explained."""
    parser = argparse.ArgumentParser(description="Random PyTorch programs, compiled, compared with eager.")
    arguments(parser)
    parser.add_argument("--backend", default="torchport", help="of torch.compile (default torchport)")
    given = parser.parse_args()
    options: dict[str, Any] = {"backend": given.backend}
    return Campaign(FUZZER, given, {given.backend: lambda seed: options}).run()


if __name__ == "__main__":
    sys.exit(main())

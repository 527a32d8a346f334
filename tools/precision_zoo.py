"""Records models of the zoo as the CPU and as an H100 compute them, and compares: whether verdicts hold everywhere.

    python tools/precision_zoo.py [MODEL ...] [--dtype bfloat16] [--train] [--dynamic] [--as h100-tf32] [--faults 3]

Prints a row of a Markdown table for each model, and what is blamed: nothing should be. ``--faults``: so many more runs
on the CPU with faults put into kernels (tools/precision_bench/placing.py): each should come first, alone.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from model_zoo import build, names
from precision_bench.placing import place

import torchport
from torchport.numerics.compare.diff import Diff, compare
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge

__all__ = ["Found", "compared", "recorded"]

HEAD = ("model", "launches", "verified", "blamed", "values", "the same", "alone", "seconds", "faults")


@dataclass(frozen=True)
class Found:
    """A comparison. ``seconds``: of one core, to judge and compare."""

    diff: Diff
    seconds: float

    def cells(self) -> list[object]:
        """Both runs' launches together; what is blamed; values that both have, those of them that are bit for bit the
        same, values that one run alone has."""
        coverage = self.diff.coverage.values()
        paired = [row for row in self.diff.rows if row.a is not None and row.b is not None]
        launches, verified = sum(one.launches for one in coverage), sum(one.verified for one in coverage)
        blamed = sum(not root.legal for root in self.diff.roots)
        same = sum(row.identical is True for row in paired)
        alone = len(self.diff.unpaired)
        return [launches, verified, blamed, len(paired), same, alone, f"{self.seconds:.0f}"]

    def wrong(self) -> list[str]:
        """Everything that should not be."""
        reasons = sum((Counter(one.unverified) for one in self.diff.coverage.values()), Counter[str]())
        blamed = [root for root in self.diff.roots if not root.legal]
        return [
            *(f"{root.level} {root.run} {root.seq} {root.kernel}: {'; '.join(root.reasons)}" for root in blamed),
            *(f"{count} not verified: {reason}" for reason, count in reasons.items()),
            *self.diff.notes,
        ]


def recorded(name: str, dtype: torch.dtype, train: bool, dynamic: bool, options: dict[str, str], folder: Path) -> Run:
    """One step of a model on a target, all of it. What the step that compiled it changed is put back before."""
    torch._dynamo.reset()
    built = build(name, "small", dtype)
    state = copy.deepcopy(built.module.state_dict())
    compiled = torch.compile(built.module, backend="torchport", options=options, dynamic=dynamic)
    built.step(compiled, train)
    built.module.load_state_dict(state)
    torch.manual_seed(0)
    with torchport.record(folder, "full", budget="16G", overhead=math.inf):
        built.step(compiled, train)
    return Run.load(folder)


def compared(name: str, dtype: torch.dtype, train: bool, dynamic: bool, chip: str) -> Found:
    """A model's run as ``chip`` computes it, compared with the CPU's own."""
    with tempfile.TemporaryDirectory() as folder:
        a = recorded(name, dtype, train, dynamic, {"target": "cpu"}, Path(folder) / "a")
        b = recorded(name, dtype, train, dynamic, {"target": "cpu", "emulate": chip}, Path(folder) / "b")
        start = time.process_time()
        diff = compare(a, b, judge, truth=True)
        return Found(diff, time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="default: all")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--as", dest="chip", default="h100-tf32")
    parser.add_argument("--faults", type=int, default=0)
    given = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for name in given.models or names():
        found = compared(name, getattr(torch, given.dtype), given.train, given.dynamic, given.chip)
        placed = place(name, given.faults) if given.faults else []
        ranks = [rank for one in placed for rank in one.ranks]
        faults = f"{ranks.count(1)} of {len(ranks)} first, {sum(one.wrong for one in placed)} wrong" if ranks else ""
        print("| " + " | ".join(map(str, [name, *found.cells(), faults])) + " |", flush=True)
        for line in found.wrong():
            print(f"    {line}", flush=True)


if __name__ == "__main__":
    main()

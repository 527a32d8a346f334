"""Records models of the zoo as the CPU and as an H100 compute them, and compares: whether verdicts hold everywhere.

python tools/precision_zoo.py [MODEL ...] [--dtype bfloat16] [--train] [--dynamic] [--as h100-tf32] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from model_zoo import build, names

import torchport
from torchport.numerics.diff import Diff, compare
from torchport.numerics.judging import judge
from torchport.numerics.run import Run


def recorded(name: str, arguments: argparse.Namespace, options: dict[str, str], folder: Path) -> Run:
    """One call of a model (with ``--train`` also backward) on a target, all of it recorded."""
    torch._dynamo.reset()
    built = build(name, "small", getattr(torch, arguments.dtype), train=arguments.train)
    compiled = torch.compile(built.module, backend="torchport", options=options, dynamic=arguments.dynamic)
    call: Callable[[], Any] = functools.partial(compiled, **built.inputs)

    def step() -> None:
        torch.manual_seed(0)
        with torch.set_grad_enabled(arguments.train):
            result = call()
            if arguments.train:
                values = built.outputs(result)
                loss = values.get("loss", sum(one.double().square().mean() for one in values.values()))
                loss.backward()

    step()
    built.module.zero_grad()
    with torchport.record(folder, "full", budget="16G", overhead=math.inf):
        step()
    return Run.load(folder)


def figures(diff: Diff) -> dict[str, Any]:
    """What is worth knowing of a comparison."""
    coverage = diff.coverage
    roots = [root for root in diff.roots if not root.legal]
    return {
        "launches": sum(one.launches for one in coverage.values()),
        "verified": sum(one.verified for one in coverage.values()),
        "levels": dict(sum((Counter(one.levels) for one in coverage.values()), Counter())),
        "unverified": dict(sum((Counter(one.unverified) for one in coverage.values()), Counter())),
        "roots": [(one.run, one.seq, one.kernel, one.nodes, one.level, one.reasons) for one in roots],
        "values": len(diff.rows),
        "alone": [(one.run, one.node, one.operation, one.reason) for one in diff.unpaired],
        "identical": sum(row.identical is True for row in diff.rows),
        "notes": diff.notes,
    }


def compared(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        a = recorded(name, arguments, {"target": "cpu"}, Path(folder) / "a")
        b = recorded(name, arguments, {"target": "cpu", "emulate": arguments.chip}, Path(folder) / "b")
        middle = time.perf_counter()
        found = figures(compare(a, b, judge, truth=True))
        end = time.perf_counter()
        return {"model": name, "record_s": middle - start, "diff_s": end - middle, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="default: all")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--as", dest="chip", default="h100-tf32")
    parser.add_argument("--json", type=Path, help="append one line a model")
    arguments = parser.parse_args()
    for name in arguments.models or names():
        found = compared(name, arguments)
        levels = ", ".join(f"{count} {level}" for level, count in sorted(found["levels"].items()))
        print(f"{name}: {found['launches']} launches: {levels}; {found['diff_s']:.0f} s", flush=True)
        if arguments.json is not None:
            with arguments.json.open("a") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

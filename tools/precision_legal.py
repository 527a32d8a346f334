"""Pairs of runs that differ as is legal: none may be blamed, nor be taken for another program.

    python tools/precision_legal.py FOLDER [--only TEXT] [--json FILE]

Models of the zoo (small, random weights) are recorded on the CPU and otherwise: in another memory format, frozen, with
one thread, with other block sizes, unfused, with attention decomposed, dynamic, in bf16, on other targets, and as other
chips compute. Each pair is compared as ``torchport diff --truth fp64`` does. Runs that are in FOLDER are not made
again. Exit status 1 if one is blamed. Targets that are not here are left out, and named.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch._inductor import config as inductor
from torch.nn.attention import SDPBackend, sdpa_kernel

import torchport
from torchport.cli.precision.diff import compared
from torchport.errors import TargetError
from torchport.evaluation.models import Built, build
from torchport.numerics.runs.reader import Run
from torchport.precision.ways import threads

EMULATED = ("a100", "a100-tf32", "h100", "h100-tf32", "mi300x", "mi210", "v100", "b200-tf32", "l40s-tf32", "npu")


def run(built: Built, folder: Path, *, eager: bool = False, dynamic: bool = False, **options: Any) -> None:
    """Record a run of a model, compiled before."""
    torch._dynamo.reset()
    with torch.no_grad():
        if eager:
            with torchport.record(folder, "full", eager=built.module):
                built.module(**built.inputs)
            return
        model = torch.compile(built.module, backend="torchport", options=options, dynamic=dynamic)
        model(**built.inputs)
        with torchport.record(folder, "full"):
            model(**built.inputs)


def channels_last(built: Built) -> Built:
    module = copy.deepcopy(built.module).to(memory_format=torch.channels_last)
    images = {k: v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in built.inputs.items()}
    return Built(built.entry, module, images, built.output_names)


Make = Callable[[Path], None]


def ways(name: str) -> Mapping[str, Make]:
    """How else the model is run; ``cpu`` is the reference."""
    built = build(name)
    found: dict[str, Make] = {"cpu": lambda folder: run(built, folder)}
    found |= {chip: lambda folder, chip=chip: run(built, folder, emulate=chip) for chip in EMULATED}
    found |= {
        target: lambda folder, target=target: run(built, folder, target=target)
        for target in ("opencl", "webgpu", "linalg", "cpu:x86_64:avx2")
    }

    def within(*contexts: Callable[[], Any], **how: Any) -> Make:
        def make(folder: Path) -> None:
            with contexts[0](), contexts[1]() if len(contexts) > 1 else nullcontext():
                run(built, folder, **how)

        return make

    found |= {
        "one thread": within(lambda: threads(1)),
        "unfused": within(lambda: inductor.patch(max_fusion_size=1)),
        "frozen": within(lambda: inductor.patch(freezing=True)),
        "decomposed attention": within(lambda: sdpa_kernel(SDPBackend.MATH)),
        "no persistent reductions": within(lambda: inductor.patch({"triton.persistent_reductions": False})),
        "dynamic sizes": within(nullcontext, dynamic=True),
        "eager": within(nullcontext, eager=True),
        "bfloat16": lambda folder: run(build(name, "small", torch.bfloat16), folder),
        "bfloat16 pairs": lambda folder: run(build(name, "small", torch.bfloat16), folder, bf16_products="pairs"),
        "channels last": lambda folder: run(channels_last(built), folder),
    }
    return found


CHOSEN = {
    "gpt2": ("a100", "a100-tf32", "h100", "h100-tf32", "mi300x", "mi210", "v100", "opencl", "webgpu", "linalg",
             "cpu:x86_64:avx2", "one thread", "unfused", "frozen", "decomposed attention", "no persistent reductions",
             "dynamic sizes", "eager", "bfloat16", "bfloat16 pairs"),
    "resnet": ("a100-tf32", "h100-tf32", "mi300x", "opencl", "channels last", "frozen", "one thread", "bfloat16"),
    "llama": ("a100", "a100-tf32", "b200-tf32", "l40s-tf32", "npu", "opencl", "decomposed attention", "eager"),
}  # fmt: skip


def judge(folder: Path, name: str, way: str) -> dict[str, Any]:
    """The comparison of two runs, as figures."""
    began = time.perf_counter()
    diff = compared(Run.load(folder / name / "cpu", trust=True), Run.load(folder / name / way, trust=True), truth=True)
    paired = [row for row in diff.rows if row.a is not None and row.b is not None]
    coverage = list(diff.coverage.values())
    return {
        "model": name,
        "way": way,
        "status": diff.status(("SUSPECT", "FAIL")),
        "headline": diff.programs.headline,
        "launches": sum(one.launches for one in coverage),
        "verified": sum(one.verified for one in coverage),
        "blamed": sum(not root.legal for root in diff.roots),
        "values": len(paired),
        "identical": sum(row.identical is True for row in paired),
        "alone": len(diff.unpaired),
        "largest": max((row.difference for row in paired if row.difference is not None), default=0.0),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="pairs with this in their name")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    results, absent = [], 0
    print("| model | run | exit status | launches verified | blamed | values (same) | alone | largest B - A |")
    print("|---|---|---|---|---|---|---|---|")
    for name, names in CHOSEN.items():
        makes = ways(name)
        for way in ("cpu", *(way for way in names if chosen.only in f"{name} {way}")):
            folder = chosen.folder / name / way
            try:
                if not folder.exists():
                    makes[way](folder)
            except TargetError as error:
                absent += 1
                print(f"| {name} | {way} | left out: {error} | | | | | |")
                continue
            if way == "cpu":
                continue
            found = judge(chosen.folder, name, way)
            results.append(found)
            print(
                "| {model} | {way} | {status} | {verified} of {launches} | {blamed} | {values} ({identical}) | {alone} "
                "| {largest:.1e} |".format(**found),
                flush=True,
            )
    wrong = [found for found in results if found["status"] != 0]
    print(f"{len(results)} pairs, {len(wrong)} blamed or taken for another program, {absent} left out")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env python3
"""Show that a refactoring leaves the generated code alone: write it to a folder before and after, and compare.

    python tools/ir_snapshot.py write /tmp/before
    git switch my-refactoring
    python tools/ir_snapshot.py write /tmp/after
    python tools/ir_snapshot.py compare /tmp/before /tmp/after

A snapshot holds the kernels of the kernel benchmark, of five models of the zoo (inference, and training of one) and of
the lit tests. For each it has TTIR, the LLVM IR of the CPU target, the C of the SIMT lowering, and the LLVM IR of the
kernel with the sanitizer's checks, promoted to float64, with noise, and in the arithmetic of three chips. A kernel that
a lowering refuses has the reason in place of the code. Two snapshots are comparable if they were made on one kind of
CPU: the passes ask for its vector width.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"llama": False, "gpt2": True, "vit": False, "convnext": False, "mamba": False}  # name -> also training
CHIPS = ("h100", "mi300x", "npu")
NAME = re.compile(r"tt\.func public @([\w.$]+)")
LINE = re.compile(r"at \w+\.py:\d+(?=\")")  # in messages of assertions: the generated file has another name in each run


def main() -> int:
    """Write or compare. Returns 1 where two snapshots differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="write a snapshot into a new folder")
    writing.add_argument("folder", type=Path)
    writing.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS), help="names of the zoo")
    writing.add_argument("--ttir", type=Path, help="take the TTIR from this snapshot, compile no model")
    comparing = commands.add_parser("compare", help="list the files in which two snapshots differ")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    commands.add_parser("_dump", help=argparse.SUPPRESS).add_argument("what")
    arguments = parser.parse_args()
    if arguments.command == "_dump":
        dump(arguments.what)
        return 0
    if arguments.command == "compare":
        return compare(arguments.before, arguments.after)
    arguments.folder.mkdir(parents=True)
    texts = taken(arguments.ttir) if arguments.ttir else compiled(arguments.models)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        counts = list(pool.map(write, texts, texts.values(), [arguments.folder] * len(texts), chunksize=4))
    kinds = {kind: sum(kind in count for count in counts) for kind in sorted({k for count in counts for k in count})}
    print(f"{len(texts)} kernels; " + ", ".join(f"{number} {kind}" for kind, number in kinds.items()))
    return 0


def taken(snapshot: Path) -> dict[str, str]:
    """Names and TTIR of an older snapshot's kernels."""
    return {path.stem: path.read_text() for path in sorted(snapshot.glob("*.ttir"))}


def compiled(models: list[str]) -> dict[str, str]:
    """TTIR by name: the kernels that models, the benchmark and the lit tests have today."""
    found: dict[str, str] = {}
    for what in ("kernels", *models):
        with tempfile.TemporaryDirectory(prefix="torchport-snapshot-") as root:
            variables = {name: f"{root}/{name}" for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
            variables |= {"TORCHPORT_CACHE_DIR": f"{root}/cache", "TORCHPORT_DUMP_DIR": f"{root}/dump"}
            variables |= {"TORCHPORT_DEBUG": "3", "TORCHPORT_COMPILE_AHEAD": "0"}
            command = [sys.executable, __file__, "_dump", what]
            subprocess.run(command, env=os.environ | variables, check=True, stdout=2, stderr=subprocess.DEVNULL)
            texts = [LINE.sub("at generated code", path.read_text()) for path in Path(root, "dump").glob("*.ttir")]
        found |= {f"{what}.{name_of(text)}": text for text in texts}
    for path in sorted((ROOT / "passes" / "test").glob("*.ttir")):
        if path.stem == "mark_streams_powers":  # written for one pass: others take exponential time for its addresses
            continue
        text = path.read_text()
        if not re.search(r"^[^/]*\btp\.", text, re.MULTILINE):  # those start in the middle of the pipeline
            found[f"lit.{path.stem}"] = text
    return found


def name_of(text: str) -> str:
    """A kernel's name, and a few letters that other kernels of that name do not have."""
    match = NAME.search(text)
    return f"{match[1] if match else 'kernel'}.{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def dump(what: str) -> None:
    """Compile the benchmark's kernels or a model of the zoo, in a process that dumps TTIR."""
    import torch

    sys.path.insert(0, str(ROOT / "tools"))
    torch.manual_seed(0)
    if what == "kernels":
        from kernel_bench.case import Sizes
        from kernel_bench.kernels import KERNELS, cases

        for kernel in KERNELS:
            for case in cases(kernel, Sizes((2**16,), quick=True)):
                case.run()
        return
    from model_zoo import build

    for train in (False, True)[: 1 + MODELS.get(what, False)]:
        built = build(what, train=train)
        built.step(torch.compile(built.module, backend="torchport"), train)


def lowerings() -> Iterator[tuple[str, Callable[[str], str]]]:
    """What is made of a kernel's TTIR: the ending of its file, and the function that makes it."""
    from torchport_cpu.host import host_info
    from torchport_cpu.lower import lower_ttir
    from torchport_simt import SIMTCompiler, Spelling
    from torchport_simt.compilation import binary_of, lower

    from torchport.arithmetic.profile import Profile
    from torchport.capabilities import Capabilities
    from torchport.target import Target

    def to_llvm(**options: Any) -> Callable[[str], str]:
        def lowered(ttir: str) -> str:
            made = lower_ttir(ttir, host_info(), **options)
            facts = {"cost": made.cost, "serial": made.serial, "signature": made.signature, "written": made.written}
            facts["sites"] = [repr(site) for site in made.sites]
            return f"; {json.dumps(facts)}\n{made.llvm_ir}"

        return lowered

    def to_c(ttir: str) -> str:
        binary = binary_of(lower(ttir, SIMTCompiler(Target("null"), Spelling("plain C", "c", ""), able)))
        return binary.data.decode()

    able = Capabilities(
        simd_width=8, simd_groups=(1, 2, 4, 8, 16, 32), lane_elements=1, block_elements=4096,
        grid=(65535, 65535, 65535), scratchpad_bytes=65536,
        dtypes=frozenset({"int1", "int8", "int32", "int64", "fp16", "bf16", "fp32", "fp64"}),
        dot_precisions=frozenset({"ieee"}), denormals=frozenset({"fp32"}), atomics=frozenset({"int32", "int64"}),
    )  # fmt: skip
    yield "ll", to_llvm()
    yield "c", to_c
    yield "sanitized.ll", to_llvm(sanitize=True)
    yield "f64.ll", to_llvm(arithmetic='{"promote": true}')
    yield "noise.ll", to_llvm(arithmetic='{"noise": {"ulp": {"exp": 2}}, "promote": true}')
    for chip in CHIPS:
        yield f"{chip}.ll", to_llvm(arithmetic=Profile.load(chip).arithmetic())


def write(name: str, ttir: str, folder: Path) -> list[str]:
    """Write everything that becomes of one kernel; returns the kinds of code that were not refused."""
    from torchport.errors import TorchportError

    (folder / f"{name}.ttir").write_text(ttir)
    made = []
    for kind, lowering in lowerings():
        try:
            text = lowering(ttir)
            made.append(kind)
        except (TorchportError, RuntimeError) as error:  # a lit test's IR need not be whole: the bindings say so
            text = f"refused: {type(error).__name__}: {error}\n"
        (folder / f"{name}.{kind}").write_text(text)
    return made


def compare(before: Path, after: Path) -> int:
    """Print the files that are missing on a side or differ, with the first differing lines. Returns 1 if any do."""
    names = {side: {path.name for path in side.iterdir()} for side in (before, after)}
    same, different = 0, 0
    for name in sorted(names[before] | names[after]):
        missing = next((side for side in (before, after) if name not in names[side]), None)
        if missing is not None:
            different += 1
            print(f"{name}: not in {missing}")
            continue
        old, new = ((side / name).read_text() for side in (before, after))
        if old == new:
            same += 1
            continue
        different += 1
        print(f"{name}: differs")
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1)
        for line in itertools.islice(lines, 12):
            print(f"    {line[:160]}")
    print(f"{same} files are the same, {different} differ")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())

"""The runs of docs/precision-example.md: one transformer on the CPU, as an H100 would compute it, and with a bug.

    python tools/precision_example.py FOLDER [cpu] [opencl] [h100] [bug]     # default: cpu h100 bug

The bug is put into one kernel after Triton's frontend, by Triton's own hook: the squares of a layer norm's variance are
rounded to bf16 before they are summed, an upcast that a compiler lost. Everything else is what the target always does.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from model_zoo import build
from triton import knobs

import torchport

BROKEN = re.compile(r"triton_per_fused_native_layer_norm_\d+\b")
"""The kernel with the bug: the layer norm behind the first block's attention."""

OPTIONS = {
    "cpu": {"target": "cpu"},
    "opencl": {"target": "opencl"},
    "h100": {"target": "cpu", "emulate": "h100"},
    "bug": {"target": "cpu"},
}


def lose_an_upcast(ttir: str) -> str:
    """Round what the second sum of a kernel adds up to bf16."""
    second = re.findall(r'"tt\.reduce"\((%\w+)\)', ttir)[1]
    made = re.search(rf"^ *{re.escape(second)} = .*: (tensor<[\dx]+)f32>$", ttir, re.MULTILINE)
    assert made is not None
    wide, narrow = f"{made[1]}f32>", f"{made[1]}bf16>"
    rounding = f"\n    %n = arith.truncf {second} : {wide} to {narrow}\n    %w = arith.extf %n : {narrow} to {wide}"
    text = ttir.replace(made[0], made[0] + rounding)
    return text.replace(f'"tt.reduce"({second})', '"tt.reduce"(%w)')


@contextmanager
def broken_compiler() -> Iterator[None]:
    """Compile one kernel wrongly while the context is open."""

    def hook(backend: Any = None, stages: Any = None, *_: Any) -> tuple[str, str]:
        if stages is None:  # what caches are to tell it by
            return "broken", "broken"
        frontend = stages["ttir"]

        def ttir(module: Any, metadata: dict[str, Any]) -> Any:
            made = frontend(module, metadata)
            text = made.str_nodebug()
            if not BROKEN.search(text):
                return made
            from triton._C.libtriton import ir

            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "kernel.ttir"
                path.write_text(lose_an_upcast(text))
                wrong = ir.parse_mlir_module(str(path), made.context)
            wrong.context = made.context
            return wrong

        stages["ttir"] = ttir
        return "broken", "broken"

    knobs.runtime.add_stages_inspection_hook = hook
    try:
        with tempfile.TemporaryDirectory() as cache:  # no cache keeps what is wrong
            switches = {"TORCHPORT_CACHE_DIR": cache, "TORCHPORT_COMPILE_AHEAD": "0"}
            with mock.patch.dict(os.environ, switches), torch._inductor.config.patch(force_disable_caches=True):
                yield
    finally:
        knobs.runtime.add_stages_inspection_hook = None


def record(name: str, folder: Path) -> None:
    """Record one run of GPT-2 (small, random weights) into ``folder``."""
    torch._dynamo.reset()
    built = build("gpt2", "small")
    compiled = torch.compile(built.module, backend="torchport", options=OPTIONS[name], dynamic=False)
    with torch.no_grad():
        with broken_compiler() if name == "bug" else nullcontext():
            compiled(**built.inputs)
        with torchport.record(folder, "full"):  # nothing is compiled again
            compiled(**built.inputs)


def main() -> None:
    root, *names = sys.argv[1:]
    for name in names or ["cpu", "h100", "bug"]:
        record(name, Path(root) / name)


if __name__ == "__main__":
    main()

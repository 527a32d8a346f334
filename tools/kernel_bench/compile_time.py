"""From TTIR to a loaded object in torchport's own stages: how long it takes, and how that grows with the block size.

Stages are timed as they pass; what is judged is the thread's CPU time, which waiting for other work on the machine does
not lengthen.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torchport_cpu import codegen
from torchport_cpu.host import host_info
from torchport_cpu.lower import lower_ttir
from triton._C.libtriton import ir

from kernel_bench.kernels.norms import layer_norm_kernel
from kernel_bench.kernels.pointwise import add_kernel
from kernel_bench.kernels.rows import softmax_kernel
from kernel_bench.kernels.scans import cumsum_kernel

BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096)


def bare_ttir(compiled: Any) -> str:
    """A compiled kernel's TTIR without locations: what torchport's stages get."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ttir"
        file.write_text(compiled.asm["ttir"])
        context = ir.context()
        ir.load_dialects(context)
        return ir.parse_mlir_module(str(file), context).str_nodebug()  # type: ignore[no-any-return]


def compile_once(ttir: str) -> dict[str, Any]:
    """One compilation without caches: `cpu_s`, seconds of CPU time, and `stages`, seconds of each stage: the passes by
    name, `translate` (reading TTIR and writing LLVM IR), `llvm`, `load`."""
    spent = time.thread_time()
    begin = time.perf_counter()
    lowered = lower_ttir(ttir, host_info())
    passed = time.perf_counter()
    image, imports = codegen.emit_object(lowered.llvm_ir, host_info())
    emitted = time.perf_counter()
    loaded = codegen.load(image, lowered.name, imports)
    end = time.perf_counter()
    spent = time.thread_time() - spent
    del loaded
    stages = {stage.name: stage.seconds for stage in lowered.times}
    stages["translate"] = passed - begin - sum(stages.values())
    return {"cpu_s": spent, "stages": stages | {"llvm": emitted - passed, "load": end - emitted}}


def compile_times(compiled: Any, repeats: int) -> list[dict[str, Any]]:
    """Times of `repeats` compilations of a kernel. One more goes before, which imports what is not yet there."""
    ttir = bare_ttir(compiled)
    compile_once(ttir)
    return [compile_once(ttir) for _ in range(repeats)]


def growth(repeats: int) -> dict[str, dict[int, list[float]]]:
    """Seconds of CPU time of each compilation of four kernels by block size; the sizes take turns."""
    a, b = torch.randn(2, 4096)
    n = 4000
    arguments = {
        add_kernel: (a, a, b, n),
        softmax_kernel: (a, b, n),
        layer_norm_kernel: (a, a, a, b, b, b, n, 1e-5),
        cumsum_kernel: (a, b, n),
    }
    found: dict[str, dict[int, list[float]]] = {}
    for kernel, values in arguments.items():
        texts = {block: bare_ttir(kernel.warmup(*values, grid=(1,), BLOCK=block)) for block in BLOCKS}
        name = kernel.fn.__name__.removesuffix("_kernel")
        found[name] = {block: [] for block in BLOCKS}
        for text in texts.values():
            compile_once(text)
        for _ in range(repeats):
            for block, text in texts.items():
                found[name][block].append(compile_once(text)["cpu_s"])
    return found

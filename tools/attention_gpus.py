"""Compile attention's kernels for GPUs that need not be here, and list registers and spills.

    python tools/attention_gpus.py [--targets cuda:80,cuda:90,hip:gfx942] [--sizes 64,128] [--dtypes bfloat16,float32]

Prints one row a kernel: blocks, warps, registers of a lane, bytes of spilled registers, local memory, bytes of code.
The exit status is 1 if a kernel spills or needs more local memory than the target has.
"""

from __future__ import annotations

import argparse
import sys

import torch

import torchport.ops as ops
from torchport.ops.launch import Compiled, compiling_for
from torchport.plugin import backend_for
from torchport.target import Target

KERNELS = ("forward", "backward", "piecewise", "paged")
HELPERS = ("backward_delta", "paged_kernels_combine")
"""Kernels without blocks of their own to choose."""


def compiled(kernel: str, target: Target, size: int, dtype: torch.dtype) -> list[Compiled]:
    """What an operator launches, compiled for ``target``.

    kernel: ``forward``, ``backward``, ``piecewise`` (both) or ``paged``.
    """
    q, k, v = (torch.zeros(1, 2, 64, size, dtype=dtype, requires_grad=kernel != "forward") for _ in range(3))
    with compiling_for(target) as found:
        if kernel == "paged":
            caches = [torch.zeros(4, 16, 2, size, dtype=dtype) for _ in range(2)]
            tables, contexts = torch.zeros(1, 4, dtype=torch.int32), torch.ones(1, dtype=torch.int32)
            ops.paged_attention(torch.zeros(1, 2, size, dtype=dtype), *caches, tables, contexts)
        elif kernel == "piecewise":
            ops.piecewise_attention(q, k, q, k, v, 16, causal=True).sum().backward()
        else:
            out = ops.flash_attention(q, k, v, causal=True)
            if kernel == "backward":
                found.clear()
                out.sum().backward()
    return [one for one in found if one.name not in HELPERS]


def row(target: Target, size: int, dtype: torch.dtype, one: Compiled) -> tuple[str, bool]:
    """A row of the table, and whether the kernel fits."""
    resources = one.binary.resources
    local = int(one.binary.metadata.get("shared") or resources.scratchpad_bytes)
    most = backend_for(target).capabilities(target).scratchpad_bytes
    blocks = f"{one.constants['BLOCK_M']} x {one.constants['BLOCK_N']}"
    cells = (
        target, one.name, size, str(dtype).removeprefix("torch."), blocks, one.tuning.get("num_warps", 4),
        resources.registers, resources.spill_bytes, local, len(one.binary.data),
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |", not resources.spill_bytes and (not most or local <= most)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="cuda:80,cuda:90,hip:gfx942")
    parser.add_argument("--sizes", default="64,128")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    chosen = parser.parse_args()
    print("| target | kernel | size | dtype | rows x keys | warps | registers | spilled | local memory | code |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    fits = True
    for target in map(Target.parse, chosen.targets.split(",")):
        for dtype in (getattr(torch, name) for name in chosen.dtypes.split(",")):
            for size in map(int, chosen.sizes.split(",")):
                for kernel in KERNELS:
                    for one in compiled(kernel, target, size, dtype):
                        line, good = row(target, size, dtype, one)
                        print(line, flush=True)
                        fits &= good
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())

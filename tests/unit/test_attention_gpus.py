"""Attention's kernels compiled for GPUs that need not be here: no spilled registers, local memory that is there."""

from __future__ import annotations

import pytest
import torch
from attention_gpus import KERNELS, compiled, row

import torchport.ops
from torchport.ops.attention.configurations import blocks_for
from torchport.ops.launch import compiling_for
from torchport.target import Target

TARGETS = ("cuda:80", "cuda:90", "hip:gfx942")
QUICK = {("cuda:80", "forward"), ("cuda:90", "backward"), ("hip:gfx942", "paged"), ("hip:gfx942", "forward")}


@pytest.mark.parametrize(
    ("target", "kernel"),
    [
        pytest.param(target, kernel, marks=[] if (target, kernel) in QUICK else [pytest.mark.slow])
        for target in TARGETS
        for kernel in KERNELS
    ],
)
def test_kernels_fit(target: str, kernel: str) -> None:
    found = compiled(kernel, Target.parse(target), 64, torch.bfloat16)
    assert len(found) == {"forward": 1, "backward": 2, "piecewise": 3, "paged": 1}[kernel]
    for one in found:
        line, fits = row(Target.parse(target), 64, torch.bfloat16, one)
        assert fits, line
        assert one.binary.format == ("cubin" if target.startswith("cuda") else "hsaco")


def test_blocks_follow_the_chip() -> None:
    device = torch.device("cpu")
    assert blocks_for("forward", device, 4096, 64, 2).tuning() == {}
    with compiling_for(Target.parse("cuda:120")) as found:
        assert blocks_for("forward", device, 4096, 64, 2).tuning() == {"num_warps": 8, "num_stages": 1}
        assert blocks_for("forward", device, 4096, 512, 2) == blocks_for("totals", device, 4096, 64, 2)
    assert not found


def test_other_operators_compile_for_a_chip_that_is_not_here() -> None:
    with compiling_for(Target.parse("cuda:90")) as found:
        torchport.ops.rms_norm(torch.zeros(4, 64))
    assert [one.name for one in found] == ["rms_norm_forward"]

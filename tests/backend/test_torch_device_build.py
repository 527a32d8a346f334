"""``torchport ops build`` for a torch device: a new process compiles nothing that was built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")

CALLS = """
import torch, torchport
from torchport.runtime import events
device = torchport.device(0)
with events.capture() as happened:
    for length in (3, 40):
        x = torch.randn(length)
        torch.testing.assert_close(x.to(device).reciprocal().cpu(), x.reciprocal())
kernels = [event for event in happened if isinstance(event, events.Kernel)]
print(len(kernels), sum(not kernel.cached for kernel in kernels), torchport.fallbacks())
"""


def test_a_new_process_compiles_nothing_that_was_built(tmp_path: Path) -> None:
    names = ("TORCHPORT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    environment = {**os.environ, **{name: str(tmp_path / name) for name in names}}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], check=False, capture_output=True, text=True, timeout=300, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    build = ("-m", "torchport.cli", "ops", "build", "--target", str(targets()[0]), "--jobs", "1", "--only")
    first = python(*build, "aten.reciprocal.default")
    assert "1 built, 0 already there, 0 not supported, 0 failed" in first
    kernels, compiled, *rest = python("-c", CALLS).split()
    assert (int(kernels), int(compiled), rest) == (1, 0, ["{}"])

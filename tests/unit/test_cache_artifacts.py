"""``torch.compiler.save_cache_artifacts`` carries kernels: another process with empty caches compiles none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SAVES = """
import sys
import torch
from torchport.runtime import events
with events.capture() as happened:
    result = torch.compile(lambda x: torch.softmax(x.exp() + 1, -1), backend="torchport")(torch.ones(8, 64))
kernels = [event for event in happened if isinstance(event, events.Kernel)]
data, info = torch.compiler.save_cache_artifacts()
assert len(info.torchport_kernel_artifacts) == len({k.name for k in kernels}) == 1, info
open(sys.argv[1], "wb").write(data)
print([kernel.cached for kernel in kernels], result.sum().item())
"""

LOADS = """
import sys
import torch
from torchport.autoload import autoload
autoload()  # as ``import torch`` does where torchport is installed
info = torch.compiler.load_cache_artifacts(open(sys.argv[1], "rb").read())
assert len(info.torchport_kernel_artifacts) == 1
from torchport.runtime import events
with events.capture() as happened:
    result = torch.compile(lambda x: torch.softmax(x.exp() + 1, -1), backend="torchport")(torch.ones(8, 64))
kernels = [event for event in happened if isinstance(event, events.Kernel)]
print([kernel.cached for kernel in kernels], result.sum().item())
assert len(torch.compiler.save_cache_artifacts()[1].torchport_kernel_artifacts) == 1  # cached kernels are saved as well
"""


def run(code: str, file: Path, caches: Path) -> str:
    """The last line that a process with caches of its own prints."""
    names = ("TORCHPORT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    environment = {**os.environ, **{name: str(caches / name) for name in names}}
    command = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def test_another_process_compiles_no_kernel(tmp_path: Path) -> None:
    assert run(SAVES, tmp_path / "artifacts", tmp_path / "first") == "[False] 8.0"
    assert run(LOADS, tmp_path / "artifacts", tmp_path / "second") == "[True] 8.0"

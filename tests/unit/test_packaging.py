"""What an installed torchport needs, and what importing it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import processes
import pytest

COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++")

MODEL = """
import os, shutil, torch
assert not any(shutil.which(name) for name in {compilers}), os.environ["PATH"]

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 16), torch.nn.Softmax(-1)
)
x = torch.randn(5, 32)
compiled = torch.compile(model, backend="torchport", options={{"fallback": "error"}})
with torch.no_grad():
    exact = model.double()(x.double())
    model.float()
    assert (compiled(x).double() - exact).abs().max() <= 2e-6, "inference"

loss = compiled(x).square().sum()
loss.backward()
gradients = [p.grad.double() for p in model.parameters()]
model.zero_grad(set_to_none=True)
model.double()(x.double()).square().sum().backward()
for got, p in zip(gradients, model.parameters()):
    assert (got - p.grad).abs().max() <= 2e-6 * max(1.0, p.grad.abs().max().item()), "training"

from torchport.runtime import events
print("kernels:", sum(isinstance(event, events.Kernel) for event in events.history()))
"""


def python(program: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def path_without_compilers(folder: Path) -> str:
    """A PATH that leads to every program of the present one but the compilers (also gcc-14, x86_64-linux-gnu-g++)."""
    for entry in os.environ["PATH"].split(os.pathsep):
        if not os.path.isdir(entry):
            continue
        for program in os.scandir(entry):
            words = program.name.split("-")
            if not set(words) & set(COMPILERS) and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program.path)
    return str(folder)


def test_no_compiler_is_needed_at_run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    environment = {"PATH": path_without_compilers(programs)}
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR"):
        environment[name] = str(tmp_path / name)
    assert shutil.which("env", path=environment["PATH"])  # the rest of the PATH is still there
    result = processes.run(MODEL.format(compilers=COMPILERS), environment=environment)
    assert result.returncode == 0, result.stderr[-4000:]
    assert int(result.stdout.rpartition("kernels:")[2]) >= 2, result.stdout


def test_importing_torchport_imports_no_compiler() -> None:
    loaded = python("import sys, torchport; print(*sys.modules)").split()
    assert "torchport" in loaded
    for package in ("torch", "triton", "mlir", "llvmlite", "transformers", "rich", "typer"):
        assert package not in loaded


def test_importing_torchport_changes_no_inductor_setting() -> None:
    program = """
import sys
import torch, torch._inductor.config, torch._dynamo.config, torch._functorch.config
configs = (torch._inductor.config, torch._dynamo.config, torch._functorch.config)
def settings():
    return [config.get_config_copy() for config in configs], torch.get_num_threads(), torch.get_default_dtype()
before = settings()
import torchport, torchport.compile, torchport.inductor
assert "torchport.compile" in sys.modules
assert settings() == before
"""
    python(program)


def test_entry_points_lead_to_what_they_name() -> None:
    program = """
from importlib.metadata import entry_points
import torch
assert "torchport" in torch._dynamo.list_backends(exclude_tags=())
for group, name in (("torch_dynamo_backends", "torchport"), ("torchport.backends", "cpu"), ("triton.backends", "cpu")):
    points = {p.value: p for p in entry_points(group=group) if p.name == name}
    assert len(points) == 1, (group, points)
    next(iter(points.values())).load()
"""
    done = processes.run(program)
    assert done.returncode == 0, done.stderr

"""A backend installed from another folder: found, used, and gone again, in processes that start afresh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parent.parent / "plugin_example"
PIP = [
    sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
]  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the example's chip is the C compiler: cc")

Run = Callable[..., str]

MODEL = """
import torch
from torchport.runtime import devices, events

torch.manual_seed(0)
model = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
exact = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True).double()
exact.load_state_dict(model.state_dict())
x = torch.randn(2, 8, 32)
options = {"target": "example", "fallback": "error"}
compiled = torch.compile(model, backend="torchport", options=options)


def step(model, x):
    loss = model(x).square().mean()
    loss.backward()
    return loss


def worst():
    found = [(p.grad.double() - q.grad).abs().max() / q.grad.abs().max().clamp_min(1e-3)
             for p, q in zip(model.parameters(), exact.parameters())]
    return float(max(found))


with events.capture() as found:
    loss = step(compiled, x)
assert abs(float(loss) - float(step(exact, x.double()))) < 1e-5 * float(loss)
assert worst() < 1e-4, worst()
assert any(isinstance(event, events.Kernel) for event in found)
assert devices.statistics("example").launches > 10
# parameters change in place: the device's copies of them must be replaced
for one, kind in ((model, compiled), (exact, exact)):
    with torch.no_grad():
        for parameter in one.parameters():
            parameter -= 0.1 * parameter.grad
    one.zero_grad()
loss = step(compiled, x)
assert abs(float(loss) - float(step(exact, x.double()))) < 1e-5 * float(loss)
assert worst() < 1e-4, worst()
print("launches", devices.statistics("example").launches)
"""

KERNELS = """
import torch, torchport, triton
import triton.language as tl


@triton.jit
def softmax(x, y, n, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + columns, columns < n, float("-inf"))
    value = tl.exp(value - tl.max(value, 0))
    tl.store(y + row * n + columns, value / tl.sum(value, 0), columns < n)


@triton.jit
def histogram(x, counts, total, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + offsets, offsets < n, 0)
    tl.atomic_add(counts + value, 1, offsets < n)
    tl.atomic_add(total, tl.sum(tl.where(offsets < n, value, 0).to(tl.int64), 0))


@triton.jit
def product(a, b, c, N: tl.constexpr):
    at = tl.arange(0, N)
    at = at[:, None] * N + at[None, :]
    tl.store(c + at, tl.dot(tl.load(a + at), tl.load(b + at)))


@triton.jit
def halves(x, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, (tl.sqrt(tl.load(x + at).to(tl.float32)) * 3).to(y.dtype.element_ty))


torch.manual_seed(0)
with torchport.use("example"):
    x = torch.randn(5, 50)
    y = torch.empty_like(x)
    softmax[(5,)](x, y, 50, BLOCK=64)
    exact = x.double().softmax(1)
    assert ((y - exact).abs() <= 1e-6 * exact + 1e-9).all()

    x = torch.randint(0, 7, (100,), dtype=torch.int32)
    counts, total = torch.zeros(7, dtype=torch.int32), torch.zeros(1, dtype=torch.int64)
    histogram[(4,)](x, counts, total, 100, BLOCK=32)
    assert counts.tolist() == torch.bincount(x, minlength=7).tolist() and int(total) == int(x.sum())

    a, b = torch.randn(16, 16), torch.randn(16, 16)
    c = torch.empty(16, 16)
    product[(1,)](a, b, c, N=16)
    bound = 17 * 2**-24 * (a.double().abs() @ b.double().abs())  # of a sum of 16 products in fp32
    assert ((c - a.double() @ b.double()).abs() <= bound).all()

    for dtype in (torch.float16, torch.bfloat16):
        x = torch.rand(32).to(dtype)
        y = torch.empty_like(x)
        halves[(1,)](x, y, BLOCK=32)
        assert torch.equal(y, (x.float().sqrt() * 3).to(dtype))
print("kernels right")
"""

DEVICE = """
import copy

import torch
import torchport

device = torchport.device("example")
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.GELU(), torch.nn.Linear(8, 4))
x = torch.randn(5, 16)
exact = copy.deepcopy(model).double()
exact(x.double()).square().mean().backward()


def check(call, model):
    model.zero_grad()
    call(x.to(device)).square().mean().backward()
    for mine, other in zip(model.parameters(), exact.parameters()):
        assert mine.grad.device == device
        torch.testing.assert_close(mine.grad.cpu().double(), other.grad, rtol=1e-4, atol=1e-6)


there = copy.deepcopy(model).to(device)
check(there, there)
check(torch.compile(there, backend="torchport", fullgraph=True), there)
torch.optim.AdamW(there.parameters()).step()
assert not torchport.fallbacks(), torchport.fallbacks()
print("device right")
"""


def environment(root: Path) -> Path:
    """The Python of a new virtual environment that has what this one has, and the example."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True, timeout=300)
    python = root / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    Path(own, "shared.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    shutil.copytree(EXAMPLE, root / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip(python, *PIP[3:], root / "source")
    shutil.rmtree(root / "source")
    return python


def pip(python: Path, *arguments: str | Path) -> None:
    """Run pip on another environment."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *arguments]
    subprocess.run(command, check=True, timeout=300)


def run_in(folder: Path, python: Path, *arguments: str | Path) -> str:
    """Run Python in a new process; what it prints."""
    result = subprocess.run(
        [python, *arguments], env={**os.environ, "TORCHPORT_COMPILE_AHEAD": "0"}, cwd=folder, capture_output=True,
        text=True, timeout=500, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("vendor"))


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    return partial(run_in, tmp_path, installed)


def test_at_most_150_lines() -> None:
    files = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml")]
    assert len(files) == 3
    assert sum(len(path.read_text().splitlines()) for path in files) <= 150


def test_found_and_gone(tmp_path: Path) -> None:
    python = environment(tmp_path)

    def targets() -> dict[str, dict[str, Any]]:
        rows = json.loads(run_in(tmp_path, python, "-m", "torchport.cli", "targets", "--json"))
        return {row["target"]: row for row in rows}

    rows = targets()
    assert rows["example"]["state"] == "ready"
    assert rows["example"]["package"] == "torchport-example 1.0"
    assert rows["example"]["capabilities"]["simd_width"] == 1
    assert rows["cpu"]["state"] == "ready"
    pip(python, "uninstall", "--quiet", "--yes", "torchport-example")
    rows = targets()
    assert "example" not in rows
    assert rows["cpu"]["state"] == "ready"


@pytest.mark.slow
def test_certified(run: Run, tmp_path: Path) -> None:
    """A few cases of each kind: the whole of level quick takes minutes."""
    cases = (
        "errors/*",
        "language/add/*",
        "language/dot/fp32/16x16x16/randn",
        "language/atomic_add/int32*",
        "models/mlp_forward/*",
    )
    only = [word for case in cases for word in ("--only", case)]
    file = tmp_path / "certificate.json"
    run("-m", "torchport.cli", "conformance", "--target", "example", "--jobs", "1", *only, "--output", file)
    certificate = json.loads(file.read_text())
    assert certificate["target"] == "example"
    areas = {name: area["grade"] for name, area in certificate["areas"].items()}
    for name in ("errors", "language", "models"):
        assert areas[name] in ("PASS", "PASS-with-stated-limits"), areas
    run("-m", "torchport.cli", "conformance", "--verify", file)


def test_a_model_and_its_training_step(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    assert "launches" in run(tmp_path / "model.py")


def test_kernels_in_triton(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(KERNELS)
    assert "kernels right" in run(tmp_path / "kernels.py")


@pytest.mark.slow
def test_its_chip_is_a_torch_device(run: Run, tmp_path: Path) -> None:
    (tmp_path / "device.py").write_text(DEVICE)
    assert "device right" in run(tmp_path / "device.py")

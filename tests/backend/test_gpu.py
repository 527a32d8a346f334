"""Targets of GPUs, where there is one: what Inductor gives, bit for bit, and artifacts loaded without compiling.

These skip where PyTorch sees no GPU. docs/offline.md says when they ran last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import torchport
from torchport.numerics.compare.diff import compare
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge
from torchport.offline import capture, compile_kernel, load, write
from torchport.plugin import Device, registry
from torchport.runtime import events

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]

Inputs = tuple[torch.Tensor, ...]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "pointwise": lambda x, y: torch.sigmoid(x * 3) + y.exp().tanh(),
    "softmax": lambda x, y: torch.softmax(x + y, -1),
    "layer norm": lambda x, y: torch.nn.functional.layer_norm(x, (x.shape[-1],)) * y,
    "sums": lambda x, y: ((x * y).sum(0), (x - y).amax(1)),
    "product": lambda x, y: torch.nn.functional.gelu(x @ y.t()),
    "transpose": lambda x, y: (x.t().contiguous() + 1, y.flip(0)),
}


@pytest.fixture
def gpu() -> Device:
    """The GPU that is here, whosever it is."""
    for name in registry().names:
        for device in registry().get(name).devices():
            if not device.missing and registry().get(name).driver(device.target).device == "cuda":
                return device
    pytest.fail("PyTorch sees a GPU, and no backend does")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_as_inductor(gpu: Device, name: str, dtype: torch.dtype) -> None:
    x, y = (torch.randn(96, 200, device="cuda", dtype=dtype) for _ in range(2))
    with events.capture() as happened:
        ours = torch.compile(FUNCTIONS[name], backend="torchport", options={"target": str(gpu.target)})(x, y)
    torch._dynamo.reset()
    theirs = torch.compile(FUNCTIONS[name], backend="inductor")(x, y)
    for mine, other in zip(*(r if isinstance(r, tuple) else (r,) for r in (ours, theirs)), strict=True):
        assert mine.device.type == "cuda" and torch.equal(mine, other)
    assert any(isinstance(event, events.Graph) and event.target == str(gpu.target) for event in happened)


def test_training_is_the_same_as_inductor(gpu: Device) -> None:
    gradients = []
    for backend, options in (("torchport", {"target": str(gpu.target)}), ("inductor", None)):
        torch.manual_seed(1)
        torch._dynamo.reset()
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.LayerNorm(64)).cuda()
        torch.compile(model, backend=backend, options=options)(
            torch.randn(32, 64, device="cuda")
        ).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for mine, other in zip(*gradients, strict=True):
        assert mine is not None and other is not None and torch.equal(mine, other)


def test_artifacts_run_without_being_compiled(gpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels captured on the CPU and built for the GPU, then loaded while Triton's compiler refuses to work."""
    found = capture(lambda x, y: (x + y).relu(), (torch.ones(48, 33), torch.ones(48, 33)))
    write(tmp_path, [compile_kernel(kernel, gpu.target) for kernel in found.kernels], {})

    def refuse(*args: Any, **keywords: Any) -> Any:
        raise AssertionError("something was compiled")

    monkeypatch.setattr("triton.compile", refuse)
    monkeypatch.setattr("triton.compiler.compiler.compile", refuse)
    (kernel,) = load(tmp_path, gpu.target).values()
    x, y = torch.randn(48, 33, device="cuda"), torch.randn(48, 33, device="cuda")
    out = torch.full((48, 33), torch.nan, device="cuda")
    kernel.launch(x, y, out, *kernel.artifact.sizes)
    assert torch.equal(out, (x + y).relu())


def test_another_chips_artifacts_are_refused(gpu: Device) -> None:
    from torchport.errors import TargetError

    others = [d.target for d in registry().get(gpu.target.backend).devices() if d.target != gpu.target]
    with pytest.raises(TargetError, match="is not the GPU that is here"):
        registry().get(gpu.target.backend).driver(others[0])


def test_a_model_is_recorded_and_compared_with_the_cpu(gpu: Device, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.GELU(), torch.nn.LayerNorm(48))
    x = torch.randn(32, 64)
    for target, device in ((str(gpu.target), "cuda"), ("cpu", "cpu")):
        torch._dynamo.reset()
        model.zero_grad()
        compiled = torch.compile(model.to(device), backend="torchport", options={"target": target})
        with torchport.record(tmp_path / device, level="full"):
            compiled(x.to(device)).square().sum().backward()
    run = Run.load(tmp_path / "cuda")
    assert (
        run.info["complete"] and not run.damaged and not run.info["notes"] and run.info["targets"] == [str(gpu.target)]
    )
    kernels = [launch for launch in run.launches if launch.kind == "kernel"]
    assert kernels and all(run.kernels[str(one.kernel)]["ttir"] and not one.flags for one in kernels)
    assert any("canary" in one.checks for one in kernels) and all("repeat" in one.checks for one in kernels)
    found = compare(run, Run.load(tmp_path / "cpu"), judge)
    assert found.rows and not found.unpaired and found.level not in ("SUSPECT", "FAIL"), found.roots

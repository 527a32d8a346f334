"""What a recording holds of models, and that recording changes neither their code nor what they compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import torchport
from torchport.numerics.run import Run

pytestmark = pytest.mark.usefixtures("no_fallback")


def model(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.softmax(F.layer_norm(torch.relu(F.linear(x, w, b)), (48,)), -1)


def test_a_compiled_function_is_recorded_and_read_back(tmp_path: Path) -> None:
    x, w, b = torch.randn(32, 64), torch.randn(48, 64), torch.randn(48)
    compiled = torch.compile(model, backend="torchport")
    expected = compiled(x, w, b)
    with torchport.record(tmp_path / "run", level="full"):
        result = compiled(x, w, b)
    assert torch.equal(result, expected)
    run = Run.load(tmp_path / "run")
    assert run.info["complete"] and not run.damaged
    (inputs,) = (launch for launch in run.launches if launch.kind == "input")
    (outputs,) = (launch for launch in run.launches if launch.kind == "output")
    kernels = [launch for launch in run.launches if launch.kind == "kernel"]
    assert {arg.node for arg in inputs.args} <= set(run.graphs[inputs.graph]["buffers"].values())
    stored = {arg.dtype: run.tensor(arg.before) for arg in inputs.args if arg.before is not None}
    assert stored
    (out,) = outputs.args
    assert out.after is not None and torch.equal(run.tensor(out.after).reshape(out.shape), result)
    assert kernels and all(arg.before for launch in kernels for arg in launch.args if arg.role != "scalar")
    assert all(launch.kernel in run.kernels and launch.nodes for launch in kernels)

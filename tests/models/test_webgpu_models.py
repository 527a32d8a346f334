"""The model zoo on target webgpu: forward, and training of two."""

from __future__ import annotations

import pytest
import torch
from accuracy import InFloat64, compare
from model_zoo import build, entries
from training import judge

from torchport.errors import TargetError
from torchport.plugin import backend_for
from torchport.target import Target


def missing() -> str:
    """Why webgpu does not run here; empty if it does."""
    try:
        backend_for(Target("webgpu")).driver(Target("webgpu"))
    except TargetError as error:
        return str(error)
    return ""


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.mark.parametrize("name", entries())
def test_inference(name: str) -> None:
    built = build(name, "small", torch.float32)
    wide = built.to(torch.float64)
    with torch.no_grad(), InFloat64():
        reference = wide.outputs(wide.module(**wide.inputs))
    with torch.no_grad():
        eager = built.outputs(built.module(**built.inputs))
        compiled = torch.compile(built.module, backend="torchport", options={"target": "webgpu"})
        found = built.outputs(compiled(**built.inputs))
    problems = compare(found, eager, reference)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", ["llama", "dlrm"])
def test_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHPORT_TARGET", "webgpu")
    built = build(name, "small", torch.float32, train=True)
    judge(f"training {name} on webgpu", built.to(torch.float32), built, built.to(torch.float64), "torchport")

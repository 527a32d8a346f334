"""Packages of models: what they return is what the model returns, at other sizes too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accuracy import InFloat64, compare
from model_zoo import build as zoo
from torch.torch_version import TorchVersion

from torchport.packages import build, load

SIZES = [(3, 19), (2, 8), (5, 41)]


def dynamic(inputs: dict[str, torch.Tensor]) -> Any:
    batch, sequence = torch.export.Dim("batch", min=2, max=8), torch.export.Dim("sequence", min=2, max=64)
    if TorchVersion(torch.__version__) < "2.13":  # whose export refuses a named size that it compares with its double
        sequence = torch.export.Dim.AUTO(min=2, max=64)
    return {name: {0: batch, 1: sequence} for name in inputs}


@pytest.mark.parametrize(
    "name, changes",
    [("llama", True), *(pytest.param(n, False, marks=pytest.mark.slow) for n in ("bert", "vit", "resnet"))],
)
def test_models(name: str, changes: bool, tmp_path: Path) -> None:
    built = zoo(name)
    module = built.module.eval()
    if changes:
        module.config.use_cache = False
    shapes = dynamic(built.inputs) if changes else None
    build(module, (), tmp_path / "it.tpz", kwargs=built.inputs, dynamic_shapes=shapes, targets=["cpu"])
    package, wide = load(tmp_path / "it.tpz"), built.to(torch.float64)
    problems = []
    for inputs in (built.inputs, *(built.resized(*size) for size in SIZES if changes)):
        doubles = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
        with torch.no_grad():
            with InFloat64():
                reference = built.outputs(wide.module(**doubles))
            eager, got = built.outputs(module(**inputs)), built.outputs(package(**inputs))
        problems += compare(got, eager, reference)
    assert not problems, "\n".join(problems)

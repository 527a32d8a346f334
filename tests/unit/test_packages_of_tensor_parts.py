"""Packages of models whose weights are tensors made of other tensors, as libraries for quantisation write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from torchport.packages import build, load


class Scaled(torch.Tensor):
    """Whole numbers [n, k] times scales [n, 1]."""

    @staticmethod
    def __new__(cls, whole: torch.Tensor, scale: torch.Tensor) -> Scaled:
        return torch.Tensor._make_wrapper_subclass(cls, whole.shape, dtype=scale.dtype)  # type: ignore[attr-defined]

    def __init__(self, whole: torch.Tensor, scale: torch.Tensor) -> None:
        self.whole, self.scale = whole, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["whole", "scale"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, torch.Tensor], rest: None, size: Any, stride: Any) -> Scaled:
        return Scaled(parts["whole"], parts["scale"])

    def wide(self) -> torch.Tensor:
        scale = self.scale.wide() if isinstance(self.scale, Scaled) else self.scale
        return self.whole.to(scale.dtype) * scale

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.linear:
            return F.linear(args[0], args[1].wide(), *args[2:])
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is torch.ops.aten.detach.default, function
        return Scaled(args[0].whole.detach(), args[0].scale.detach())


def scaled(n: int, k: int, twice: bool = False) -> torch.nn.Parameter:
    """Numbers of one byte; with ``twice`` their scales are such tensors, too."""
    scale = scaled(n, 1) if twice else torch.rand(n, 1)
    return torch.nn.Parameter(Scaled(torch.randint(-9, 9, (n, k), dtype=torch.int8), scale), requires_grad=False)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (torch.nn.Linear(8, 8) for _ in range(3))
        self.first.weight = self.third.weight = scaled(8, 8)
        self.second.weight = scaled(8, 8, twice=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.third(self.second(self.first(x).relu()).relu())
        return y


@torch.no_grad()
def test_a_model_of_such_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Model(), torch.randn(3, 8)
    before = [(name, id(one)) for name, one in model.named_parameters(remove_duplicate=False)]
    build(model, (x,), tmp_path / "model.tpz", targets=["cpu"])
    assert [(name, id(one)) for name, one in model.named_parameters(remove_duplicate=False)] == before
    package = load(tmp_path / "model.tpz")
    torch.testing.assert_close(package(x), model(x))
    weights = {name: tensor.dtype for name, tensor in package.weights.items()}
    assert weights == {
        "first.bias": torch.float32, "second.bias": torch.float32, "third.bias": torch.float32,
        "first.weight.whole": torch.int8, "first.weight.scale": torch.float32,  # third.weight is the same
        "second.weight.whole": torch.int8, "second.weight.scale.whole": torch.int8,
        "second.weight.scale.scale": torch.float32,
    }  # fmt: skip


@torch.no_grad()
def test_a_model_that_cannot_be_exported_keeps_its_weights(tmp_path: Path) -> None:
    model = Model()
    before = [(name, id(one)) for name, one in model.named_parameters(remove_duplicate=False)]
    with pytest.raises(RuntimeError, match="reduction dim"):
        build(model, (torch.randn(3, 7),), tmp_path / "model.tpz", targets=["cpu"])
    assert [(name, id(one)) for name, one in model.named_parameters(remove_duplicate=False)] == before

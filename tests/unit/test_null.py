"""The null backend: everything but kernels runs."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

import torchport
from torchport.errors import TargetError
from torchport.plugin import Backend, registry
from torchport.runtime import events
from torchport.target import Target

NULL = Target("null")


@triton.jit
def double(x, y, n, scale, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    tl.store(y + offsets, tl.load(x + offsets, mask) * scale, mask)


def test_it_is_a_backend_that_says_what_it_does_not_do() -> None:
    backend = registry().get("null")
    assert isinstance(backend, Backend)
    (device,) = backend.devices()
    assert "outputs are not computed" in device.description
    with pytest.raises(TargetError, match="null:1 is not known"):
        backend.capabilities(Target("null", ("1",)))


@pytest.mark.filterwarnings("ignore:target null runs no kernels")
def test_a_model_trains_without_kernels() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16))
    compiled = torch.compile(model, backend="torchport", options={"target": "null", "fallback": "error"})
    with events.capture() as found:
        out = compiled(torch.randn(4, 8))
        out.sum().backward()
    assert out.shape == (4, 16)
    assert model[0].weight.grad is not None
    assert any(isinstance(event, events.Kernel) for event in found)
    assert not any(isinstance(event, events.Fallback) for event in found)


@pytest.mark.filterwarnings("ignore:target null runs no kernels")
def test_a_launch_checks_its_arguments_and_writes_nothing() -> None:
    x, y = torch.ones(10), torch.zeros(10)
    with torchport.use("null"):
        double[(1,)](x, y, 10, 2.0, BLOCK=16)
    assert y.count_nonzero() == 0
    launcher, function = registry().get("null").driver(NULL).load(_binary(), ["*fp32", "*fp32", "i32", "fp32"])
    launch = launcher.bind(1, 1, 1, function)
    launch(x, y, 10, 2.0)
    with pytest.raises(TypeError, match="takes 4 arguments, not 3"):
        launch(x, y, 10)
    with pytest.raises(TypeError, match=r"argument 2: 1\.5 is not of its type"):
        launch(x, y, 1.5, 2.0)
    with pytest.raises(TypeError, match="argument 0: 'x' is not of its type"):
        launch("x", y, 1, 2.0)


def test_the_first_kernel_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = registry().get("null").driver(NULL)
    monkeypatch.setattr(driver, "_warned", False)
    with pytest.warns(UserWarning, match="outputs are not computed"):
        driver.load(_binary(), [])


def _binary() -> torchport.plugin.Binary:
    return torchport.plugin.Binary(b"", "c", "kernel")

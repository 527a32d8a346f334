"""What users do around a model on the torch device: moving it, loading data, scaling losses, differentiating twice."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchport
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")


@pytest.fixture
def device() -> torch.device:
    """The first device."""
    return torchport.device(0)


class Tied(nn.Module):
    """One weight for words and their logits."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.logits = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.logits.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of the next words."""
        return self.logits(self.words(ids))


def test_tied_weights_stay_tied_and_optimizers_keep_them(device: torch.device) -> None:
    model = Tied()
    there, ids = copy.deepcopy(model), torch.randint(0, 11, (2, 5))
    steps = [torch.optim.SGD(each.parameters(), lr=0.01) for each in (model, there)]  # made before the move
    there.to(device)
    assert there.logits.weight is there.words.weight and there.words.weight.device == device
    for each, step, where in ((model, steps[0], ids), (there, steps[1], ids.to(device))):
        for _ in range(2):
            step.zero_grad()
            each(where).square().mean().backward()
            step.step()
    torch.testing.assert_close(there.words.weight.detach().cpu(), model.words.weight.detach())
    there.cpu()
    assert there.logits.weight is there.words.weight and there.words.weight.grad is not None


@pytest.mark.parametrize("workers", [0, 1])
def test_pinned_batches_reach_the_device(device: torch.device, workers: int) -> None:
    data = TensorDataset(torch.arange(12.0).reshape(6, 2), torch.arange(6))
    batches = list(DataLoader(data, batch_size=4, pin_memory=True, num_workers=workers))
    assert torch.cat([x.to(device, non_blocking=True).cpu() for x, _ in batches]).equal(data.tensors[0])
    assert not batches[0][0].is_pinned()


def test_a_generator_that_is_given_is_used(device: torch.device) -> None:
    mine, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    assert torch.rand(9, device=device, generator=mine).cpu().equal(torch.rand(9, generator=other))
    assert torch.randn(9, device=device, generator=mine).cpu().equal(torch.randn(9, generator=other))
    chance = torch.full((9,), 0.5)
    drawn = torch.bernoulli(chance.to(device), generator=mine).cpu()
    assert drawn.equal(torch.bernoulli(chance, generator=other))


def test_inductors_own_backend_is_refused(device: torch.device) -> None:
    x = torch.ones(4, 4, device=device)
    for function in (lambda x: x.sin(), lambda x: x.sum(-1)):
        with pytest.raises(Exception, match=r'use torch.compile.*backend="torchport"'):
            torch.compile(function, backend="inductor")(x)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 8))


def test_scaled_losses_and_clipped_gradients(device: torch.device) -> None:
    model, x = small(), torch.randn(6, 16)
    there, norms = copy.deepcopy(model).to(device), []
    for each, inputs in ((model, x), (there, x.to(device))):
        scaler = torch.amp.GradScaler(inputs.device.type)
        step = torch.optim.SGD(each.parameters(), lr=0.1)
        scaler.scale(each(inputs).square().sum()).backward()
        scaler.unscale_(step)
        norms.append(nn.utils.clip_grad_norm_(each.parameters(), 1.0).cpu())
        scaler.step(step)
        scaler.update()
    torch.testing.assert_close(norms[1], norms[0])
    for mine, other in zip(model.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(other.detach().cpu(), mine.detach(), rtol=1e-4, atol=1e-5)


def test_a_loss_that_overflows_takes_no_step(device: torch.device) -> None:
    layer = nn.Linear(2, 2).to(device)
    before, scaler = layer.weight.detach().cpu().clone(), torch.amp.GradScaler("torchport")
    step = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler.scale(layer(torch.full((1, 2), float("inf"), device=device)).sum()).backward()
    scaler.step(step)
    scaler.update()
    assert layer.weight.detach().cpu().equal(before) and scaler.get_scale() == 32768.0


@pytest.mark.parametrize(
    ("name", "options"),
    [("AdamW", {}), ("Adam", {"amsgrad": True}), ("SGD", {"momentum": 0.9, "nesterov": True})],
    ids=["AdamW", "Adam", "SGD"],
)
def test_fused_optimizers_take_the_hosts_steps(device: torch.device, name: str, options: dict[str, Any]) -> None:
    model, x = small(), torch.randn(6, 16)
    there = copy.deepcopy(model).to(device)
    for each, inputs, fused in ((model, x, False), (there, x.to(device), True)):
        step = getattr(torch.optim, name)(each.parameters(), lr=0.05, weight_decay=0.01, fused=fused, **options)
        for _ in range(3):
            step.zero_grad()
            each(inputs).square().mean().backward()
            step.step()
    for mine, other in zip(model.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(other.detach().cpu(), mine.detach(), rtol=1e-4, atol=1e-5)


def test_functions_of_functions(device: torch.device) -> None:
    from torch.func import grad, hessian, jvp, vmap

    x = torch.randn(5)

    def function(x: torch.Tensor) -> torch.Tensor:
        return (x.sin() * x).sum()

    rows = torch.randn(3, 5)
    transforms: tuple[Any, ...] = (
        grad(function), hessian(function), lambda x: jvp(function, (x,), (x,))[1],
        lambda x: vmap(grad(function))(x.expand(3, 5) * rows.to(x.device)),
    )  # fmt: skip
    for transform in transforms:
        torch.testing.assert_close(transform(x.to(device)).cpu(), transform(x))


def test_gradients_of_gradients(device: torch.device) -> None:
    found = []
    for where in (torch.device("cpu"), device):
        x = torch.linspace(-2, 2, 7).to(where).requires_grad_()
        (first,) = torch.autograd.grad((x.tanh() * x.exp()).sum(), x, create_graph=True)
        first.square().sum().backward()
        assert x.grad is not None
        found.append(x.grad.cpu())
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(
    ("norm_first", "mask"),
    [
        (False, "padding"),
        (True, "causal"),
        pytest.param(False, "none", marks=pytest.mark.slow),
        pytest.param(False, "causal", marks=pytest.mark.slow),
        pytest.param(True, "padding", marks=pytest.mark.slow),
    ],
)
def test_layers_of_transformers_that_torch_calls_as_one_operator(
    device: torch.device, norm_first: bool, mask: str
) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=norm_first, activation="gelu").eval()
    attention = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    x = torch.randn(2, 7, 16)
    padding = torch.tensor([[False] * 7, [False] * 5 + [True] * 2]) if mask == "padding" else None
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1) if mask == "causal" else None

    def results(where: torch.device) -> list[torch.Tensor]:
        one, other = copy.deepcopy(layer).to(where), copy.deepcopy(attention).to(where)
        pad = padding.to(where) if padding is not None else None
        after = causal.to(where) if causal is not None else None
        y = x.to(where)
        encoded = one(y, src_mask=after, src_key_padding_mask=pad)
        return [encoded, *other(y, y, y, key_padding_mask=pad, attn_mask=after)]

    torchport.fallbacks(reset=True)
    with torch.no_grad():
        for mine, theirs in zip(results(device), results(torch.device("cpu")), strict=True):
            torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-5, atol=1e-6)
    assert not torchport.fallbacks()


def test_checkpoints_of_torch_distributed(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as checkpoint

    device, x = torchport.device(0), torch.arange(6.0)
    checkpoint.save({"there": x.to(device), "here": x + 1}, checkpoint_id=str(tmp_path), no_dist=True)
    state = {"there": torch.zeros(6, device=device), "here": torch.zeros(6)}
    checkpoint.load(state, checkpoint_id=str(tmp_path), no_dist=True)
    assert state["there"].cpu().equal(x) and state["here"].equal(x + 1)
    mine = torch.torchport.current_stream()
    mine.wait_stream(torch.torchport.current_stream(device))
    assert mine == torch.torchport.current_stream(device) and mine.query()


def test_to_the_host_without_blocking() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    there = x.to(torchport.device(0), non_blocking=True)
    for y in (there.to("cpu", non_blocking=True), there.t().to("cpu", torch.float64, non_blocking=True).t().float()):
        assert y.equal(x) and y.device.type == "cpu"
    back = there.requires_grad_().to("cpu", non_blocking=True)
    back.sum().backward()
    assert there.grad is not None and there.grad.device == there.device and there.grad.cpu().equal(torch.ones(2, 3))

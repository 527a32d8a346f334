"""Training steps whose graphs use the memory of large results again (torchport/program/kept.py)."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from torchport.program.kept import Pool


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(256, 320), torch.nn.GELU(), torch.nn.LayerNorm(320), torch.nn.Linear(320, 256)]
    return torch.nn.Sequential(*layers)


def pools() -> list[Pool]:
    """Those that keep something."""
    gc.collect()
    return [one for one in gc.get_objects() if type(one) is Pool and one.kept]


def compiled(module: torch.nn.Module, **options: Any) -> Any:
    return torch.compile(module, backend="torchport", dynamic=False, options=options or None)


def gradients(module: torch.nn.Module, call: Any, x: torch.Tensor) -> list[torch.Tensor]:
    call(x).square().mean().backward()
    found = [parameter.grad for parameter in module.parameters()]
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


def test_gradients_are_eagers_and_stay_where_somebody_keeps_them() -> None:
    mine = model()
    reference = copy.deepcopy(mine)
    call, others = compiled(mine), len(pools())
    kept = []
    addresses = []
    for step in range(5):
        x = torch.randn(320, 256)
        mine.zero_grad()
        reference.zero_grad()
        found, expected = gradients(mine, call, x), gradients(reference, reference, x)
        torch.testing.assert_close(found, expected)
        addresses.append({one.data_ptr() for one in found if one.numel() > 1 << 16})
        if step < 2:
            kept.append((found, [one.clone() for one in found]))
        del found
    for found, values in kept:
        torch.testing.assert_close(found, values, rtol=0, atol=0)
    assert not addresses[0] & addresses[1] | addresses[1] & addresses[2]
    assert addresses[3] == addresses[4]
    assert len(pools()) == others + 2  # of the forward and of the backward graph


def test_gradients_are_added_up() -> None:
    mine = model()
    reference = copy.deepcopy(mine)
    call = compiled(mine)
    for _ in range(2):
        mine.zero_grad(set_to_none=False)
        reference.zero_grad(set_to_none=False)
        for _ in range(3):
            x = torch.randn(320, 256)
            found, expected = gradients(mine, call, x), gradients(reference, reference, x)
        torch.testing.assert_close(found, expected)


def test_several_forward_calls_before_the_backward_ones() -> None:
    mine = model()
    reference = copy.deepcopy(mine)
    call = compiled(mine)
    inputs = [torch.randn(320, 256) for _ in range(3)]
    for _ in range(3):
        for module, function in ((mine, call), (reference, reference)):
            module.zero_grad()
            losses = [function(x).square().mean() for x in inputs]
            for loss in reversed(losses):
                loss.backward()
        found = [(a.grad, b.grad) for a, b in zip(mine.parameters(), reference.parameters(), strict=True)]
        for one, expected in found:
            torch.testing.assert_close(one, expected)


def test_memory_goes_with_the_compiled_model_and_comes_with_the_next() -> None:
    before = len(pools())
    for _ in range(2):  # the second time Inductor has the code's modules already
        mine = model()
        call = compiled(mine)
        for _ in range(2):
            mine.zero_grad()
            gradients(mine, call, torch.randn(320, 256))
        assert len(pools()) == before + 2
        del call, mine
        torch._dynamo.reset()
        assert len(pools()) == before


def test_without_tapes_nothing_is_kept() -> None:
    before = len(pools())
    mine = model()
    gradients(mine, compiled(mine, tape="off"), torch.randn(320, 256))
    assert len(pools()) == before

"""PyTorch's database of operators in eager mode on the torch device, against the CPU."""

from __future__ import annotations

import pytest
from operator_sweep import GRADIENT, REFUSALS, cases, device_problems, operators

import torchport
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")

SAMPLE = """
    add mul true_divide exp sum var softmax cat index_select gather masked_fill cumsum nn.functional.pad.constant
""".split()
"""What every run of the tests tries in float32; the other operators and types are in the slow tests."""
RANDOM = frozenset(
    """
    bernoulli cauchy exponential geometric log_normal multinomial normal normal.in_place normal.number_mean rand_like
    randint randint_like randn randn_like uniform nn.functional.alpha_dropout nn.functional.dropout
    nn.functional.dropout2d nn.functional.dropout3d nn.functional.feature_alpha_dropout.with_train
    nn.functional.rrelu svd_lowrank pca_lowrank nn.functional.fractional_max_pool2d
    nn.functional.fractional_max_pool3d
    """.split()
)
"""Operators that draw numbers: the device's are others than the CPU's."""
SHARDS = 32


@pytest.mark.parametrize("name", SAMPLE)
def test_operator_on_the_device(name: str) -> None:
    torchport.fallbacks(reset=True)
    op = operators()[name]
    tried = {kind: calls for kind, calls in cases(op, 1).items() if kind in ("float32", GRADIENT)}
    assert tried
    assert not device_problems(op, tried, torchport.device(0))
    assert not torchport.fallbacks()


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_all_operators_on_the_device(shard: int, record_property: pytest.RecordProperty) -> None:
    """Two samples in float32 and their gradients."""
    torchport.fallbacks(reset=True)
    differing: dict[str, list[str]] = {}
    for name in list(operators())[shard::SHARDS]:
        if name in RANDOM:
            continue
        op = operators()[name]
        tried = {kind: calls for kind, calls in cases(op, 2).items() if kind in ("float32", GRADIENT)}
        try:
            if found := device_problems(op, tried, torchport.device(0)):
                differing[name] = found
        except REFUSALS as error:
            differing[name] = [f"{type(error).__name__}: {str(error)[:200]}"]
    record_property("fallbacks", torchport.fallbacks())
    assert not differing

"""PyTorch's database of operators: results and gradients by dtype, against float64 or, without one, against eager."""

from __future__ import annotations

import pytest
from operator_sweep import cases, fails, operators, problems

from torchport.runtime import events

SAMPLE = """
    add div.floor_rounding remainder exp erf clamp where bitwise_xor sum prod std_mean count_nonzero cumsum
    softmax nn.functional.layer_norm nn.functional.gelu addmm bmm nn.functional.conv1d
    cat index_select gather scatter_add masked_fill sort topk flip nn.functional.pad.constant nn.functional.embedding
    diff nn.functional.cross_entropy
""".split()
"""What every run of the tests tries, one or two of each family, one sample of each dtype; all are in the slow tests."""
SHARDS = 32
_MODE = "aten is wrong while a dispatch mode is active, as in the first call"
KNOWN: dict[tuple[str, str], str] = {
    ("linalg.pinv", "complex64"): _MODE,
    ("linalg.pinv.singular", "complex64"): _MODE,
    ("pinverse", "complex64"): _MODE,
}
"""Operator and dtype -> why its results differ. One that no longer does is to be taken out: the tests say so."""


@pytest.mark.parametrize("name", SAMPLE)
def test_operator(name: str, compile_backend: str) -> None:
    assert not [dtype for operator, dtype in KNOWN if operator == name], "the sample has no known failures"
    op = operators()[name]
    tried = cases(op, 1)
    assert tried
    assert not problems(op, tried, compile_backend)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_all_operators(shard: int, compile_backend: str, record_property: pytest.RecordProperty) -> None:
    """Three samples of each dtype; the table of known failures is exact."""
    wrong: dict[str, list[str]] = {}
    passing = []
    with events.capture() as found:
        for name in list(operators())[shard::SHARDS]:
            op = operators()[name]
            tried = cases(op, 3)
            known = [kind for kind in tried if (name, kind) in KNOWN]
            passing += [(name, kind) for kind in known if not fails(op, kind, tried[kind], compile_backend)]
            rest = {kind: calls for kind, calls in tried.items() if kind not in known}
            if rest and (differing := problems(op, rest, compile_backend)):
                wrong[name] = differing
    record_property("fallbacks", sum(isinstance(event, events.Fallback) for event in found))
    assert not wrong
    assert not passing, "these are right now: take them out of KNOWN"

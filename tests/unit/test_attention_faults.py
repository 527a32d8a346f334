"""Faults of attention: the reference they change, each by its own results, and results that none explains."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from torchport.numerics.graphs.special import Refused
from torchport.numerics.verdicts.attention.asked import Asked, checked
from torchport.numerics.verdicts.attention.faults import FAULTS
from torchport.numerics.verdicts.attention.naming import ROUNDING, UNKNOWN, Named, named
from torchport.numerics.verdicts.attention.reference import Attention, Far
from torchport.ops.attention.reference import reference, samples
from torchport.ops.registry import Sample

ROWS, KEYS, SIZE = 20, 37, 8


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products of small matrices wait for threads longer than they take."""
    torch.set_num_threads(1)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).double()


def attention(heads: int = 4, owners: int = 2, **fields: Any) -> Attention:
    """As a kernel reads it: numbers of float32."""
    tensors = draw(heads, ROWS, SIZE), draw(owners, KEYS, SIZE, seed=1), draw(owners, KEYS, SIZE, seed=2)
    return Attention(*tensors, SIZE**-0.5, **({"shift": KEYS - ROWS} | fields))


def backward(one: Attention) -> Attention:
    """The backward pass of an attention."""
    found, grad = one.results(), draw(one.heads, ROWS, SIZE, seed=3)
    deltas = (grad * found["out"].transpose(0, 1)).sum(-1)
    return replace(one, grad=grad, sums=found["sums"].T, deltas=deltas, factors=(one.scale, one.scale))


def asked(*sequences: Attention) -> Asked:
    names = [name for name in sequences[0].results() if name != "grad_bias"]
    return Asked(sequences, {name: name for name in names})


def written(one: Asked, change: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The results with a fault, rounded; the logarithms of sums are float32."""
    values = replace(one, sequences=tuple(change(each) for each in one.sequences)).values()
    return {name: value.to(torch.float32 if name == "sums" else dtype) for name, value in values.items()}


def explained(one: Asked, got: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> Named:
    return named(one, got, dict.fromkeys(got, torch.finfo(dtype).eps))


@pytest.mark.parametrize("sample", list(samples(torch.float64)), ids=lambda sample: sample.about)
def test_the_reference_is_that_of_the_operator_and_its_gradients(sample: Sample) -> None:
    query, key, value = (one.clone().requires_grad_() for one in sample.args[:3])
    bias, sinks, slopes = sample.args[3:6]
    scale, cap, left, right, top_left, _ = sample.args[11:]
    out, sums = reference(query, key, value, *sample.args[3:])
    grad = torch.randn_like(out)
    grads = torch.autograd.grad(out, (query, key, value), grad)
    for place in range(len(query)):
        shape = query.shape[1], query.shape[2], key.shape[2]
        one = Attention(
            *(each[place].detach() for each in (query, key, value)), scale, 0 if top_left else shape[2] - shape[1],
            left if left >= 0 else None, right if right >= 0 else None, cap,
            bias=None if bias is None else bias[place % len(bias)].expand(shape), slopes=slopes, sinks=sinks,
        )  # fmt: skip
        found = one.results()
        torch.testing.assert_close(found["out"], out[place].transpose(0, 1))
        torch.testing.assert_close(found["sums"], sums[place].T)
        deltas = (grad * out)[place].sum(-1).detach()
        one = replace(one, grad=grad[place], sums=sums[place].detach(), deltas=deltas, factors=(scale, scale))
        found = one.results()
        for name, wanted in zip(("grad_query", "grad_key", "grad_value"), grads, strict=True):
            torch.testing.assert_close(found[name], wanted[place].transpose(0, 1))


def far(**fields: Any) -> Attention:
    tensors = draw(4, ROWS, SIZE, seed=4), draw(2, KEYS, SIZE, seed=5)
    return attention(far=Far(*tensors, 9), right=0, **fields)


def kept() -> torch.Tensor:
    return torch.where(draw(4, ROWS, KEYS, seed=6) > -1, 1 / 0.8, 0.0).double()


def mask() -> torch.Tensor:
    """Of booleans; some rows see nothing."""
    seen = draw(4, ROWS, KEYS, seed=7) > 0
    seen[:, ::7] = False
    return seen


CASES = {
    "causal": attention(right=0),
    "window, soft cap, sinks, slopes": attention(
        left=12, right=0, cap=2.0, sinks=draw(4), slopes=torch.tensor([0.01, 0.1, 0.2, 0.3]).double()
    ),
    "bias, dropout": attention(bias=draw(4, ROWS, KEYS), kept=kept()),
    "mask": attention(bias=mask()),
    "piecewise": far(),
    "other scale": replace(attention(), scale=0.3),
    "chunks": replace(attention(right=0, slopes=draw(4).abs()), chunk=16, chunks=3),
}
BACKWARD = {name: backward(one) for name, one in CASES.items() if name != "chunks"}
ALL = {**CASES, **{f"{name}, backward": one for name, one in BACKWARD.items()}}


def faults(one: Attention) -> list[tuple[str, str, Any]]:
    """The faults that an attention may have, with the first way in which each shows."""
    found = []
    for fault in FAULTS:
        for says, change in fault.tries(one, one.results()):
            found.append((fault.name, says, change))
            break
    return found


FAST = ("window, soft cap, sinks, slopes, backward", "mask", "piecewise, backward")


@pytest.mark.parametrize("case", [pytest.param(one, marks=() if one in FAST else pytest.mark.slow) for one in ALL])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_each_fault_is_named_by_its_own_results(case: str, dtype: torch.dtype) -> None:
    one = asked(ALL[case])
    right = written(one, lambda each: each, torch.float64)
    names = []
    for name, says, change in faults(ALL[case]):
        got = written(one, change, dtype)
        if any(not torch.allclose(got[each].double(), right[each].double(), 0.02, 0.02) for each in right):  # it shows
            found = explained(one, got, dtype)
            assert found.name is not None and name in found.name.split(" or "), (name, says, found)
            assert found.share > 0.98
            names.append(name)
    assert "scale missing" in names and len(names) > 5


def test_all_faults_show_in_one_of_the_cases() -> None:
    shown = {name for one in ALL.values() for name, _, _ in faults(one)}
    solved = {"scale", "scale of gradients", "scale of the gradient of query", "scale of the gradient of key"}
    assert shown | solved == {fault.name for fault in FAULTS}


@pytest.mark.parametrize("case", ["causal", "causal, backward"])
def test_a_scale_is_solved_for(case: str) -> None:
    one = asked(ALL[case])
    found = explained(one, written(one, lambda each: replace(each, scale=each.scale * 1.37), torch.float32))
    assert found.name == "scale"
    assert f"by {SIZE**-0.5 * 1.37:.4g} in place of 1/sqrt(d) = {SIZE**-0.5:.6g}" in found.says


def test_factors_of_gradients_are_told_apart() -> None:
    one = asked(ALL["causal, backward"])
    for factors, name, says in (
        ((1.0, SIZE**-0.5), "scale of the gradient of query", "query is not scaled"),
        ((SIZE**-0.5, SIZE**-1), "scale of the gradient of key", "key is scaled twice"),
        ((0.3 * SIZE**-0.5,) * 2, "scale of gradients", "query is 0.3 times what it should be and the gradient of key"),
    ):
        found = explained(
            one, written(one, lambda each, factors=factors: replace(each, factors=factors), torch.float32)
        )
        assert (found.name, says in found.says) == (name, True)


def test_the_size_of_blocks_is_found() -> None:
    one = asked(attention())
    found = explained(one, written(one, lambda each: replace(each, stale=(16, False, True)), torch.float32))
    assert found.says == "rescale: results of earlier blocks of 16 keys are not rescaled when the maximum grows"


def test_a_fault_in_sequences_of_several_lengths() -> None:
    short = replace(attention(), key=draw(2, 13, SIZE), value=draw(2, 13, SIZE, seed=1), shift=13 - ROWS, right=0)
    one = asked(short, attention(right=0))
    assert [len(part["out"]) for part in one.split(one.values())] == [ROWS, ROWS]
    found = explained(one, written(one, lambda each: replace(each, right=1), torch.float32))
    assert found.name == "causal mask too wide"


def test_what_no_fault_explains_has_no_name() -> None:
    one = asked(attention(right=0))
    right = written(one, lambda each: each, torch.float32)
    damaged = right["out"].clone()
    damaged[3, 1, 5] += 1
    assert explained(one, {**right, "out": damaged}) == Named(None, UNKNOWN)
    turned = {name: value.flip(1) for name, value in right.items()}
    assert explained(one, turned) == Named(None, UNKNOWN)
    noise = {name: value + 0.1 * draw(*value.shape, seed=9).float() for name, value in right.items()}
    assert explained(one, noise) == Named(None, UNKNOWN)
    # a fault and damage that it does not explain
    wrong = written(one, lambda each: replace(each, scale=1.0), torch.float32)
    wrong["out"][0] = math.nan
    assert explained(one, wrong) == Named(None, UNKNOWN)
    rounded = {name: value * (1 + 2e-7) for name, value in right.items()}
    assert explained(one, rounded) == Named(None, ROUNDING)


def test_rows_that_see_nothing() -> None:
    one = asked(ALL["mask"])
    right = written(one, lambda each: each, torch.float32)
    assert bool((right["out"][::7] == 0).all()) and bool(torch.isneginf(right["sums"][::7]).all())
    found = explained(one, written(one, lambda each: replace(each, hidden=math.nan), torch.float32))
    assert found.name == "rows that see nothing" and "NaN" in found.says
    found = explained(one, written(one, lambda each: replace(each, hidden=-1e9), torch.float32))
    assert found.name == "rows that see nothing" and "-1e+09" in found.says


@pytest.mark.parametrize("rows, keys", [(0, 5), (1, 1), (5, 0), (1, 77)])
def test_short_lengths(rows: int, keys: int) -> None:
    tensors = draw(4, rows, SIZE), draw(2, keys, SIZE), draw(2, keys, SIZE, seed=1)
    one = asked(checked(Asked((Attention(*tensors, SIZE**-0.5, keys - rows, right=0),), {})).sequences[0])
    got = written(one, lambda each: each, torch.float32)
    assert got["out"].shape == (rows, 4, SIZE)
    assert explained(one, got).name is None
    if keys > 1:
        found = explained(one, written(one, lambda each: replace(each, scale=1.0), torch.float32))
        assert found.name == ("scale missing" if rows else None)


def test_tensors_that_do_not_fit_together_are_refused() -> None:
    right = attention()
    for fields in (
        {"key": draw(2, KEYS, SIZE + 1)}, {"key": draw(3, KEYS, SIZE), "value": draw(3, KEYS, SIZE)},
        {"value": draw(2, KEYS + 1, SIZE)}, {"sinks": draw(3)}, {"query": right.query * math.inf},
        {"grad": draw(4, ROWS, SIZE + 1)}, {"sums": draw(4, ROWS + 1)},
    ):  # fmt: skip
        with pytest.raises(Refused):
            checked(Asked((replace(right, **fields),), {}))

"""What a caller of the attention operators gets wrong is named, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torchport.ops


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": torch.zeros(1, 2, 5, 8)}, "the same last size"),
        ({"key": torch.zeros(1, 3, 5, 16), "value": torch.zeros(1, 3, 5, 16)}, "2 heads cannot share 3"),
        ({"value": torch.zeros(1, 2, 4, 16)}, "must have the same sizes"),
        ({"query": torch.zeros(2, 5, 16)}, r"must be \[batch, heads, length, size\]"),
        ({"query": torch.zeros(1, 2, 5, 16).double()}, "must have one dtype"),
        ({"bias": torch.zeros(3, 5)}, "does not broadcast"),
        ({"bias": torch.zeros(5, 5, dtype=torch.int32)}, "must be bool, float32"),
        ({"sinks": torch.zeros(3)}, r"it must be \[2\], one a head"),
        ({"alibi_slopes": torch.zeros(3)}, "alibi_slopes has shape"),
        ({"dropout_p": 1.0}, "at least 0 and less than 1"),
        ({"softcap": -1.0}, "a positive number"),
        ({"alibi_slopes": torch.zeros(2).double()}, "alibi_slopes is torch.float64"),
        ({"query": torch.zeros(1, 0, 5, 16)}, "0 heads cannot share 2"),
        ({"window": (-2, 0)}, "its bounds are -1"),
        ({"window": 3}, r"it must be \(left, right\)"),
        ({"window": (3.5, 0)}, r"it must be \(left, right\)"),
        ({"cu_seqlens_q": torch.tensor([0, 5])}, "go together"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    names = {name: torch.zeros(1, 2, 5, 16) for name in ("query", "key", "value")} | changes
    with pytest.raises(ValueError, match=message):
        torchport.ops.flash_attention(**names)


@pytest.mark.parametrize("edges", [[0, 5, 4, 9], [0]])
def test_sequences_that_do_not_fit_are_named(edges: list[int]) -> None:
    q = torch.zeros(9, 2, 16)
    starts = torch.tensor(edges)
    with pytest.raises(ValueError, match="must ascend from 0 to 9"):
        torchport.ops.flash_attention(q, q, q, cu_seqlens_q=starts, cu_seqlens_k=starts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": torch.ones(1)}, r"scale is a tensor of shape \(1,\); it must be a number .*item"),
        ({"scale": "0.5"}, "scale is '0.5'; it must be a number"),
        ({"scale": float("nan")}, "scale is nan; it must be a finite number"),
        ({"softcap": None}, "softcap is None; it must be a number"),
        ({"dropout_p": torch.tensor(0.5)}, "dropout_p is a tensor"),
        (
            {"dropout_p": 0.5, "seed": torch.tensor([1, 2])},
            r"seed is int64 \(2,\); it must be an int, or",
        ),
        ({"dropout_p": 0.5, "seed": torch.tensor([1.0])}, "seed is float32"),
        ({"dropout_p": 0.5, "seed": 1.5}, "seed is 1.5; it must be an integer"),
        ({"dropout_p": 0.5, "seed": 1 << 63}, "it must fit into 64 bits"),
        ({"causal": torch.ones(5, 5)}, r"causal is a tensor of shape \(5, 5\); it must be True or False"),
        ({"query": [0.0]}, r"query is \[0.0\]; it must be a tensor"),
        ({"bias": 0.0}, "bias is 0.0; it must be a tensor or None"),
        ({"sinks": torch.zeros(2).long()}, "sinks is torch.int64"),
    ],
)
def test_arguments_of_another_kind_are_named(changes: dict[str, Any], message: str) -> None:
    names = {name: torch.zeros(1, 2, 5, 16) for name in ("query", "key", "value")} | changes
    with pytest.raises((TypeError, ValueError), match=f"flash_attention: .*{message}"):
        torchport.ops.flash_attention(**names)


def test_packed_lengths_must_be_integers() -> None:
    q, starts = torch.zeros(9, 2, 16), torch.tensor([0, 9])
    with pytest.raises(TypeError, match="max_seqlen_q is a tensor of shape"):
        torchport.ops.flash_attention(q, q, q, cu_seqlens_q=starts, cu_seqlens_k=starts, max_seqlen_q=torch.tensor(9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dist_threshold": 2.5}, "dist_threshold is 2.5; it must be an integer"),
        ({"dist_threshold": torch.tensor(2)}, "dist_threshold is a tensor"),
        ({"causal": None}, "causal is None; it must be True or False"),
        ({"scale": torch.ones(1)}, "scale is a tensor"),
        ({"k2": None}, "k2 is None; it must be a tensor"),
    ],
)
def test_wrong_arguments_of_piecewise_attention_are_named(changes: dict[str, Any], message: str) -> None:
    names = {name: torch.zeros(1, 2, 5, 16) for name in ("q1", "k1", "q2", "k2", "v")} | {"dist_threshold": 2} | changes
    with pytest.raises(TypeError, match=f"piecewise_attention: {message}"):
        torchport.ops.piecewise_attention(**names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 2.5}, "window is 2.5; it must be an integer"),
        ({"window": -2}, r"it must be -1 \(all keys\) or more"),
        ({"key_scale": torch.ones(1)}, "key_scale is a tensor"),
        ({"value_scale": 0.0}, "key_scale and value_scale are 1.0 and 0.0; they must be positive"),
        ({"block_tables": [[0]]}, "block_tables is .*; it must be a tensor"),
        ({"context_lens": torch.ones(1)}, "both must be int32 or int64"),
        ({"context_lens": torch.ones(2).int()}, r"not \[sequences, pages\] and \[sequences\]"),
        ({"sinks": torch.zeros(3)}, r"sinks has shape \(3,\)"),
        ({"batch_invariant": 1}, "batch_invariant is 1; it must be True or False"),
        ({"scale": "x"}, "scale is 'x'; it must be a number"),
    ],
)
def test_wrong_arguments_of_paged_attention_are_named(changes: dict[str, Any], message: str) -> None:
    caches = {name: torch.zeros(2, 16, 1, 16) for name in ("key_cache", "value_cache")}
    rest = {"block_tables": torch.zeros(1, 1).int(), "context_lens": torch.ones(1).int()}
    names = {"query": torch.zeros(1, 2, 16)} | caches | rest | changes
    with pytest.raises((TypeError, ValueError), match=f"paged_attention: .*{message}"):
        torchport.ops.paged_attention(**names)


def test_wrong_arguments_of_the_cache_and_of_totals_are_named() -> None:
    x, cache, slots = torch.zeros(3, 1, 16), torch.zeros(2, 16, 1, 16), torch.arange(3)
    with pytest.raises(TypeError, match="reshape_and_cache: key_scale is a tensor"):
        torchport.ops.reshape_and_cache(x, x, cache, cache, slots, key_scale=torch.ones(1))
    with pytest.raises(ValueError, match=r"reshape_and_cache: slots is torch.float32; it must be int32 or int64"):
        torchport.ops.reshape_and_cache(x, x, cache, cache, slots.float())
    q = torch.zeros(1, 2, 5, 16)
    with pytest.raises(ValueError, match=r"sums is float32 \(1, 2, 4\); it must be float32, of shape"):
        torchport.ops.attention_totals(
            q, q, torch.zeros(1, 2, 4), None, None, None, None, 0, 0, 1.0, 0.0, -1, -1, False
        )


def test_blocks_fit_the_local_memory_of_chips_without_a_row() -> None:
    from torchport.ops.attention.configurations import Blocks, _fitting

    assert _fitting(Blocks(32, 32), 64, 0) == Blocks(32, 32)
    assert _fitting(Blocks(32, 32), 64, 64 << 10) == Blocks(32, 32)
    assert _fitting(Blocks(32, 32), 64, 32 << 10) == Blocks(32, 16)
    assert _fitting(Blocks(32, 32), 128, 32 << 10) == Blocks(16, 8)
    assert _fitting(Blocks(16, 32), 250, 16 << 10) == Blocks(8, 8)  # no less, so such a kernel is refused

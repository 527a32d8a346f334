"""Attention to a paged cache: what samples of the operator do not have."""

from __future__ import annotations

import pytest
import torch

import torchport.ops


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.randn(shape).to(dtype) for shape in shapes]


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """The same elements, every second one of memory, others between them."""
    return torch.stack([tensor, torch.full_like(tensor, 77)], -1)[..., 0]


def test_a_sequence_does_not_depend_on_its_batch() -> None:
    caches = tensors(*((40, 16, 2, 32),) * 2)
    query = torch.randn(3, 4, 32)
    tables = torch.stack([torch.randperm(40)[:36] for _ in range(3)]).int()
    contexts = torch.tensor([570, 16, 301])
    together = torchport.ops.paged_attention(query, *caches, tables, contexts)
    for i in range(3):
        alone = torchport.ops.paged_attention(query[i : i + 1], *caches, tables[i : i + 1], contexts[i : i + 1])
        assert torch.equal(alone[0], together[i])


def test_a_cache_that_was_written_is_read() -> None:
    key, value = tensors((50, 2, 32), (50, 2, 32))
    caches = [torch.zeros(8, 16, 2, 32) for _ in range(2)]
    slots = torch.cat([page * 16 + torch.arange(16) for page in (5, 0, 3, 7)])[:50]
    torchport.ops.reshape_and_cache(key, value, *caches, slots)
    query = torch.randn(1, 3, 4, 32)
    got = torchport.ops.paged_attention(query, *caches, torch.tensor([[5, 0, 3, 7]]), torch.tensor([50]))
    q, k, v = (x.transpose(0, 1)[None] for x in (query[0], key, value))
    torch.testing.assert_close(got[0].transpose(0, 1)[None], torchport.ops.flash_attention(q, k, v, causal=True))


def test_a_second_call_gives_the_same_in_memory_of_its_own() -> None:
    caches = [cache.bfloat16() for cache in tensors(*((9, 16, 2, 32),) * 2)]
    query, other = torch.randn(2, 2, 4, 32).bfloat16()
    tables, contexts = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([42, 23])
    kept, lse = torchport.ops.paged_attention(query, *caches, tables, contexts, return_lse=True)
    copied = kept.clone()
    for _ in range(2):  # the second one runs what the first one has prepared
        assert torch.equal(torchport.ops.paged_attention(query, *caches, tables, contexts), kept)
    moved = torchport.ops.paged_attention(other, *caches, tables.flip(0), contexts.flip(0))
    assert torch.equal(moved, torchport.ops.paged_attention(other, *caches, tables.flip(0), contexts.flip(0)))
    assert torch.equal(kept, copied)
    assert torch.equal(torchport.ops.paged_attention(query, *caches, tables, contexts, return_lse=True)[1], lse)
    uneven = torch.nn.functional.pad(caches[0], (1, 1))[..., 1:-1]  # words of two elements would begin before a row
    assert torch.equal(torchport.ops.paged_attention(query, uneven, caches[1], tables, contexts), kept)
    for wrong in ({"window": True}, {"window": [1]}, {"batch_invariant": 1}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            torchport.ops.paged_attention(query, *caches, tables, contexts, **wrong)
    with pytest.raises(torchport.KernelAssertionError, match="not in the cache"):
        torchport.ops.paged_attention(query, *caches, tables + 6, contexts)


def test_a_page_that_is_not_there_is_an_error() -> None:
    caches = tensors(*((4, 16, 1, 16),) * 2)
    query = torch.randn(1, 1, 16)
    for table, context, message in (([[9]], 5, "a page is not in the cache"), ([[0]], 17, "longer than its pages")):
        with pytest.raises(torchport.KernelAssertionError, match=message):
            torchport.ops.paged_attention(query, *caches, torch.tensor(table), torch.tensor([context]))


def test_a_part_of_the_tables_of_pages_is_read_as_it_is() -> None:
    caches = tensors(*((8, 16, 2, 32),) * 2)
    query, sinks, slopes = torch.randn(2, 4, 32), torch.randn(4), torch.rand(4)
    tables, contexts = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([40, 20])
    wanted = torchport.ops.paged_attention(query, *caches, tables, contexts, sinks=sinks, alibi_slopes=slopes)
    part = torch.nn.functional.pad(tables, (0, 2), value=7)[:, :3]
    others = {"sinks": strided(sinks), "alibi_slopes": strided(slopes)}
    assert torch.equal(torchport.ops.paged_attention(query, *caches, part, strided(contexts), **others), wanted)
    with pytest.raises(ValueError, match="window is -2"):
        torchport.ops.paged_attention(query, *caches, tables, contexts, window=-2)

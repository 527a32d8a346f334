"""What a sum over ranks may be: no legal order is refused, and what lacks a rank is named."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import recorded
import torch

from torchport.numerics.ranks.bounds import exact, limit_of, orders_of, wrong_elements
from torchport.numerics.ranks.expected import Reduced
from torchport.numerics.ranks.kernels import judge_kernels
from torchport.numerics.ranks.naming import name_reduced
from torchport.numerics.ranks.shards import by_placement
from torchport.numerics.runs.ranks import RankRuns

TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def parts_of(ranks: int, dtype: torch.dtype, seed: int, kind: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(ranks, 512, generator=generator, dtype=torch.float64)
    if kind == "wide":  # of many sizes, and some that cancel
        parts *= 10.0 ** torch.randint(-4, 4, parts.shape, generator=generator)
        parts[0, :64] = -parts[1, :64]
    return list(parts.to(dtype))


def legal_sum(parts: Sequence[torch.Tensor], choose: random.Random, wide: bool) -> torch.Tensor:
    """The sum in a tree that is drawn; ``wide``: partial sums are float32 at least."""
    left = [part.to(torch.promote_types(part.dtype, torch.float32)) if wide else part for part in parts]
    while len(left) > 1:
        one = left.pop(choose.randrange(len(left)))
        other = left.pop(choose.randrange(len(left)))
        left.append(one + other)
    return left[0].to(parts[0].dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "wide"])
def test_every_order_is_legal(dtype: torch.dtype, kind: str) -> None:
    choose = random.Random(0)
    for ranks in (2, 3, 4, 8, 16):
        parts = parts_of(ranks, dtype, ranks, kind)
        for reduce in ("sum", "avg"):
            limit = limit_of([exact(part) for part in parts], reduce, dtype)
            assert limit is not None
            for number in range(6):
                total = legal_sum(parts, choose, wide=number % 3 == 0)
                if reduce == "avg" and number % 2:  # divided before
                    total = legal_sum([part / ranks for part in parts], choose, wide=False)
                elif reduce == "avg":
                    total = total / ranks
                assert not wrong_elements(exact(total), limit).any()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_rank_that_is_missing_or_twice_is_named(dtype: torch.dtype) -> None:
    choose = random.Random(1)
    for ranks in (2, 3, 8):
        parts = parts_of(ranks, dtype, 50 + ranks, "normal")
        reduced = Reduced(dict(enumerate(parts)), "sum")
        limit = limit_of([exact(part) for part in parts], "sum", dtype)
        assert limit is not None
        for odd in {0, 1, ranks - 1}:
            less = legal_sum([part for rank, part in enumerate(parts) if rank != odd], choose, wide=False)
            more = legal_sum([*parts, parts[odd]], choose, wide=False)
            for result, verdict, text in (
                (less, "lost rank", f"rank {odd} is missing"), (more, "doubled rank", f"rank {odd} is there twice"),
            ):  # fmt: skip
                wrong = wrong_elements(exact(result), limit)
                assert wrong.any()
                found = name_reduced(result, wrong, reduced, 0, [])
                assert (found[0], text in found[1]) == (verdict, True), found


def test_several_ranks_that_are_missing_are_named() -> None:
    parts = parts_of(6, torch.float32, 3, "normal")
    limit = limit_of([exact(part) for part in parts], "sum", torch.float32)
    assert limit is not None
    result = parts[0] + parts[3] + parts[4]
    found = name_reduced(result, wrong_elements(exact(result), limit), Reduced(dict(enumerate(parts)), "sum"), 0, [])
    assert found == ("lost rank", "the result lacks ranks 1, 2 and 5")


def test_orders_are_all_binary_trees() -> None:
    for ranks, trees in ((2, 1), (3, 3), (4, 15)):
        parts = [torch.tensor([2.0**power]) for power in range(ranks)]
        orders = list(orders_of(parts))
        assert (len(orders), {float(one) for one in orders}) == (trees, {2.0**ranks - 1})


def test_overflow_of_partial_sums_is_legal_and_nan_is_not() -> None:
    parts = [torch.tensor([60000.0, 1.0]), torch.tensor([60000.0, 1.0]), torch.tensor([-60000.0, 1.0])]
    half = [part.half() for part in parts]
    limit = limit_of([exact(part) for part in half], "sum", torch.float16)
    assert limit is not None
    assert wrong_elements(exact(torch.tensor([float("inf"), 3.0]).half()), limit).tolist() == [False, False]
    assert wrong_elements(exact(torch.tensor([60000.0, float("nan")]).half()), limit).tolist() == [False, True]


def test_integers_wrap_and_must_be_equal() -> None:
    parts = [torch.tensor([100, 1], dtype=torch.int8)] * 2
    limit = limit_of([exact(part) for part in parts], "sum", torch.int8)
    assert limit is not None
    assert wrong_elements(exact(parts[0] + parts[1]), limit).tolist() == [False, False]
    assert wrong_elements(exact(parts[0]), limit).tolist() == [True, True]


def test_a_tensor_on_two_dimensions_of_a_mesh() -> None:
    whole = torch.arange(8 * 4).reshape(8, 4)
    rows = [half.chunk(2) for half in whole.chunk(2)]
    placement = {"shape": [8, 4], "mesh_shape": [2, 2], "mesh": [0, 1, 2, 3], "dims": ["shard 0", "shard 0"]}
    parts = {0: rows[0][0], 1: rows[0][1], 2: rows[1][0], 3: rows[1][1]}
    found = by_placement(parts, placement)  # type: ignore[arg-type]
    assert torch.equal(found[0], whole)  # type: ignore[arg-type]
    placement["dims"] = ["strided shard 0", "shard 0"]  # the second dimension of the mesh divides first
    parts = {0: rows[0][0], 1: rows[1][0], 2: rows[0][1], 3: rows[1][1]}
    found = by_placement(parts, placement)  # type: ignore[arg-type]
    assert torch.equal(found[0], whole)  # type: ignore[arg-type]
    placement["dims"] = ["shard 1", "replicate"]
    assert "make" in by_placement(parts, placement)  # type: ignore[arg-type]


def renamed(run: recorded.MemoryRun) -> recorded.MemoryRun:
    """The run with other names for its tensors: here they do not follow from the content."""

    def name(sha: str | None) -> str | None:
        return None if sha is None else f"other_{sha}"

    launches = [
        replace(one, args=tuple(replace(arg, before=name(arg.before), after=name(arg.after)) for arg in one.args))
        for one in run.launches
    ]
    return replace(run, launches=launches, stored={f"other_{sha}": value for sha, value in run.stored.items()})


def test_a_kernel_that_is_wrong_on_one_rank() -> None:
    fault = {"mm_1": lambda value: value + 0.1}
    job = RankRuns(Path("/runs"), 2, {0: recorded.recorded(), 1: renamed(recorded.recorded(fault))})
    found = [one for one in judge_kernels(job, recorded.judge).findings if one.is_fault]
    assert [(one.verdict, one.ranks, one.seq) for one in found] == [("wrong", (1,), 4)]

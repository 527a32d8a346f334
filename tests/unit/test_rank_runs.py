"""Runs of several ranks: recorded, compared, and faults named."""

from __future__ import annotations

from pathlib import Path

import pytest
import rank_cases
import torch
from processes import SERVER

from torchport.numerics.ranks.diff import RanksDiff, compare_ranks
from torchport.numerics.runs.ranks import RankRuns

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed")


def run_job(folder: Path, world_size: int) -> Path:
    """Run all cases on so many ranks."""
    ranks = [SERVER.Process(target=rank_cases.main, args=(rank, world_size, folder)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in ranks] == [0] * world_size
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_job(tmp_path_factory.mktemp("job"), 2)


def compared(job: Path, case: str) -> RanksDiff:
    return compare_ranks(RankRuns.load(job / case))


def test_right_collectives_are_not_blamed(job: Path) -> None:
    diff = compared(job, "right")
    assert (diff.status, len(diff.findings)) == (0, 4)
    assert all(one.source is not None and one.source["file"].endswith("rank_cases.py") for one in diff.findings)


def test_a_sum_in_bfloat16_is_legal(job: Path) -> None:
    assert compared(job, "bfloat16").status == 0


@pytest.mark.parametrize(
    ("case", "verdict", "ranks", "text"),
    [
        ("lost", "lost rank", (0, 1), "rank 1 is missing"),
        ("doubled", "doubled rank", (0, 1), "rank 1 is there twice"),
        ("shard", "wrong shard", (0,), "the place of rank 0's part holds rank 1's"),
        ("part", "wrong shard", (0,), "rank 1's part of the sum"),
    ],
)
def test_faults_are_named(job: Path, case: str, verdict: str, ranks: tuple[int, ...], text: str) -> None:
    diff = compared(job, case)
    first = diff.findings[0]
    assert diff.status == 1
    assert (first.verdict, first.ranks) == (verdict, ranks), first
    assert text in first.sentence

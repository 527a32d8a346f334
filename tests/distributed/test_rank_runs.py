"""Runs of several ranks: recorded, compared, and faults named."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

if not dist.is_available() or sys.platform == "win32":
    pytest.skip("this PyTorch has no gloo, or there is no fork", allow_module_level=True)

import rank_cases
from jobs import Job

from torchport.cli.precision.diff_ranks import diff_ranks
from torchport.errors import RunError, TargetError
from torchport.numerics.ranks.diff import RanksDiff, compare_jobs, compare_ranks
from torchport.numerics.runs.ranks import RankRuns, is_ranks
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge
from torchport.plugin import backend_for
from torchport.target import Target


def opencl_is_here() -> bool:
    try:
        backend_for(Target("opencl")).driver(Target("opencl"))
    except TargetError:
        return False
    return True


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids=["2-ranks", "4-ranks"])
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of all cases, which one job records one after the other."""
    folder = tmp_path_factory.mktemp("job")
    ranks = Job(request.param)
    ranks.run("rank_cases:main", str(folder))
    ranks.run("rank_models:main", str(folder), opencl_is_here())
    ranks.run("rank_uneven:main", str(folder))
    yield folder
    ranks.close()


JUDGED = ("functional", "functional-lost", "one-seed", "seeds", "targets", "ddp")
"""Cases whose kernels are judged."""


def compared(job: Path, case: str) -> RanksDiff:
    return compare_ranks(RankRuns.load(job / case), judge if case in JUDGED else None)


def test_right_collectives_are_not_blamed(job: Path) -> None:
    diff = compared(job, "right")
    assert diff.status == 0
    assert set(diff.counts) <= {"same", "legal"}
    assert len(diff.findings) >= 13
    assert diff.headline == "The ranks agree: what differs is a legal order of sums."  # it has no replicas
    assert compared(job, "training").headline.startswith("The ranks agree: replicas are the same, and")
    assert all(one.source is not None and one.source["file"].endswith("rank_cases.py") for one in diff.findings)


@pytest.mark.parametrize(
    "case",
    [
        "bfloat16",
        "order",
        "training",
        "functional",
        "one-seed",
        "targets",
        "ddp",
        "fsdp",
        "tp",
        "compressed",
        "eager",
        "joined",
        "accumulated",
        "beside",
        "masked",
    ],
)
def test_what_is_legal_is_not_blamed(job: Path, case: str) -> None:
    diff = compared(job, case)
    assert (diff.status, diff.missing) == (0, [])
    assert set(diff.counts) <= {"same", "legal"}, [each for each in diff.findings if each.verdict == "not known"][:3]
    if case in JUDGED:
        assert all(levels.get("EXACT") or levels.get("EXPECTED") for levels in diff.coverage.values())


FAULTS = {
    "lost": ("lost rank", None, "rank 1 is missing"),
    "doubled": ("doubled rank", None, "rank 1 is there twice"),
    "factor": ("wrong", None, "it is divided by"),
    "element": ("wrong", (0,), "in 3 of 64 elements, 0 to 2"),
    "shard": ("wrong shard", (0,), "the place of rank 0's part holds rank"),
    "part": ("wrong shard", (0,), "'s part of the sum"),
    "exchange": ("wrong shard", (1,), "the place of rank 0's part holds"),
    "broadcast": ("diverged", (0,), "rank 0 kept what it had"),
    "stale-part": ("stale", None, "rank 1 is there with what it gave to an earlier call"),
    "stale-gradient": ("stale", (1,), "the gradient that it had at step 0"),
    "diverged": ("diverged", None, "since at step 1; the same at step 0"),
    "skipped": ("diverged", (1,), "rank 1 made 2"),
    "nan": ("not finite", (1,), "NaN begin on rank 1"),
    "same-data": ("another seed", (0, 1), "gave the same gradients to all"),
    "zeros": ("lost rank", (1,), "rank 1 gave nothing but zeros"),
    "early": ("lost rank", (0,), "rank 0 read it before it was complete"),
    "by-hand": ("lost rank", (1,), "rank 1 gave nothing but zeros"),
    "functional-lost": ("lost rank", None, "rank 1 is missing"),
    "seeds": ("another seed", (0, 1), "were given the same, and drew other random numbers"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_named(job: Path, case: str) -> None:
    verdict, ranks, text = FAULTS[case]
    diff = compared(job, case)
    first = next(one for one in diff.findings if one.verdict == verdict)
    assert diff.status == 1
    assert ranks is None or set(ranks) <= set(first.ranks), first
    assert text in first.sentence
    assert diff.findings[0].is_fault


def test_stages_with_the_same_names_are_no_replicas(job: Path) -> None:
    diff = compared(job, "staged")
    assert diff.status == 0
    assert set(diff.counts) <= {"same", "legal", "not known"}


def test_nan_that_come_again_are_not_stale(job: Path) -> None:
    assert compared(job, "nan-again").counts == {"not finite": 1, "same": 2}


def test_statistics_alone_judge_no_collective(job: Path) -> None:
    diff = compared(job, "statistics")
    assert (diff.status, diff.counts, len(diff.missing)) == (2, {"not known": 1}, 1)
    assert "level='full'" in diff.headline or "level stats" in diff.headline


def test_the_command(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diff_ranks(job / "right", None, None, 3) == 0
    assert diff_ranks(job / "lost", None, tmp_path / "lost.json", 3) == 1
    written = json.loads((tmp_path / "lost.json").read_text())
    assert (written["format"], written["status"]) == ("torchport.ranks-diff/1", 1)
    assert written["findings"][0]["verdict"] == "lost rank"
    text = capsys.readouterr().out
    assert "lost rank: all_reduce (sum) 0: the result is the sum of" in text
    assert diff_ranks(tmp_path, None, None, 3) == 2
    assert diff_ranks(job / "right", job / "right", None, 3) == 0


def test_a_rank_that_fails_is_missing(job: Path) -> None:
    diff = compared(job, "failed")
    assert (diff.status, diff.missing) == (2, ["rank 1 ended with ZeroDivisionError"])
    assert set(diff.counts) <= {"same", "legal"}


def test_collectives_of_other_threads_are_noted(job: Path) -> None:
    diff = compared(job, "thread")
    assert diff.status == 0
    assert any("called in another thread" in note for note in diff.notes)


def test_what_is_sent_from_one_rank_to_one_is_noted(job: Path) -> None:
    diff = compared(job, "sent")
    assert diff.status == 0
    assert any("c10d.send" in note and "not recorded" in note for note in diff.notes)


def test_a_collective_that_a_rank_never_called(job: Path, tmp_path: Path) -> None:
    shutil.copytree(job / "right", tmp_path / "right")
    launches = tmp_path / "right" / "rank1" / "launches.jsonl"
    lines = launches.read_text().splitlines(keepends=True)
    launches.write_text("".join(lines[:-1]))
    diff = compare_ranks(RankRuns.load(tmp_path / "right"))
    assert (diff.status, diff.counts["another call"]) == (3, 1)
    assert "rank 1 never called it" in diff.headline
    launches.write_text("".join(lines[:3]) + lines[3][:40])
    info = tmp_path / "right" / "rank1" / "run.json"
    info.write_text(info.read_text().replace('"complete": true', '"complete": false'))
    diff = compare_ranks(RankRuns.load(tmp_path / "right"))
    assert (diff.status, sum(diff.counts[one] for one in diff.counts if one in ("same", "legal"))) == (2, 3)
    assert diff.missing == ["rank 1 did not end its recording: only what it recorded is judged"]


def test_ranks_that_are_missing_or_of_another_job(job: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(job / "right", tmp_path / "right"))
    shutil.rmtree(folder / "rank1")
    assert is_ranks(folder)
    diff = compare_ranks(RankRuns.load(folder))
    assert (diff.status, diff.missing[0]) == (2, "rank 1 has no run folder: it did not begin to record")
    shutil.copytree(job / "right" / "rank0", folder / "rank1")
    with pytest.raises(RunError, match="rank1 is the run of rank 0"):
        RankRuns.load(folder)
    shutil.rmtree(folder / "rank1")
    (folder / "rank1").mkdir()
    assert "rank 1 cannot be read" in RankRuns.load(folder).missing[1]
    ranks = folder / "ranks.json"
    size = len(json.loads(ranks.read_text())["ranks"])
    ranks.write_text(ranks.read_text().replace(f'"world_size": {size}', '"world_size": 9'))
    with pytest.raises(RunError, match=f"is of a job of {size} ranks, .* of one of 9"):
        RankRuns.load(folder)
    ranks.write_text('{"format": "torchport.ranks/1", "world_size": 1e99, "ranks": []}')
    with pytest.raises(RunError, match="is damaged"):
        RankRuns.load(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RankRuns:
    """The training in one process."""
    folder = tmp_path_factory.mktemp("one")
    rank_cases.single(folder / "one")
    return RankRuns.of(Run.load(folder / "one"))


@pytest.mark.parametrize("case", ["training", "ddp", "fsdp", "tp", "compressed"])
def test_one_rank_against_several(job: Path, one: RankRuns, case: str) -> None:
    diff = compare_jobs(one, RankRuns.load(job / case), lambda a, b: judge)
    assert diff.status == 0, diff.findings[:3]
    assert {"legal", "same"} == set(diff.counts), [each for each in diff.findings if each.verdict == "not known"][:3]
    assert any(each.what.startswith("gradient") and each.verdict in ("same", "legal") for each in diff.findings)


@pytest.mark.slow
def test_two_meshes_against_one_rank(job: Path, one: RankRuns) -> None:
    if not (job / "two-meshes").exists():
        pytest.skip("it needs four ranks")
    diff = compare_jobs(one, RankRuns.load(job / "two-meshes"), lambda a, b: judge)
    assert (diff.status, set(diff.counts) - {"same", "legal"}) == (0, set()), diff.findings[:3]
    assert any("strided shard 0, shard 0" in each.sentence for each in diff.findings)


@pytest.mark.parametrize("case", ["same-data", "zeros", "swapped"])
def test_gradients_that_are_not_those_of_one_rank(job: Path, one: RankRuns, case: str) -> None:
    diff = compare_jobs(one, RankRuns.load(job / case), lambda a, b: judge)
    assert diff.status == 1


@pytest.mark.parametrize("case", ["functional", pytest.param("ddp", marks=pytest.mark.slow)])
def test_two_jobs_rank_by_rank(job: Path, case: str) -> None:
    both = RankRuns.load(job / case)
    diff = compare_jobs(both, both, lambda a, b: judge)
    assert (diff.status, set(diff.counts) - {"same", "legal"}) == (0, set())


def test_jobs_that_have_nothing_in_common(job: Path) -> None:
    ddp = RankRuns.load(job / "ddp")
    diff = compare_jobs(ddp, RankRuns.load(job / "functional"), lambda a, b: judge)
    assert diff.status in (2, 3)
    diff = compare_jobs(RankRuns.load(job / "training").only(0), RankRuns.load(job / "functional"), lambda a, b: judge)
    assert diff.status == 2
    assert any("hold nothing that can be compared" in one for one in diff.missing)

"""Jobs of ranks for tests: a rank that fails, dies or hangs is a failure that says where."""

from __future__ import annotations

import sys

import pytest
import torch.distributed as dist

if not dist.is_available() or sys.platform == "win32":
    pytest.skip("this PyTorch has no gloo, or there is no fork", allow_module_level=True)

from jobs import Job, JobFailed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("time:sleep", (60,), r"(?s)time:sleep, rank 0: does not answer:.*in _serve.*rank 1: does not answer"),
        ("math:sqrt", (-1,), r"(?s)rank 0: Traceback.*ValueError.*rank 1: Traceback"),
        ("os:_exit", (3,), "rank 0: the process ended with 3"),
    ],
    ids=["hangs", "fails", "dies"],
)
def test_what_goes_wrong_is_said(function: str, arguments: tuple[int, ...], message: str) -> None:
    job = Job(2)
    with pytest.raises(JobFailed, match=message):
        job.run(function, *arguments, timeout=3)
    assert not job.alive
    job.close()


def test_results_are_in_the_order_of_ranks() -> None:
    job = Job(2)
    assert job.run("torch.distributed:get_rank") == [0, 1]
    job.close()

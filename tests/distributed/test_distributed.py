"""Models compiled for several ranks: every way to be parallel agrees with eager, and with one process."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

if not dist.is_available() or sys.platform == "win32":
    pytest.skip("this PyTorch has no gloo, or there is no fork", allow_module_level=True)

from jobs import Job

from torchport.errors import TargetError
from torchport.plugin import backend_for
from torchport.target import Target

SLOW = pytest.mark.slow
CACHES = ("TORCHPORT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")

_jobs: dict[int, Job] = {}


def opencl_is_here() -> bool:
    try:
        backend_for(Target("opencl")).driver(Target("opencl"))
    except TargetError:
        return False
    return True


@pytest.fixture(params=[2, pytest.param(4, marks=SLOW)], ids=["2-ranks", "4-ranks"])
def job(request: pytest.FixtureRequest) -> Job:
    """Ranks that wait for functions; new ones after a failure."""
    size = int(request.param)
    if size not in _jobs or not _jobs[size].alive:
        _jobs[size] = Job(size)
    return _jobs[size]


@pytest.fixture(scope="module", autouse=True)
def end_of_jobs() -> Iterator[None]:
    yield
    for one in _jobs.values():
        one.close()
    _jobs.clear()


@pytest.mark.parametrize(
    ("megabytes", "width", "graphs"),
    [(25, 16, 2), pytest.param(1, 192, 6, marks=SLOW)],
    ids=["one-bucket", "split-graphs"],
)
def test_ddp(job: Job, megabytes: float, width: int, graphs: int) -> None:
    job.run("data_parallel:ddp", megabytes, width, graphs)


@pytest.mark.parametrize(
    ("graphs", "more"),
    [(4, False), pytest.param(4, True, marks=SLOW), pytest.param(2, True, marks=SLOW)],
    ids=["split-graphs", "all-in-split-graphs", "all-in-one-graph"],
)
def test_ddp_with_higher_order_operators(job: Job, graphs: int, more: bool) -> None:
    job.run("data_parallel:ddp_higher_order", graphs, more)


@pytest.mark.parametrize("per_block", [pytest.param(True, marks=SLOW), False], ids=["per-block", "whole"])
def test_fsdp(job: Job, per_block: bool) -> None:
    job.run("data_parallel:fsdp", per_block)


@SLOW
@pytest.mark.parametrize("settings", ["offload", "mixed", "offload mixed"])
def test_fsdp_settings(job: Job, settings: str) -> None:
    job.run("data_parallel:fsdp_settings", "offload" in settings, "mixed" in settings)


@pytest.mark.parametrize("sequence", [pytest.param(False, marks=SLOW), True], ids=["columns-and-rows", "sequence"])
def test_tensor_parallel(job: Job, sequence: bool) -> None:
    job.run("model_parallel:tensor_parallel", sequence)


def test_loss_in_parts(job: Job) -> None:
    job.run("model_parallel:loss_in_parts")


@pytest.mark.parametrize("schedule", [pytest.param("gpipe", marks=SLOW), "1f1b"])
def test_pipeline(job: Job, schedule: str) -> None:
    job.run("model_parallel:pipeline", schedule)


def test_context_parallel(job: Job) -> None:
    job.run("model_parallel:context_parallel")
    job.run("model_parallel:context_by_gathering")


def test_collectives(job: Job) -> None:
    job.run("collectives:all_kinds", "cpu")


def test_collectives_in_place(job: Job) -> None:
    job.run("collectives:in_place", "cpu")


def test_simple_fsdp(job: Job) -> None:
    job.run("collectives:simple_fsdp")


@SLOW
def test_checkpoint(job: Job, tmp_path: Path) -> None:
    job.run("collectives:saved_and_loaded", str(tmp_path), "cpu", "opencl" if opencl_is_here() else "cpu")


def test_a_rank_that_compiles_again_alone_is_told_which_guard_failed(job: Job) -> None:
    first, *others = job.run("recompiling:smaller_batches", [0])
    assert others == [[]] * (job.size - 1)
    (message,) = first
    assert message.startswith("rank 0 compiled step (") and f"1 of {job.size} ranks did" in message
    assert "size mismatch at index 0. expected 8, actual 3" in message


@SLOW
def test_ranks_that_compile_again_together_are_told_nothing(job: Job) -> None:
    assert job.run("recompiling:smaller_batches", list(range(job.size))) == [[]] * job.size


needs_opencl = pytest.mark.skipif(not opencl_is_here(), reason="no OpenCL device: pip install 'pyopencl[pocl]'")


@needs_opencl
def test_collectives_in_graphs_of_a_device(job: Job) -> None:
    job.run("collectives:all_kinds", "opencl")
    job.run("collectives:in_place", "opencl")


@needs_opencl
def test_a_device_has_what_collectives_wrote(job: Job) -> None:
    job.run("devices:written_by_collectives")
    job.run("devices:gathered_by_fsdp")


@needs_opencl
def test_ranks_with_several_chips(job: Job) -> None:
    job.run("devices:several_targets", ["cpu", "opencl"])


@needs_opencl
def test_tensors_on_the_torch_device(job: Job) -> None:
    job.run("devices:one_device_each")


def with_caches(folder: Path) -> Job:
    """Two ranks that share caches of their own."""
    return Job(2, {name: str(folder / name) for name in CACHES})


@SLOW
@pytest.mark.parametrize(
    ("name", "trust", "graphs"), [("caches", False, 2), ("caches", True, 0), ("artifacts", False, 0)]
)
def test_caches_of_a_job_serve_another(name: str, trust: bool, graphs: int, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    files = str(tmp_path / "files")
    first = with_caches(tmp_path / "first")
    try:
        mine, theirs = first.run("caching:steps")
        kinds = mine[0] + mine[1]
        assert mine[0] + theirs[0] == kinds >= 3, "two ranks compiled the same kernel"
        assert mine[2] == theirs[2] == 2
        first.run("caching:write", files)
    finally:
        first.close()
    other = with_caches(tmp_path / "other")
    try:
        other.run("caching:read", files, name, trust)
        assert other.run("caching:steps") == [(0, kinds, graphs)] * 2
    finally:
        other.close()


@SLOW
def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
    (program,) = re.findall(r"```python\n(# train\.py\n.*?)```", page, re.S)
    (command,) = re.findall(r"^torchrun (.* train\.py)$", page, re.M)
    (tmp_path / "train.py").write_text(program)
    arguments = [sys.executable, "-m", "torch.distributed.run", *command.split()]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"rank 0", "rank 1"} == {line.partition(":")[0] for line in done.stdout.splitlines()}

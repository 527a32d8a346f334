"""Recorded kernels compute the algebra of their FX nodes, and kernels with a fault do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import torchport
from torchport.cli.precision.diff import diff
from torchport.numerics.algebra.nodes import of_nodes
from torchport.numerics.runs.reader import Run
from torchport.numerics.trees.recorded import with_order
from torchport.numerics.verdicts.recorded_call import calls_of
from torchport.numerics.verdicts.verdict import KernelVerdict


def model(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    a = F.layer_norm(F.gelu(x, approximate="tanh") + y, (96,), eps=1e-5)
    b = torch.softmax((a @ w).masked_fill(torch.ones(96, 96, dtype=torch.bool).triu(1), float("-inf")) * 0.125, -1)
    return (b * x.to(torch.bfloat16).float()).sum(-1).sqrt()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    inputs = [torch.randn(96, 96, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    compiled = torch.compile(model, backend="torchport", dynamic=False)
    with torchport.record(path, "full"):
        compiled(*inputs)
    return path


def test_kernels_compute_their_nodes(folder: Path) -> None:
    found = [of_nodes(call, launch) for call in calls_of(Run.load(folder)) for launch in call.launches if launch.kernel]
    assert len(found) >= 2 and {one.verdict for one in found} == {"PROVEN"}
    assert min(one.elements for one in found) >= 3 * 96


@pytest.mark.parametrize(
    ("old", "new"), [("arith.addf", "arith.subf"), ("9.99999974E-6", "1.1E-5"), ("1.250000e-01", "0.12")]
)
def test_faults_are_refuted(folder: Path, old: str, new: str) -> None:
    run = Run.load(folder)
    faulty = {key for key, kernel in run.kernels.items() if old in kernel["ttir"]}
    for key in faulty:
        run.kernels[key]["ttir"] = run.kernels[key]["ttir"].replace(old, new)
    found = [of_nodes(call, launch, 1) for call in calls_of(run) for launch in call.launches if launch.kernel in faulty]
    assert found and {one.verdict for one in found} == {"REFUTED"}


def test_diff_shows_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diff(folder, folder, None, None, None, None, "fail", 20, algebra=True) == 0
    output = capsys.readouterr().out
    assert "the algebra of the FX nodes" in output and "EXPECTED PROVEN" in output
    assert "sums in a known order" in output


def test_the_order_of_their_sums(folder: Path) -> None:
    run = Run.load(folder)
    [call] = calls_of(run)
    proven = KernelVerdict(0, "", None, (), "EXPECTED", algebra="PROVEN")
    found = [with_order(proven, call, launch).order or "" for launch in call.launches if launch.kernel]
    counts = [(int(one.split()[2]), int(one.split()[-4])) for one in found]  # terms, roundings
    assert found and all(96 <= terms <= 192 and 2 <= limit < 96 for terms, limit in counts)
    refuted = replace(proven, algebra="REFUTED")
    assert with_order(refuted, call, call.launches[0]) is refuted


def test_an_order_that_is_not_known(folder: Path) -> None:
    run = Run.load(folder)
    [call] = calls_of(run)
    call.dump["target"] = "linalg"
    proven = KernelVerdict(0, "", None, (), "EXPECTED", algebra="PROVEN")
    launch = next(launch for launch in call.launches if launch.kernel)
    assert (with_order(proven, call, launch).order or "").startswith("not known: target linalg")

"""A fault in a later call alone, of which statistics were kept: the same bits were read, others were left."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from torchport.numerics.compare.diff import Diff, compare
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge


def model(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh((x * 1.5).relu() @ (x.transpose(1, 2) - 0.25).exp())


def recorded(folder: Path, wrong: int = -1, *, steps: tuple[int, ...] = (0, 0, 0)) -> Run:
    """A call for each of ``steps``, with inputs of that seed. The library's product number ``wrong`` is off by 1 %."""
    calls = [0]

    def bmm(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        values = out.numpy()
        np.matmul(a.numpy(), b.numpy(), out=values)
        if calls[0] == wrong:
            np.multiply(values[0, 0], np.float32(1.01), out=values[0, 0])
        calls[0] += 1
        return out

    inputs = [torch.randn(3, 9, 17, generator=torch.Generator().manual_seed(seed)) for seed in steps]
    compiled = torch.compile(model, backend="torchport", options={"tape": "off"}, dynamic=False)
    with torch.no_grad(), torch.library._scoped_library("aten", "IMPL") as library, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes the place of torch's own
        compiled(inputs[0])
        library.impl("bmm.out", bmm, "CPU")
        with record(folder, "full", overhead=float("inf")):
            for one in inputs:
                compiled(one)
    return Run.load(folder)


def compared(a: Run, b: Run) -> Diff:
    return compare(a, b, judge)


def test_a_library_that_is_wrong_in_a_later_call_is_blamed(tmp_path: Path) -> None:
    right = recorded(tmp_path / "a")
    wrong = recorded(tmp_path / "b", 3)  # the first is repeated: 0, 1; then 2, 3
    diff = compared(right, wrong)
    (root,) = diff.roots
    assert (root.run, root.level) == ("B", "FAIL")
    assert "it read the same bits as launch" in root.reasons[0] and diff.coverage["B"].levels["FAIL"] == 1


def test_other_inputs_are_no_fault(tmp_path: Path) -> None:
    a = recorded(tmp_path / "a", steps=(0, 1, 0))
    b = recorded(tmp_path / "b", steps=(0, 1, 2))
    diff = compared(a, b)
    assert not diff.roots and "FAIL" not in diff.coverage["B"].levels

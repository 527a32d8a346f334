"""The first bad kernel of a run, and whether its fault follows its configuration."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import seeded
import torch
from recorded import judge, recorded

from torchport.cli.precision import bisect as command
from torchport.errors import OptionError
from torchport.precision.bisect import BisectResult, Trial, of_model, of_runs
from torchport.precision.steps import loss_of


def scaled(by: float) -> Any:
    return lambda value: value * (1 + by)


def test_the_first_bad_kernel_is_not_what_is_behind_it() -> None:
    found = of_runs(recorded(), recorded({"mm": scaled(1e-4), "mm_1": scaled(1e-2)}, target="chip"), judge)
    assert found.bad is not None
    assert found.bad.nodes == ("mm",) and found.bad.level == "FAIL" and found.bad.target == "chip"
    assert found.bad.other == "EXPECTED"
    assert found.judged == 1


def test_no_bad_kernel() -> None:
    found = of_runs(recorded(), recorded(), judge)
    assert found.bad is None and found.judged == 9 and found.command is None


def test_that_programs_differ_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No kernel is bad where the whole run computes something else."""
    found = of_runs(recorded(), recorded(seed=1), judge)
    assert found.bad is None and found.programs is not None and not found.programs.same
    runs = {"a": recorded(), "b": recorded(seed=1), "c": recorded({"mm": scaled(1e-3)})}
    monkeypatch.setattr(command.Run, "load", lambda path, **_: runs[Path(path).name])
    monkeypatch.setattr("torchport.precision.bisect.of_runs", lambda a, b, advance: of_runs(a, b, judge))

    def bisected(b: str, *, as_json: bool) -> tuple[int, str]:
        status = command.bisect(str(tmp_path / "a"), tmp_path / b, "cpu", 1, as_json=as_json)
        return status, capsys.readouterr().out

    status, out = bisected("b", as_json=False)
    assert status == 3 and out.startswith("The runs were given other inputs: B - A is not an error.")
    assert "input x_1" in out and "No kernel is beyond legal arithmetic" in out
    status, out = bisected("b", as_json=True)
    assert [one["name"] for one in json.loads(out)["programs"]["differences"]] == ["x_1", "w_1"]
    status, out = bisected("c", as_json=False)
    assert status == 1 and out.startswith("Same program")
    assert bisected("a", as_json=False)[0] == 0


def test_a_second_launch_with_other_bits_is_bad() -> None:
    run = recorded()
    flag = "nondeterministic: a second launch gave other bits in out"
    launches = [replace(one, flags=(flag,)) if one.nodes == ("exp",) else one for one in run.launches]
    found = of_runs(recorded(), replace(run, launches=launches), judge)
    assert found.bad is not None and found.bad.nodes == ("exp",) and found.bad.reasons == (flag,)


@pytest.mark.parametrize(("levels", "follows"), [
    (["FAIL", "EXPECTED", "FAIL"], "config"), (["FAIL", "FAIL"], "kernel"), (["FAIL", "not run: no"], ""),
    (["EXPECTED", "EXPECTED"], ""), (["SUSPECT"], ""),
])  # fmt: skip
def test_what_a_fault_follows(levels: list[str], follows: str) -> None:
    tried = tuple(Trial(f"XBLOCK={i}", level) for i, level in enumerate(levels))
    assert BisectResult(None, 0, {}, tried=tried).follows == follows


def test_a_model_whose_kernel_is_compiled_wrongly(tmp_path: Path, capsys: Any) -> None:
    with seeded.compiler(tmp_path / "cache"):
        found = of_model(seeded.model, seeded.inputs(), "cpu", repeat=2)
    assert found.bad is not None and "exp" in found.bad.nodes
    assert (found.runs, found.hits) == (2, 2)
    assert found.tried[0].bad and found.tried[0].config == found.bad.config
    assert found.follows == "config"  # the mistake is put into what is compiled as recorded only
    assert found.command is not None
    assert found.command.startswith(f"torchport quarantine add {found.bad.identity} --config '{found.bad.config}'")
    json.dumps(found.as_json(), allow_nan=False)
    command.show(found, None)
    printed = " ".join(capsys.readouterr().out.split())
    assert "is the first bad kernel" in printed and "the fault follows the configuration" in printed


def test_a_kernel_of_the_backward_pass_that_is_compiled_wrongly(tmp_path: Path) -> None:
    def wrong(source: str) -> str:
        return re.sub(r"(tl\.store\(.*), (tmp\d+), ", r"\1, \2 * 1.001, ", source) if "tanh_b" in source else source

    x, w, b = seeded.inputs()
    with seeded.compiler(tmp_path / "cache", wrong):
        found = of_model(seeded.model, (x.requires_grad_(), w, b / 64), "cpu", train=True)
    assert found.bad is not None and "tanh_b" in found.bad.kernel and found.bad.level == "FAIL"
    assert x.grad is None, "the user's inputs are as they were"
    with pytest.raises(OptionError, match="needs a gradient"):
        loss_of((torch.ones(3), 1))


def test_exit_status_and_json(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    right = recorded()
    launches = [replace(one, flags=("nondeterministic: other bits",)) for one in right.launches]
    runs = {"a": right, "b": replace(right, launches=launches)}
    monkeypatch.setattr(command.Run, "load", lambda path, trust: runs[str(path)])
    assert command.bisect("a", Path("a"), "cpu", 1, as_json=True) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["bad"] is None and sum(content["unverified"].values()) == content["judged"] == 9
    assert command.bisect("a", Path("b"), "cpu", 1, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["bad"]["nodes"] == ["mm"]
    with pytest.raises(OptionError, match="two run folders"):
        command.bisect(str(tmp_path), None, "cpu", 1, as_json=False)

"""One kernel taken out of a run: it shows what it showed there, made smaller, in a folder that runs alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import seeded
import torch

from torchport.errors import OptionError, RunError
from torchport.numerics.runs.reader import Launch, Run
from torchport.precision.bisect import try_blocks
from torchport.precision.case import KernelCase, case_of, execute, find, gate_of, judge_case, reproduced_on
from torchport.precision.explain import explain_launch
from torchport.precision.reproduce import load_case, reproduce, rerun, write_case


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Recorded with the wrong compiler, which is gone now."""
    folder = tmp_path_factory.mktemp("seeded")
    with seeded.compiler(folder / "cache"):
        return Run.load(seeded.recorded(folder / "run"), trust=True)


def wrong(run: Run) -> Launch:
    return find(run, "exp")


def test_kernels_are_found_by_every_name(run: Run) -> None:
    launch = wrong(run)
    kernel = run.kernels[launch.kernel or ""]
    assert launch == find(run, kernel["function"]) == find(run, (launch.kernel or "")[:8]) == find(run, str(launch.seq))
    assert find(run, "exp", launch.seq) == launch
    with pytest.raises(OptionError, match=r"no kernel 'nothing'; it has: .*triton_poi_fused"):
        find(run, "nothing")
    with pytest.raises(OptionError, match="launch 0 of"):
        find(run, "exp", 0)
    with pytest.raises(OptionError, match=r"aten\.mm"):
        case_of(run, find(run, "mm"))


def test_gates() -> None:
    assert gate_of(["exp: results are biased by 3 sigma (limit 1)", "x: an element is off"]) == "bias"
    assert gate_of(["3 x NaN"]) == "classes" and gate_of([]) == ""


def test_only_the_recorded_results_show_it(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = case_of(run, wrong(run))
    recorded = judge_case(case, case.recorded)
    assert recorded.level == "FAIL"
    assert judge_case(case, execute(case)).level in ("EXACT", "EXPECTED")
    made = reproduce(case, 30)
    assert made.target is None and "EXPECTED" in made.notes[0]
    assert made.found.kind == recorded.kind
    assert (made.before.programs, made.after.programs) == (3, 2)
    assert made.after.elements <= made.before.elements and made.trials <= 30
    write_case(tmp_path, made, "run", 3)
    assert rerun(tmp_path) == 1
    printed = capsys.readouterr().out
    assert "recorded on cpu; it does not show here" in printed and "instead of" in printed
    right = execute(load_case(tmp_path)[0], "cpu")
    write_case(tmp_path, replace(made, case=replace(made.case, recorded=right)), "run", 3)
    assert rerun(tmp_path) == 0
    assert "not reproduced: expected FAIL" in capsys.readouterr().out


def test_the_script_runs_the_kernel_alone(run: Run, tmp_path: Path) -> None:
    """The compiler's mistake in the kernel's source: every compiler makes it, and TTIR is still right."""
    case = case_of(run, wrong(run))
    case = replace(case, source=seeded.broken(case.source))
    made = reproduce(case, 12)
    assert made.target == "cpu"
    assert made.found.kind == judge_case(case, case.recorded).kind
    assert made.after.programs == 2
    assert made.after.elements < made.before.elements and made.after.bytes < made.before.bytes
    folder = tmp_path / "alone"
    write_case(folder, made, "run", 3)
    names = {"config.json", "inputs.safetensors", "kernel.py", "kernel.ttir", "nodes.json", "nodes.txt", "run.py"}
    assert {file.name for file in folder.iterdir()} == names
    config = json.loads((folder / "config.json").read_text())
    assert config["expected"]["level"] == "FAIL" and "XBLOCK=" in config["config"]
    assert "exp: aten.exp.default" in (folder / "nodes.txt").read_text()
    done = subprocess.run([sys.executable, str(folder / "run.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "reproduced" and "instead of" in done.stdout
    (folder / "kernel.py").write_text(run.kernels[wrong(run).kernel or ""]["source"])
    assert rerun(folder, trust=True) == 0


def test_a_target_that_is_not_here(run: Run) -> None:
    case = replace(case_of(run, wrong(run)), target="nowhere")
    target, notes = reproduced_on(case, ("FAIL", "bias"))
    assert target is None
    assert "nowhere" in notes[0] and notes[1].startswith("cpu gives")


def test_folders_that_are_none(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"config\.json cannot be read: No such file"):
        load_case(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read as JSON"):
        load_case(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "other"}')
    with pytest.raises(RunError, match="'other'"):
        load_case(tmp_path)
    assert rerun(tmp_path) == 2
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("")
    with pytest.raises(RunError, match="not empty"):
        write_case(taken, reproduce(case_of(run, wrong(run)), 0), "run", 3)


def test_explained_in_words(run: Run) -> None:
    found = explain_launch(run, wrong(run))
    assert found.level == "FAIL" and any("exp = aten.exp.default" in one for one in found.computes)
    assert any("seeded.py" in line and "torch.exp" in line for line in found.lines)
    assert found.worst and "rightly rounded" in found.where[0]
    assert any("repro" in line for line in found.advice)
    json.dumps(found.as_json(), allow_nan=False)
    right = explain_launch(run, find(run, "tanh"))
    assert right.level in ("EXACT", "EXPECTED") and right.advice == ("Nothing needs to be done.",)
    operator = explain_launch(run, find(run, "mm"))
    assert operator.method == "FX nodes in float64"


def test_other_block_sizes(run: Run) -> None:
    """Other block sizes give the same values; a fault that all of them have is the kernel's."""
    case = case_of(run, find(run, "exp"))
    right = try_blocks(case, steps=2)
    assert len(right) == 3 and not any(one.bad for one in right)
    assert len({one.config for one in right}) == len(right)

    def wrong(case: KernelCase, target: str) -> Mapping[int, torch.Tensor]:
        return {number: values * 1.001 for number, values in execute(case, target).items()}

    tried = try_blocks(case, wrong, steps=1)
    assert [one.bad for one in tried] == [True, True]

"""Where the first call's time goes: the clock, torch's events, and the command in processes of their own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import torch

from torchport import phases
from torchport.cli.profile import command
from torchport.cli.profile.command import profile
from torchport.cli.profile.measured import Measured, Profile
from torchport.cli.profile.picture import page, timeline
from torchport.errors import OptionError, TorchportError
from torchport.files import read_json
from torchport.phases import MAIN, Phase
from torchport.runtime import torch_phases

MODELS = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()), (torch.rand(2, 8),)

def nothing():
    return (lambda x: x), (1,)

def changing():
    seen = []  # Dynamo finds another length in the second call
    def model(x):
        seen.append(1)
        return x + len(seen)
    return model, (torch.rand(4),)

def broken():
    raise ValueError("the weights are not there")
"""


@pytest.fixture
def clock() -> Iterator[None]:
    phases.start()
    yield
    phases.stop()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "models.py"
    path.write_text(MODELS)
    return path


def test_nothing_is_measured_when_it_is_off() -> None:
    with phases.phase(Phase.LLVM):
        assert not phases.inside(Phase.LLVM)
    assert phases.stop() == [] and phases.take() == []


def test_what_phases_take_themselves_adds_up(clock: None) -> None:
    started = time.perf_counter()
    with phases.phase(Phase.RUNNING):
        time.sleep(0.02)
        with phases.phase(Phase.DYNAMO), phases.phase(Phase.IMPORTS, "a"):
            time.sleep(0.03)
        with phases.phase(Phase.IMPORTS, "b"):
            time.sleep(0.01)
    wall = time.perf_counter() - started
    spans = phases.take()
    found = phases.totals(spans)
    assert sum(seconds for seconds, _ in found.values()) == pytest.approx(wall, rel=0.02)
    assert list(found) == [Phase.DYNAMO, Phase.IMPORTS, Phase.RUNNING]
    assert found[Phase.IMPORTS][0] >= 0.04 and found[Phase.RUNNING][0] >= 0.02 and found[Phase.DYNAMO][0] < 0.01
    assert [(span.detail, span.depth) for span in spans] == [("a", 2), ("", 1), ("b", 1), ("", 0)]
    assert found[Phase.IMPORTS][1] < 0.03  # it slept


def test_threads_and_other_processes_are_lanes_of_their_own(clock: None) -> None:
    def work() -> None:
        with phases.phase(Phase.LLVM):
            pass

    with phases.phase(Phase.RUNNING):
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        thread.join()
    spans = phases.take()
    phases.merge(spans, "compile process 1")
    assert [span.lane for span in spans] == ["worker", MAIN] and spans[0].depth == 0
    assert {span.lane for span in phases.stop()} == {"compile process 1"}


OBSERVE = """
from torchport import phases
from torchport.runtime import torch_phases
torch_phases.observe(lambda span: print(span.phase.value, span.detail))
from torch._dynamo.utils import dynamo_timed
phases.start()
with dynamo_timed("dynamo"), dynamo_timed("what torchport does not know"), dynamo_timed("build_guards"):
    import tabnanny
print(*((span.phase.value, span.detail) for span in phases.stop()))
"""


def test_torchs_events_and_imports_are_phases() -> None:
    result = processes.run(OBSERVE)
    assert result.stdout.splitlines() == [
        "Dynamo dynamo",
        "('imports', 'tabnanny') ('guards', 'build_guards') ('Dynamo', 'dynamo')",
    ], result.stderr


def test_debug_prints_each_compilation_by_phase() -> None:
    program = (
        "import torch\n"
        "model = torch.compile(torch.nn.GELU(), backend='torchport')\n"
        "with torch.no_grad(): model(torch.rand(4)); model(torch.rand(4))"
    )
    result = processes.run(program, environment={"TORCHPORT_DEBUG": "2", "TORCHPORT_COMPILE_AHEAD": "0"})
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    (first,) = [number for number, line in enumerate(lines) if "s of compiling, by phase" in line]
    rows = [line.split() for line in lines[first + 1 :] if line.startswith("  ")]
    total = float(lines[first].split()[1])
    assert sum(float(row[-2]) for row in rows) == pytest.approx(total, abs=0.02)
    assert rows[0][0] == "Dynamo"


def measure(capsys: pytest.CaptureFixture[str], model: str, others: str = "", *, warm: bool = False) -> Any:
    profile(model, others, None, warm=warm, as_json=True)
    return json.loads(capsys.readouterr().out)


def test_the_profile_of_a_model_adds_up(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = measure(capsys, f"{models}:make", "eager-floor")
    assert set(report) == {"schema", "model", "torch", "machine", "cores", "runs"} and report["schema"] == 1
    ours, floor = report["runs"]
    assert (ours["backend"], ours["start"], floor["backend"]) == ("torchport", "cold", "eager-floor")
    known = {phase.value for phase in Phase}
    for run in (ours, floor):
        assert set(run) == {
            "backend", "start", "wall_s", "cpu_s", "second_call_s", "second_call_compiles", "import_torch_s", "make_s",
            "graphs", "phases", "helpers", "passes", "imports", "spans",
        }  # fmt: skip
        assert sum(row["wall_s"] for row in run["phases"]) == pytest.approx(run["wall_s"], rel=0.02)
        assert sum(row["cpu_s"] for row in run["phases"]) == pytest.approx(run["cpu_s"], rel=0.05)
        assert {row["phase"] for row in run["phases"]} <= known
        assert run["graphs"] == 1 and not run["second_call_compiles"] and run["second_call_s"] < run["wall_s"]
        assert all(span["start_s"] >= -1e-6 and span["seconds"] >= 0 for span in run["spans"])
    found = {row["phase"] for row in ours["phases"]}
    assert {"Dynamo", "AOTAutograd", "imports", "running", "code generation", "lowering"} <= found
    passes = {row["name"] for row in ours["passes"]}
    assert "lower-nests" in passes and not floor["passes"]
    assert ours["helpers"]["cpu_s"] >= sum(row["cpu_s"] for row in ours["helpers"]["phases"]) - 0.05


@pytest.mark.slow
def test_a_warm_start_compiles_no_kernel(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = measure(capsys, f"{models}:make", warm=True)["runs"]
    found = {row["phase"] for row in run["phases"]}
    assert run["start"] == "warm" and "imports" in found
    assert not found & {"LLVM", "torchport's passes", "scheduling"} and not run["helpers"]["phases"]


@pytest.mark.parametrize(
    ("model", "others", "output", "said"),
    [
        ("{models}:make", "tvm", None, "--backend 'tvm' is not known; valid: torchport, inductor, eager-floor"),
        ("{models}:make", "", "profile.png", "the picture is an .svg or an .html file"),
        ("{models}:make", "", "absent/profile.svg", "there is no folder absent"),
        ("{models}:absent", "", None, "has no function 'absent'"),
        ("absent.py:make", "", None, "'absent.py:make' names no file"),
    ],
)
def test_errors_say_what_is_wrong(models: Path, model: str, others: str, output: str | None, said: str) -> None:
    with pytest.raises(OptionError, match=said.replace(".", r"\.")):
        profile(model.format(models=models), others, output and Path(output), warm=False, as_json=True)


def test_a_second_call_that_compiles_again_is_shown(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = models.parent / "changing.json"
    program = "import sys; from torchport.cli.profile.worker import main; main(*sys.argv[1:])"
    assert processes.run(program, f"{models}:changing", "aot_eager", str(result)).returncode == 0
    measured = read_json(result, Measured)
    assert measured.second_compiles
    assert "ms: it compiles again" in command._beside(Profile.of("eager-floor", "cold", measured))


def test_a_model_that_compiles_nothing_is_an_error(models: Path) -> None:
    program = "import sys; from torchport.cli.profile.worker import main; main(*sys.argv[1:])"
    result = models.parent / "result.json"
    assert processes.run(program, f"{models}:nothing", "aot_eager", str(result)).returncode == 0
    assert "nothing compiles nothing: Dynamo found no operations" in json.loads(result.read_text())["error"]


def test_a_function_that_raises_is_shown(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TorchportError, match=r"ended with status 1; what it printed is above"):
        profile(f"{models}:broken", "", None, warm=False, as_json=True)
    assert "ValueError: the weights are not there" in capfd.readouterr().err


def test_the_picture_has_a_lane_for_each_process() -> None:
    spans = (
        ("running", "", MAIN, 0, 0.0, 2.0, 1.0, 1.0),
        ("code generation", "<b>", MAIN, 1, 0.5, 1.0, 1.0, 1.0),
        ("LLVM", "kernel", "compile process 1", 0, 0.7, 0.5, 0.5, 0.5),
        ("LLVM", "too short to see", "compile process 1", 0, 1.3, 1e-5, 1e-5, 1e-5),
    )
    one = Profile.of("torchport", "cold", Measured(1.0, 0.0, 2.0, 2.0, 0.1, False, 0.5, spans))
    picture = timeline("model.py:make", [one])
    assert picture.count(">compile process 1<") == 1 and "LLVM (kernel): 500.0 ms" in picture
    assert "code generation (&lt;b&gt;): 1000.0 ms" in picture and "too short" not in picture
    assert picture in page("model.py:make", [one]) and "<td>2.000<td>2.000" in page("model.py:make", [one])
    assert one.helpers() == {Phase.LLVM: pytest.approx(0.50001)}
    assert one.longest(Phase.LLVM, 1) == [("kernel", 0.0, 0.5)]


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="older versions have fewer events")
def test_every_event_that_is_named_is_one_of_torchs() -> None:
    text = "".join(path.read_text() for path in Path(torch.__file__).parent.glob("_*/**/*.py"))
    missing = [name for name in torch_phases.EVENTS if f'"{name}"' not in text]
    assert missing == []

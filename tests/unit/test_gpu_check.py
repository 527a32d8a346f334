"""tools/gpu_check.py: its bookkeeping, and its steps with the CPU in a chip's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu_check
import pytest
import torch
from gpu_checks import attention, dots, marked_tests, offline, running
from gpu_checks.machine import Machine, environment
from gpu_checks.plan import plan
from gpu_checks.running import SKIPPED, Step, run
from gpu_checks.state import State

STAND_IN = Machine("cpu", "cpu", "the CPU as h100", "h100", stand_in=True)
GIVEN = ["--target", "cpu", "--device", "cpu", "--profile", "h100", "--stand-in", "--quick"]
LEAVE = "import json, sys; json.dump({'summary': 'fine'}, open(sys.argv[1], 'w'))"
CONTINUE = (
    "import json, os, sys, time\n"
    "rows = json.load(open(sys.argv[1]))['rows'] if os.path.exists(sys.argv[1]) else 0\n"
    "json.dump({'rows': rows + 1, 'summary': f'{rows + 1} rows'}, open(sys.argv[1], 'w'))\n"
    "if rows < 1: time.sleep(60)\n"
)


def step(name: str, code: str, seconds: float = 1.0, limit: float = 30.0) -> Step:
    return Step(name, f"what {name} does", (sys.executable, "-c", code, "{out}"), seconds, limit)


def checked(path: Path, steps: list[Step], total: float = 100.0, *, failed: bool = True) -> tuple[int, dict[str, Any]]:
    state = State(path, {"sources": "1"}, [one.name for one in steps])
    state.resume(failed=failed)
    status = gpu_check.check(steps, state, total)
    return status, json.loads(path.read_text())


def test_one_step_that_fails_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        step("raises", "raise ValueError('a fault')"),
        step("killed", "import os; os.kill(os.getpid(), 9)"),
        step("silent", "pass"),
        step("no program", "pass"),
        step(
            "skips",
            f"import json, sys; json.dump({{'skipped': 'not here'}}, open(sys.argv[1], 'w')); sys.exit({SKIPPED})",
        ),
        step("passes", LEAVE),
    ]
    steps[3] = Step("no program", "", (str(tmp_path / "nothing"),), 1.0, 30.0)
    status, found = checked(tmp_path / "gpu.json", steps)
    assert status == 1
    assert found["complete"]
    assert {name: one["status"] for name, one in found["steps"].items()} == {
        "raises": "failed", "killed": "failed", "silent": "failed", "no program": "failed", "skips": "skipped",
        "passes": "passed",
    }  # fmt: skip
    assert "a fault" in found["steps"]["raises"]["tail"]
    assert found["steps"]["killed"]["reason"] == "SIGKILL"
    assert found["steps"]["silent"]["reason"] == "it left no result"
    assert found["steps"]["skips"]["reason"] == "not here"
    assert found["steps"]["passes"]["result"] == {"summary": "fine"}
    printed = capsys.readouterr().out
    assert "[6/6] passes: passed after 0 s  fine" in printed
    assert printed.splitlines()[-8].split() == ["step", "status", "seconds"]


def test_a_step_that_hangs_is_stopped_with_its_children_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1] + '.pid', 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    path = tmp_path / "gpu.json"
    steps = [step("slow", CONTINUE, limit=1.0), step("after", LEAVE)]
    status, found = checked(path, steps)
    assert (status, found["complete"]) == (3, False)
    assert found["steps"]["slow"]["status"] == "timeout"
    assert found["steps"]["slow"]["result"]["rows"] == 1  # what it wrote before it was stopped
    assert found["steps"]["after"]["status"] == "passed"
    before = found["steps"]["after"]
    status, found = checked(path, steps)
    assert (status, found["complete"]) == (0, True)
    assert found["steps"]["slow"]["result"]["rows"] == 2
    assert found["steps"]["after"] == before
    monkeypatch.setattr(running, "_GRACE", 0.5)
    started = time.monotonic()
    result = run(step("stubborn", stubborn), tmp_path / "work", 3.0, os.environ)
    assert result["status"] == "timeout"
    assert time.monotonic() - started < 25
    child = int((tmp_path / "work" / "stubborn.json.pid").read_text())
    time.sleep(0.2)
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]


def test_the_total_limit(tmp_path: Path) -> None:
    steps = [step("first", LEAVE), step("long", LEAVE, seconds=500, limit=900), step("short", LEAVE)]
    status, found = checked(tmp_path / "gpu.json", steps, total=50)
    assert status == 3
    assert [one["status"] for one in found["steps"].values()] == ["passed", "not run", "passed"]
    assert "were left of 50" in found["steps"]["long"]["reason"]
    status, found = checked(tmp_path / "gpu.json", steps, total=600)
    assert (status, found["steps"]["long"]["status"]) == (0, "passed")


def test_what_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    steps = [step("counts", CONTINUE.replace("if rows < 1: time.sleep(60)", "sys.exit(rows < 1)"))]
    assert checked(path, steps)[0] == 1
    assert checked(path, steps)[1]["steps"]["counts"]["result"]["rows"] == 1  # it failed: that is a result
    assert checked(path, steps, failed=False)[1]["steps"]["counts"]["result"]["rows"] == 1  # anew, from nothing
    other = State(path, {"sources": "2"}, ["counts"])
    assert "another sources" in other.resume()
    assert other.steps["counts"] == {"status": "not run"}
    assert not other.work.exists()  # rows of other sources are not continued
    for text in ("{", "[]", '{"schema": "other"}'):
        path.write_text(text)
        assert "written anew" in State(path, {}, ["counts"]).resume()


def test_the_file_is_whole_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path / "gpu.json", {}, ["a", "b"])
    state.put("a", {"status": "passed"})
    monkeypatch.setattr(json, "dumps", lambda *_, **__: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        state.put("b", {"status": "passed"})
    monkeypatch.undo()
    assert json.loads((tmp_path / "gpu.json").read_text())["steps"]["b"] == {"status": "not run"}
    assert [file.name for file in tmp_path.iterdir()] == ["gpu.json"]


def test_an_interrupt_keeps_what_is_there(tmp_path: Path) -> None:
    code = (
        "import sys, gpu_check\nfrom pathlib import Path\nfrom gpu_checks.running import Step\n"
        "from gpu_checks.state import State\n"
        "leave, wait = (Step(n, '', (sys.executable, '-c', c, '{out}'), 1, 60) for n, c in zip('ab', sys.argv[2:]))\n"
        "state = State(Path(sys.argv[1]), {}, ['a', 'b'])\n"
        "sys.exit(gpu_check.check([leave, wait], state, 100))\n"
    )
    path = tmp_path / "gpu.json"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path), LEAVE, "import time; time.sleep(60)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(600):
        time.sleep(0.1)
        if path.exists() and json.loads(path.read_text())["steps"]["a"]["status"] == "passed":
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=30)
    assert (process.returncode, "goes on from here" in printed) == (3, True)
    found = json.loads(path.read_text())["steps"]
    assert (found["a"]["status"], found["b"]["reason"]) == ("passed", "interrupted")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("no GPU is here")
    assert gpu_check.main(["--dry"]) == 0
    listed = capsys.readouterr().out
    assert all(one.name in listed for one in plan(STAND_IN))
    assert "about" in listed


def test_unknown_steps_and_the_environment() -> None:
    with pytest.raises(SystemExit):
        gpu_check.main(["--target", "cpu", "--stand-in", "h100", "--only", "nothing"])
    assert environment(STAND_IN) == environment(STAND_IN)
    assert len(environment(STAND_IN)["sources"]) == 16


def test_bits_of_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "dots.json"
    assert dots.main([*GIVEN, "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert {key.split()[0] for key in rows} >= {"f16", "bf16", "tf32", "e4m3"}
    assert all(row["same"] == row["of"] == 4096 for row in rows.values())
    removed = next(key for key in rows if key.startswith("bf16"))
    kept = {key: row for key, row in rows.items() if key != removed}
    out.write_text(json.dumps({"rows": kept}))  # as if it had been stopped
    launches: list[str] = []
    own = dots.launched

    def wrong(*given: Any, **named: Any) -> Any:
        found, code = own(*given, **named)
        launches.append(given[2])
        return (found + (len(launches) % 2 == 0), code)

    monkeypatch.setattr(dots, "launched", wrong)
    assert dots.main([*GIVEN, "--out", str(out)]) == 1  # a bit that differs is a failure
    assert len(launches) == 2
    found = json.loads(out.read_text())
    assert removed in found["failed"]
    assert found["rows"][removed]["same"] < 4096
    assert found["rows"][removed]["first"][0]["measured"] != found["rows"][removed]["first"][0]["predicted"]
    unknown = ["--target", "cpu", "--device", "cpu", "--out", str(tmp_path / "none.json")]
    assert dots.main(unknown) == SKIPPED
    assert "no profile" in json.loads((tmp_path / "none.json").read_text())["skipped"]


def test_kernels_compiled_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "CASES", {"sum and relu": offline.CASES["sum and relu"]})
    out = tmp_path / "offline.json"
    assert offline.main([*GIVEN, "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert all(row["known"] and row["same"] == row["of"] for row in rows.values())
    own = offline.measured
    monkeypatch.setattr(offline, "measured", lambda *given: own(*given) + 1e-6)
    assert offline.main([*GIVEN, "--out", str(tmp_path / "other.json")]) == 1


@pytest.mark.slow
def test_attention(tmp_path: Path) -> None:
    out = tmp_path / "attention.json"
    assert attention.main([*GIVEN, "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert rows["float32 size 64 causal 64"]["error"] < 2


def test_aims_and_marked_tests() -> None:
    slow = {"forward": [2.0, 1.0, 0.5], "backward": [1.0, 1.0, 1.0], "error": 3.0}
    assert len(list(attention.missed("bfloat16 size 64 causal 512", slow))) == 2
    assert len(list(attention.missed("bfloat16 size 128 full 512", slow))) == 1
    assert list(attention.missed("bfloat16 size 128 full 512", {"error": "out of memory"}))
    assert [Path(file).name for file in marked_tests.files()] == ["test_gpu.py"]

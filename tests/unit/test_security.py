"""Files from strangers: opening a run folder runs none of its code and touches nothing outside of it
(docs/security.md)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import seeded
import torch

from torchport.cli.precision.bisect import bisect
from torchport.cli.precision.diff import diff
from torchport.cli.precision.explain import explain
from torchport.cli.precision.repro import repro
from torchport.errors import CompilationError, TorchportError
from torchport.numerics.graphs.dump import FORMAT
from torchport.numerics.graphs.evaluate import NotEvaluated, evaluate
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.operators.calls import operator_call
from torchport.numerics.verdicts.replay import Argument, NotReplayable, Replay
from torchport.plugin import Binary
from torchport.precision import reproduce
from torchport.precision.bisect import BisectResult, FirstBadKernel, Trial
from torchport.triton import driver


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    with seeded.compiler(folder / "cache"):
        return seeded.recorded(folder / "run")


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy to change. Kernels' sources leave a file behind where they are executed."""
    copy = tmp_path / "run"
    for file in recorded.rglob("*.*"):
        (copy / file.relative_to(recorded)).parent.mkdir(parents=True, exist_ok=True)
        (copy / file.relative_to(recorded)).write_bytes(file.read_bytes())
    for file in (copy / "kernels").iterdir():
        kernel = json.loads(file.read_text())
        kernel["source"] = f"open({str(tmp_path / 'executed')!r}, 'w').close()\n{kernel['source']}"
        file.write_text(json.dumps(kernel))
    yield copy


def changed(run: Path, change: Any) -> None:
    """Change the first kernel's launch."""
    file = run / "launches.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(next(line for line in lines if line["kind"] == "kernel"))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def levels(run: Path) -> dict[str, int]:
    file = run.parent / "diff.json"
    diff(run, run, None, file, None, None, "fail", 5)
    return dict(json.loads(file.read_text())["coverage"]["B"]["levels"])


def test_no_source_is_executed_but_with_trust(run: Path, tmp_path: Path) -> None:
    assert levels(run).get("FAIL") == 1
    assert bisect(str(run), run, "cpu", 1, as_json=True) == 1
    explain(run, "exp", None, as_json=True)
    repro(run, "exp", tmp_path / "made", None, 5, trust=False)
    assert json.loads((tmp_path / "made" / "config.json").read_text())["compiled"] == "ttir"
    assert reproduce.rerun(tmp_path / "made") == 1
    assert not (tmp_path / "executed").exists()
    repro(run, "exp", tmp_path / "trusted", None, 5, trust=True)
    assert (tmp_path / "executed").exists()


def test_what_is_executed_has_nothing_of_the_run_in_it(run: Path, tmp_path: Path) -> None:
    for file in (run / "kernels").iterdir():
        file.write_text(file.read_text().replace('"function": "triton', '"function": "../x\\"\\"\\"; triton'))
    hostile = run.with_name('"""\nimport os\nos.abort()\n"""')
    run.rename(hostile)
    repro(hostile, "exp", tmp_path / "made", None, 0, trust=False)
    assert (tmp_path / "made" / "run.py").read_text() == reproduce._SCRIPT


@pytest.mark.parametrize(
    "change",
    [
        lambda launch: launch.update(grid=[300000, 1, 1]),
        lambda launch: launch.update(grid=[2**31 - 1, 2**31 - 1, 2**31 - 1]),
        lambda launch: launch.update(grid=[]),
        lambda launch: next(a for a in launch["args"] if a["role"] != "scalar").update(offset=10**12),
        lambda launch: next(a for a in launch["args"] if a["role"] != "scalar").update(shape=[2**40], stride=[0]),
        lambda launch: next(a for a in launch["args"] if a["role"] != "scalar").update(stride=[-1, 1]),
        lambda launch: next(a for a in launch["args"] if a["role"] != "scalar").update(role="scalar", storage=None),
        lambda launch: next(a for a in launch["args"] if a["role"] != "scalar").update(before="../../etc/passwd"),
        lambda launch: next(a for a in launch["args"] if "numel" in a["name"]).update(value=None),
        lambda launch: next(a for a in launch["args"] if "numel" in a["name"]).update(value=0.5),
    ],
)
def test_a_launch_that_does_not_fit_its_tensors_has_no_verdict(run: Path, change: Any) -> None:
    """Each of these crashed, or would have read or written other memory."""
    before = sum(levels(run).values())
    changed(run, change)
    found = levels(run)
    assert found.get("UNVERIFIED", 0) == 1 or sum(found.values()) == before - 1


def node(target: str, *args: Any) -> dict[str, Any]:
    x = {"name": "x", "op": "placeholder", "target": "x", "args": [], "kwargs": {}, "value": None}
    called = {"name": "y", "op": "call_function", "target": target, "args": list(args), "kwargs": {}, "value": None}
    return {"format": FORMAT, "nodes": [x, called], "outputs": ["y"], "constants": {}}


@pytest.mark.parametrize(
    ("target", "args"),
    [
        ("aten.from_file.default", ["FILE", True, 16]),
        ("aten.set_.source_Storage", [{"node": "x"}, "FILE"]),
        ("aten.warn.default", ["text"]),
        ("aten.manual_seed.default", [3]),
        ("operator.methodcaller", ["tofile", "FILE"]),
        ("operator.attrgetter", ["__class__"]),
        ("operator.call", [{"node": "x"}]),
        ("operator.mul", ["x", 10**15]),
        ("operator.pow", [10, 10**12]),
        ("load_library.__func__.__globals__", ["FILE"]),
        ("profiler._record_function_enter_new.default", ["text"]),
        ("prims.nothing.default", []),
        ("aten.clone", []),
        ("", []),
    ],
)
def test_graphs_call_only_what_computes(tmp_path: Path, target: str, args: list[Any]) -> None:
    args = [str(tmp_path / "file") if one == "FILE" else one for one in args]
    with pytest.raises(NotEvaluated):
        evaluate(node(target, *args), {"x": torch.ones(3)})
    launch = Launch(0, "g", 0, "extern", operation=target)
    assert operator_call(Run(tmp_path, {}, {}, {}, []), launch) is None
    assert not list(tmp_path.iterdir())


def test_what_computes_is_called() -> None:
    assert evaluate(node("aten.gelu.default", {"node": "x"}), {"x": torch.ones(3)})["y"].dtype == torch.float64
    assert evaluate(node("operator.pow", {"node": "x"}, 2), {"x": 3})["y"] == 9


KERNEL = """module {{
  {more}
  tt.func public @kernel(%x: !tt.ptr<f32>, %n: i64) attributes {{noinline = false}} {{
    %one = arith.constant 1.000000e+00 : f32
    {body}
    tt.return
  }}
}}
"""


def launched(body: str, more: str = "", n: int = 0, trusted: bool = False) -> torch.Tensor:
    arguments = [Argument("x", "*fp32", None, 0, torch.float32, (4,), (1,)), Argument("n", "i64", n)]
    return Replay(KERNEL.format(body=body, more=more), arguments, (1, 1, 1), trusted=trusted).run({0: torch.zeros(4)})[
        0
    ]


STORE = "%p = tt.addptr %x, %n : !tt.ptr<f32>, i64\n    tt.store %p, %one : !tt.ptr<f32>"


def test_a_kernel_stays_in_its_arguments() -> None:
    assert launched(STORE, n=3).tolist() == [0, 0, 0, 1] == launched(STORE, n=3, trusted=True).tolist()
    for n in (4, -1, 2**40, -(2**61)):
        with pytest.raises(NotReplayable, match=r"store of argument 0 .* its storage"):
            launched(STORE, n=n)


@pytest.mark.parametrize(
    ("body", "more"),
    [
        ("%p = tt.int_to_ptr %n : i64 -> !tt.ptr<f32>\n    tt.store %p, %one : !tt.ptr<f32>", ""),
        ("%p = llvm.inttoptr %n : i64 to !llvm.ptr\n    llvm.store %one, %p : f32, !llvm.ptr", ""),
        ('llvm.inline_asm has_side_effects "ud2", "" : () -> ()', ""),
        ("tt.call @abort() : () -> ()", "tt.func private @abort() attributes {noinline = true}"),
        ("llvm.call @abort() : () -> ()", "llvm.func @abort()"),
        (
            "tt.call @a() : () -> ()",
            "tt.func private @a() attributes {noinline = true} { tt.call @b() : () -> ()\n tt.return\n }\n"
            "tt.func private @b() attributes {noinline = true} { tt.call @a() : () -> ()\n tt.return\n }",
        ),
        ('tt.print "text: " {hex = false, isSigned = array<i32: 1>} : %n : i64', ""),
        ("cf.br ^next(%x : !tt.ptr<f32>)\n  ^next(%p: !tt.ptr<f32>):\n    tt.store %p, %one : !tt.ptr<f32>", ""),
    ],
)
def test_a_kernel_computes_and_does_nothing_else(body: str, more: str) -> None:
    with pytest.raises(TorchportError):
        launched(body, more)


def test_an_address_is_no_argument() -> None:
    arguments = [Argument("x", "*fp32", 4096), Argument("n", "i64", 0)]
    with pytest.raises(NotReplayable, match="argument x is an address"):
        Replay(KERNEL.format(body=STORE, more=""), arguments, (1, 1, 1)).run({})
    arguments = [Argument("x", "i64", 4096), Argument("n", "i64", 0)]
    with pytest.raises(CompilationError, match="would be called with"):
        Replay(KERNEL.format(body=STORE, more=""), arguments, (1, 1, 1)).run({})


@pytest.mark.parametrize("format_", ["../../file", "json", "", "a/b"])
def test_a_binary_s_format_is_no_path(format_: str) -> None:
    with pytest.raises(CompilationError, match="no format of machine code"):
        driver.TritonDriver("cuda").load(Binary(b"x", format_, "kernel", metadata={"hash": "0"}), [])


def test_a_binary_s_symbol_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(source: Any, files: dict[str, str], hash_: str) -> Any:
        seen.extend(files.values())
        raise RuntimeError("seen")

    seen: list[str] = []
    monkeypatch.setattr("torchport.triton.compat.CompiledKernel", opened)
    with pytest.raises(CompilationError, match="seen"):
        driver.TritonDriver("cuda").load(Binary(b"x", "cubin", "/tmp/../file", metadata={"hash": "0"}), [])
    assert sorted(Path(one).name for one in seen) == ["kernel.cubin", "kernel.json"]


def test_the_command_that_is_shown_is_quoted() -> None:
    words = "x'; touch /tmp/file; '"
    bad = FirstBadKernel(1, "k", "key", words, (), "", "FAIL", (words,), words, words)
    command = BisectResult(bad, 1, {}, tried=(Trial(words, "FAIL"),)).command
    assert command is not None
    assert shlex.split(command) == [
        "torchport", "quarantine", "add", words, "--config", words, "--target", words, "--reason", words,
    ]  # fmt: skip

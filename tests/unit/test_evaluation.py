"""``torchport eval``: a suite is read, cells are measured apart, and what became of each is in one report."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from torchport.cli.evaluate import evaluate
from torchport.errors import ArtifactError, OptionError, TargetError
from torchport.evaluation import baseline, running
from torchport.evaluation import state as state_module
from torchport.evaluation.cell import Job
from torchport.evaluation.measure import accuracy, errors_of, less_accurate, task
from torchport.evaluation.models import entries, names
from torchport.evaluation.models.registry import TRANSFORMERS
from torchport.evaluation.page import page
from torchport.evaluation.ranks import ranks, similar_order, spearman
from torchport.evaluation.report import level_of, read
from torchport.evaluation.state import State, cells_of
from torchport.evaluation.suite import load_suite
from torchport.evaluation.targets import columns, parse
from torchport.evaluation.verdicts import recorded, verdicts
from torchport.files import parse_json
from torchport.precision.statistics import median_interval
from torchport.signing import content_hash

MODELS = """
import os, time, torch

class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(16, 32), torch.nn.Linear(32, 5)

    def forward(self, x):
        return {"logits": self.b(torch.nn.functional.gelu(self.a(x)))}

def good():
    torch.manual_seed(0)
    return Small(), (torch.randn(9, 16),)

class Drops(Small):
    def forward(self, x):
        return {"logits": torch.nn.functional.dropout(super().forward(x)["logits"], 0.5, training=True)}

def drops():
    torch.manual_seed(0)
    return Drops(), (torch.randn(9, 16),)

def aborts():
    os.abort()

def sleeps():
    time.sleep(600)

def grows():
    held = torch.ones(1 << 28)  # 1 GiB, touched
    time.sleep(600)

def wrong():
    raise RuntimeError("no weights <b>here</b>")
"""
SUITE = """
targets = ["cpu", "h100(emulated)", "null(compiled)", "linalg:ascend"]
timeout = 60
memory = "{memory}"
rounds = 3
[[model]]
name = "good"
make = "models.py:good"
kind = "classes"
output = "logits"
"""


def suite_file(folder: Path, *more: str, memory: str = "8G") -> Path:
    (folder / "models.py").write_text(MODELS)
    path = folder / "suite.toml"
    path.write_text(
        SUITE.format(memory=memory) + "".join(f'[[model]]\nname = "{n}"\nmake = "models.py:{n}"\n' for n in more)
    )
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    assert evaluate(str(suite_file(folder)), None, folder / "out") == 0
    return folder


def test_a_report_of_a_small_suite(measured: Path) -> None:
    document = read(measured / "out" / "eval.json")
    cells = {one["target"]: one for one in document["cells"]}
    compiled, absent = cells.pop("null(compiled)"), cells.pop("linalg:ascend")
    assert compiled["coverage"]["compiled"] == compiled["coverage"]["kernels"] >= 1 and compiled["level"] == "EXPECTED"
    assert absent["status"] == "absent" and absent["level"] == "UNVERIFIED" and "does not run here" in absent["detail"]
    assert set(cells) == {"cpu", "h100(emulated)"}
    for cell in cells.values():
        assert cell["status"] == "ok" and cell["level"] in ("EXACT", "EXPECTED")
        assert cell["coverage"]["kernels"] >= 1 and not cell["coverage"]["fallbacks"]
        assert cell["verdict"]["launches"] == cell["verdict"]["verified"] > 0
        assert 0 < cell["accuracy"]["truth"]["mean"] < 1e-6
        assert cell["accuracy"]["task"]["positions"] == 9
    cpu, chip = cells["cpu"], cells["h100(emulated)"]
    assert (
        cpu["time"]["compile_s"] > 0 and len(cpu["time"]["samples"]["target"]) == 3 and cpu["memory"]["peak_bytes"] > 0
    )
    assert not chip["time"] and not chip["memory"]  # those of an emulation say nothing of the chip
    assert cpu["accuracy"]["reference"]["mean"] == 0 < chip["accuracy"]["reference"]["mean"]
    question = chip["accuracy"]["less_accurate"]["question"]
    assert question["cells"] == 1 and question["corrected"] == question["p"]
    assert "corrected" not in cpu["accuracy"]["less_accurate"]["question"]  # the reference is not compared with itself


@pytest.mark.slow
def test_what_ends_a_cell_is_its_result(tmp_path: Path) -> None:
    suite = suite_file(tmp_path, "aborts", "wrong", "sleeps", "grows", memory="900M")
    models = "aborts,wrong,sleeps,grows"
    assert evaluate(str(suite), "cpu", tmp_path / "out", models=models, timeout=8) == 1
    found = {one["model"]: one for one in read(tmp_path / "out" / "eval.json")["cells"]}
    statuses = {"aborts": "crashed", "wrong": "failed", "sleeps": "timeout", "grows": "memory"}
    assert {name: one["status"] for name, one in found.items()} == statuses
    assert {one["level"] for one in found.values()} == {"FAIL"}
    assert "SIGABRT" in found["aborts"]["detail"] and "loading the model" in found["aborts"]["detail"]
    assert "8 s" in found["sleeps"]["detail"] and "0.879 GiB" in found["grows"]["detail"]
    html = (tmp_path / "out" / "eval.html").read_text()
    assert "no weights &lt;b&gt;here&lt;/b&gt;" in html and "<b>here</b>" not in html


def test_random_numbers_are_no_error_and_mistakes_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dropout draws other numbers in float64; an output that the model has not is the user's mistake."""
    suite = suite_file(tmp_path, "drops")
    assert evaluate(str(suite), "cpu", tmp_path / "out", models="drops") == 0
    (drops,) = read(tmp_path / "out" / "eval.json")["cells"]
    assert "accuracy" not in drops and "random numbers" in drops["random"] and drops["level"] in ("EXACT", "EXPECTED")
    assert "draws random numbers" in (tmp_path / "out" / "eval.html").read_text()
    suite.write_text(suite.read_text().replace('output = "logits"', 'output = "tokens"'))
    assert evaluate(str(suite), "cpu", tmp_path / "out", models="good") == 2
    (wrong,) = read(tmp_path / "out" / "eval.json")["cells"]
    assert (wrong["status"], wrong["level"], wrong["word"]) == ("mistake", "UNVERIFIED", "mistake")
    assert "no tensor 'tokens'" in wrong["detail"]


def test_a_cell_is_of_the_sources_that_measured_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, places = load_suite(str(suite_file(tmp_path))), columns(("cpu",))
    (before,) = cells_of(suite, places, {})
    state = State(tmp_path / "cells")
    state.write(before, {"status": "ok"})
    assert state.read(cells_of(suite, places, {})[0]) is not None
    real = state_module._versions()
    monkeypatch.setattr(state_module, "_versions", lambda: {**real, "sources": "others"})
    assert state.read(cells_of(suite, places, {})[0]) is None
    assert re.fullmatch("[0-9a-f]{64}", real["sources"])


def test_a_process_that_ends_itself_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Process(running.Nursery):
        def start(self, arguments: Any, log: Path) -> int:
            Path(arguments[1]).write_text('{"stage": "compiling"}')  # and then os._exit(0)
            return 0

    monkeypatch.setattr(running, "_watch", lambda *rest: ("", 0))
    monkeypatch.setattr(running, "_kill", lambda pid: None)
    nursery = Process()
    found = running.run_cell(Job({}, "cpu", "cpu", 1), running.Limits(1, 1), nursery)
    nursery.close()
    assert found is not None and found["status"] == "failed" and "while compiling" in found["detail"]


def test_what_a_cell_wrote_can_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Process(running.Nursery):
        def start(self, arguments: Any, log: Path) -> int:
            log.write_bytes(b"ValueError: a\0b\x1b[31m \xff \xc2\x9b\n")
            return 0

    monkeypatch.setattr(running, "_watch", lambda *rest: ("", 1))
    monkeypatch.setattr(running, "_kill", lambda pid: None)
    nursery = Process()
    found = running.run_cell(Job({}, "cpu", "cpu", 1), running.Limits(1, 1), nursery)
    nursery.close()
    assert found is not None and found["detail"].isprintable() and found["detail"].startswith("ValueError: a")
    parse_json(json.dumps(found), dict[str, Any], "it")


def test_names_are_text_and_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text("name = '[/b]'\n[[model]]\nname = '[/red] x'\nmake = 'a.py:a'")
    assert evaluate(str(tmp_path / "s.toml"), "cpu", tmp_path / "out", only_report=True) == 0
    said = capsys.readouterr().out
    assert "[/red] x" in said and "[/b]" in said


def test_options_that_name_nothing(measured: Path, tmp_path: Path) -> None:
    suite, out = str(measured / "suite.toml"), tmp_path / "out"
    with pytest.raises(OptionError, match="'goood' is no model or target"):
        evaluate(suite, "cpu", out, again="good,goood", only_report=True)
    with pytest.raises(OptionError, match="--models names no model"):
        evaluate(suite, "cpu", out, models=",", only_report=True)
    with pytest.raises(OptionError, match="has no cell of this evaluation: it is of the suite suite"):
        evaluate(suite, "eager", out, baseline=measured / "out" / "eval.json", only_report=True)


def test_ctrl_c_is_an_exit_status(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*rest: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torchport.cli.evaluate.measure", stopped)
    assert evaluate(str(measured / "suite.toml"), None, measured / "stopped") == 130
    assert read(measured / "stopped" / "eval.json")["missing"] == 4


def test_complex_numbers_are_not_judged(tmp_path: Path) -> None:
    torch.compiler.reset()
    called = torch.compile(lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2), backend="torchport")
    x = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    recorded(tmp_path / "run", lambda: called(x))
    found = verdicts(tmp_path / "run", "cpu")
    assert not found["bad"] and any("complex" in reason for reason in found["unverified"])


def test_a_run_goes_on_where_it_was(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a cell was measured again")

    monkeypatch.setattr("torchport.evaluation.running.run_cell", none)
    before = read(measured / "out" / "eval.json")
    assert evaluate(str(measured / "suite.toml"), None, measured / "out", models="good") == 0
    after = read(measured / "out" / "eval.json")
    assert after["cells"] == before["cells"]
    with pytest.raises(AssertionError):
        evaluate(str(measured / "suite.toml"), None, measured / "out", models="good", again="cpu")


def test_a_changed_report_is_refused(measured: Path, tmp_path: Path) -> None:
    content = json.loads((measured / "out" / "eval.json").read_text())
    assert content["sha256"] == content_hash(content)
    content["cells"][0]["level"] = "EXACT" if content["cells"][0]["level"] != "EXACT" else "FAIL"
    (tmp_path / "eval.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="changed since"):
        read(tmp_path / "eval.json")


def test_the_page_needs_nothing_else(measured: Path) -> None:
    html = page(json.loads((measured / "out" / "eval.json").read_text()))
    assert not re.search(r"(?:src|href)=\"(?!#)", html) and "<script" not in html
    ids, links = re.findall(r"\bid=\"([^\"]+)\"", html), re.findall(r"href=\"#([^\"]+)\"", html)
    assert len(ids) == len(set(ids)) and set(links) <= set(ids) and links
    assert html.count("<details") == html.count("</details>")


def worse(document: dict[str, Any], change: Any) -> list[baseline.Change]:
    new = copy.deepcopy(document)
    for cell in new["cells"]:
        change(cell)
    return baseline.changes(document, new)


def test_regressions(measured: Path) -> None:
    document = read(measured / "out" / "eval.json")
    assert worse(document, lambda cell: None) == []

    def less_exact(cell: dict[str, Any]) -> None:
        if "accuracy" not in cell:
            return
        truth = cell["accuracy"]["truth"]
        truth["samples"] = [1.3 * one for one in truth["samples"]]

    found = worse(document, less_exact)
    assert [one.what for one in found] == ["error", "error"] and all(one.decided for one in found)

    def crash(cell: dict[str, Any]) -> None:
        cell.update(status="crashed", detail="ended by SIGSEGV", level="FAIL")

    assert {one.what for one in worse(document, crash)} >= {"status"}

    def slow(cell: dict[str, Any]) -> None:
        if "samples" in cell["time"]:
            cell["time"]["samples"]["target"] = [3 * one for one in cell["time"]["samples"]["target"]]

    assert not [one for one in worse(document, slow) if one.decided]  # three rounds decide nothing
    rounds = {"target": [1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.02, 0.98], "eager": [1.0] * 8}
    for cell in document["cells"]:
        cell["time"] = {"samples": rounds} if "samples" in cell["time"] else {}
    assert [(one.what, one.decided) for one in worse(document, slow)] == [("speed", True)]


def test_a_baseline_sets_the_exit_status(measured: Path, tmp_path: Path) -> None:
    old = json.loads((measured / "out" / "eval.json").read_text())
    for cell in (one for one in old["cells"] if "accuracy" in one):
        cell["accuracy"]["truth"]["samples"] = [one / 2 for one in cell["accuracy"]["truth"]["samples"]]
    old["sha256"] = content_hash(old)
    (tmp_path / "old.json").write_text(json.dumps(old))
    suite = str(measured / "suite.toml")
    assert evaluate(suite, None, measured / "out", models="good", baseline=tmp_path / "old.json") == 1
    new = read(measured / "out" / "eval.json")
    assert [one["sha256"] for one in new["history"]] == [old["sha256"]]
    assert "regression" in (measured / "out" / "eval.html").read_text()
    assert evaluate(suite, None, measured / "out", models="good") == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[model]]\nname = 'nope'", "names neither 'make' nor 'checkpoint'"),
        ("", "has no models"),
        ("[[model]]\nname = 'dlrm'\nsizes = ['huge']", "is no suite"),
        ("[[model]]\nname = 'dlrm'\nunknown = 1", "is no suite"),
        ("[[model]]\nname = 'dlrm'\n[[model]]\nname = 'dlrm'", "there twice"),
        ("[[model]]\nname = 'dlrm'\nbatches = 0", "1 or more"),
        ("memory = 'much'\n[[model]]\nname = 'dlrm'", "memory"),
        ("not toml", "is no suite"),
        ("timeout = nan\n[[model]]\nname = 'dlrm'", "must be positive"),
        ("memory = '0'\n[[model]]\nname = 'dlrm'", "must be positive"),
        ("[[model]]\nname = 'dlrm'\nweights = 'w.safetensors'", "takes no 'weights'"),
        ("[[model]]\nname = 'dlrm'\ndata = 'x.jsonl'", "takes no 'data'"),
        ("[[model]]\nname = 'a'\nmake = 'a.py:a'\nsizes = ['bench']", "'sizes' are of torchport's"),
        ("[[model]]\nname = 'a'\nmake = 'a.py:a'\ncheckpoint = 'b'", "two models"),
        ("[[model]]\nname = 'a'\nweights = 'w.safetensors'\ncheckpoint = 'b'", "has its weights"),
        ("[[model]]\nname = ''\nmake = 'a.py:a'", "printable"),
        ('[[model]]\nname = "a\\u001b[31m"\nmake = "a.py:a"', "printable"),
    ],
)
def test_suites_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "suite.toml").write_text(text)
    with pytest.raises(OptionError, match=said):
        load_suite(str(tmp_path / "suite.toml"))


def test_a_suite_expands_sizes_types_and_seeds(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        "[[model]]\nname = 'dlrm'\nsizes = ['small', 'bench']\ndtypes = ['float32', 'bfloat16']\nseeds = [0, 1]"
    )
    suite = load_suite(str(tmp_path / "s.toml"))
    assert len({model.label for model in suite.models}) == 8
    with pytest.raises(OptionError, match="no model 'gpt2'"):
        suite.only(["gpt2"])


def test_the_default_suite_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    every = names()
    assert len(every) >= 25 and set(TRANSFORMERS) < set(every)
    assert all(entry.area and entry.kind for entry in entries().values())
    monkeypatch.setattr("torchport.evaluation.models.registry._has_transformers", lambda: False)
    assert set(load_suite("default").left_out) == set(TRANSFORMERS)


def test_targets() -> None:
    assert parse("h100-tf32(emulated)").mode == "emulated" and parse("cuda:90(compiled)").mode == "compiled"
    assert parse(" cpu ").name == "cpu" and parse("eager").target == ""
    for text in ("h100", "nothing(emulated)", "cpu(real)", ""):
        with pytest.raises((OptionError, TargetError)):
            parse(text)
    with pytest.raises(TargetError):
        parse("opncl")
    with pytest.raises(OptionError, match="twice"):
        columns(["cpu", "cpu"])


def outputs(*values: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [{"y": value} for value in values]


def test_answers_of_one_number() -> None:
    exact = outputs(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0]))
    found = errors_of(outputs(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])), exact)
    assert len(found["samples"]) == 4 and found["samples"][1] == pytest.approx(0.5 / math.sqrt(12.5))
    assert errors_of(outputs(torch.zeros(0)), outputs(torch.zeros(0)))["samples"] == []


@pytest.mark.parametrize(
    ("kind", "shape"), [("tokens", (3,)), ("classes", ()), ("classes", (3,)), ("embeddings", (3,))]
)
def test_answers_that_are_not_of_their_kind(kind: Any, shape: tuple[int, ...]) -> None:
    same = outputs(torch.ones(shape))
    assert "dimensions" in task(kind, same, same, same)["refused"]


def test_accuracy_of_known_errors() -> None:
    torch.manual_seed(0)
    exact = [torch.randn(4, 100, dtype=torch.float64) for _ in range(3)]
    near, far = ([value * (1 + off) for value in exact] for off in (1e-7, 1e-3))
    found = accuracy("classes", outputs(*exact), outputs(*near), outputs(*near), outputs(*far))
    assert found["truth"]["mean"] == pytest.approx(1e-3) and found["truth"]["outputs"]["y"]["l2"] == pytest.approx(1e-3)
    assert found["less_accurate"]["ratio"] == pytest.approx(1e4) and found["less_accurate"]["question"]["p"] < 1e-3
    assert found["task"]["positions"] == 12 and found["task"]["flips"] == 0
    assert less_accurate(found["truth"], found["truth"])["question"]["p"] == 1.0
    flipped = [value.flip(-1) for value in exact]
    assert task("classes", outputs(*exact), outputs(*exact), outputs(*flipped))["flips"] == 12


def test_results_that_are_not_finite() -> None:
    exact = torch.ones(2, 3, dtype=torch.float64)
    bad = exact.clone()
    bad[0, 0] = math.nan
    found = accuracy("tokens", outputs(exact), outputs(exact), outputs(exact), outputs(bad))
    assert found["truth"]["outputs"]["y"]["nan"] == 1 and "NaN" in found["task"]["refused"]
    cell = {"status": "ok", "coverage": {}, "accuracy": found, "verdict": {"level": "EXPECTED"}}
    assert level_of(cell, "here") == "FAIL"
    assert errors_of(outputs(bad), outputs(bad))["outputs"]["y"]["nan"] == 0


def test_rank_correlation() -> None:
    assert ranks(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]
    x = torch.arange(20.0)
    assert spearman(x, x.exp()) == pytest.approx(1.0) and spearman(x, -x) == pytest.approx(-1.0)
    torch.manual_seed(0)
    vectors = torch.randn(12, 8)
    value, interval = similar_order(vectors, vectors + 0.3 * torch.randn(12, 8), pairs=True)
    assert interval is not None and interval[0] <= value <= 1 and interval[1] < 1
    assert similar_order(vectors, 5 * vectors, pairs=True)[0] == pytest.approx(1.0)


def test_the_interval_of_a_median() -> None:
    assert median_interval(range(5)) is None and median_interval(range(6)) == (0, 5)
    assert median_interval(range(15)) == (3, 11)  # tables of the sign test
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(2000, 21, generator=generator)
    held = [low <= 0.5 <= high for low, high in (median_interval(row) or (0, 0) for row in drawn.tolist())]
    assert 0.95 <= sum(held) / len(held) <= 0.995

"""What differs between two runs as programs is named; what is legal is not called another program."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import torch._inductor.config
from program_models import TOKENS, Attention, recorded, rows_kernel, rows_kernel_without_rescale

import torchport
from torchport.cli.app import main
from torchport.numerics.programs.comparison import compare_programs
from torchport.numerics.programs.difference import Programs
from torchport.numerics.runs.reader import Run

slow = pytest.mark.slow
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Records a model once for each name."""
    root = tmp_path_factory.mktemp("programs")
    known: dict[str, Path] = {}

    def made(name: str, model: Callable[[], Any], *inputs: torch.Tensor, **options: Any) -> Path:
        if name not in known:
            known[name] = recorded(root / name, model(), *(inputs or (TOKENS,)), **options)
        return known[name]

    return made


def compared(a: Path, b: Path) -> Programs:
    return compare_programs(Run.load(a), Run.load(b))


def attention(**switches: Any) -> Callable[[], torch.nn.Module]:
    return lambda: Attention(**switches)


def changed(change: Callable[[Attention], object], **switches: Any) -> Callable[[], torch.nn.Module]:
    """The model with another checkpoint."""

    def model() -> Attention:
        made = Attention(**switches)
        with torch.no_grad():
            change(made)
        return made

    return model


def transposed_head(model: Attention) -> None:
    weight = model.project[0].weight
    weight[:8, :8] = weight[:8, :8].T.clone()


def permuted_vocabulary(model: Attention) -> None:
    model.embed.weight.copy_(model.embed.weight.roll(3, 0))


GRAPHS = {
    "eps": ({}, {"eps": 1e-6}, "1e-05", "1e-06"),
    "soft cap": ({}, {"cap": 30.0}, "", "aten.tanh"),
    "rope layout": ({"rope": "halves"}, {"rope": "pairs"}, "aten.slice", ""),
    "causal": pytest.param({}, {"causal": True}, "", "aten.where", marks=slow),
    "scale": pytest.param({}, {"scale": 0.125}, "", "0.125", marks=slow),
    "activation": pytest.param({}, {"activation": torch.relu}, "aten.tanh", "aten.relu", marks=slow),
    "residual": pytest.param({}, {"no_residual": True}, "aten.add", "", marks=slow),
    "one more layer": pytest.param({}, {"layers": 2}, "", "project.1.weight", marks=slow),
    "swapped layers": pytest.param({"layers": 2}, {"layers": 2, "backwards": True}, "", "aten.addmm", marks=slow),
    "dropout": pytest.param({"dropout": 0.1}, {"dropout": 0.2}, "0.1", "0.2", marks=slow),
    "causal, fused": pytest.param({"form": "fused"}, {"form": "fused", "causal": True}, "", "true", marks=slow),
}
"""By name: switches of A and B, and what the diff has in lines of A and of B."""


@pytest.mark.parametrize(("a", "b", "before", "after"), GRAPHS.values(), ids=GRAPHS)
def test_a_graph_that_computes_something_else(
    a: dict[str, Any], b: dict[str, Any], before: str, after: str, make: Make
) -> None:
    found = compared(make(repr(a), attention(**a)), make(repr(b), attention(**b)))
    parts = [one for one in found.differences if one.kind == "graph"]
    assert parts and found.headline.startswith("A and B are different programs")
    lines = [line for part in parts for line in part.diff]
    assert any(line[0] == "-" and before in line for line in lines) or not before
    assert any(line[0] == "+" and after in line for line in lines) or not after
    assert len(lines) <= 70
    assert any(re.search(r"program_models\.py:\d+", place) for place in parts[0].places)


def test_one_constant_is_one_line_with_its_module(make: Make) -> None:
    found = compared(make("{}", attention()), make(repr({"eps": 1e-6}), attention(eps=1e-6)))
    (part,) = found.differences
    assert part.name == "norms.0"
    assert [line[0] for line in part.diff[1:]] == ["-", "+"]


WEIGHTS = {
    "one head transposed": (transposed_head, "project.0.weight", "in [0:8, 0:8]"),
    "permuted vocabulary": pytest.param(permuted_vocabulary, "embed.weight", "another order", marks=slow),
    "scaled": pytest.param(lambda model: model.norms[0].weight.mul_(1.01), "norms.0.weight", "times 1.01", marks=slow),
}


@pytest.mark.parametrize(("change", "name", "how"), WEIGHTS.values(), ids=WEIGHTS)
def test_another_checkpoint(change: Callable[[Attention], object], name: str, how: str, make: Make) -> None:
    (one,) = compared(make("{}", attention()), make(name, changed(change))).differences
    assert (one.kind, one.name) == ("weight", name)
    assert how in one.summary


class Subtract(torch.nn.Module):
    """Of two inputs, after a batch normalization with statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4).eval()

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.norm(left) - right


def other_statistics() -> Subtract:
    model = Subtract()
    model.norm.running_mean.add_(0.5)
    return model


def test_other_inputs_and_other_buffers(make: Make) -> None:
    x, y = torch.rand(2, 3, 4).unbind()
    base = make("subtract", Subtract, x, y)
    found = compared(base, make("swapped", Subtract, y, x))
    assert [(one.kind, one.name) for one in found.differences] == [("input", "left"), ("input", "right")]
    assert "it is A's right" in found.differences[0].summary
    (one,) = compared(base, make("statistics", other_statistics, x, y)).differences
    assert (one.kind, one.name) == ("weight", "norm.running_mean")
    shorter = compared(base, make("shorter", Subtract, x[:2], y[:2]))
    assert {one.kind for one in shorter.differences} == {"input"}
    assert "[3, 4] and [2, 4]" in shorter.differences[0].summary


def test_the_type_of_an_accumulation(make: Make) -> None:
    x = torch.rand(4, 64).bfloat16()
    narrow = make("narrow", lambda: lambda x: (x * 2).sum(-1).float(), x)
    (one,) = compared(make("wide", lambda: lambda x: (x * 2).float().sum(-1), x), narrow).differences
    assert one.kind == "precision" and "aten.sum" in one.summary


KERNELS = {
    "without rescaling": (rows_kernel_without_rescale, {}, "total = total + "),
    "another constant": pytest.param(rows_kernel, {"constant": 2}, "", marks=slow),
}


@pytest.mark.parametrize(("kernel", "more", "line"), KERNELS.values(), ids=KERNELS)
def test_a_kernel_of_the_user_s(kernel: Any, more: dict[str, Any], line: str, make: Make) -> None:
    base = make("kernel", attention(kernel=rows_kernel))
    found = compared(base, make(f"{kernel.__name__}{more}", attention(kernel=kernel, **more)))
    (one,) = [one for one in found.differences if one.kind == "kernel"]
    assert "rows_kernel" in one.name
    assert (
        any(text[0] == "+" and line in text for text in one.diff) if line else "SCALE = 2 in B, 1 in A" in one.summary
    )


def implemented(folder: Path, body: str) -> Callable[[], Any]:
    """A model with a custom operator, defined anew from a file."""
    (folder / "operator_file.py").write_text(
        "import torch\n\n\n@torch.library.custom_op('torchport_programs::act', mutates_args=())\n"
        f"def act(x: torch.Tensor) -> torch.Tensor:\n    return {body}\n\n\n"
        "act.register_fake(torch.empty_like)\n"
    )
    text = compile((folder / "operator_file.py").read_text(), str(folder / "operator_file.py"), "exec")
    scope: dict[str, Any] = {}
    exec(text, scope)
    sys.modules["operator_file"] = scope["act"]  # kept alive: torch's table of operators is weak
    return lambda: lambda x: torch.ops.torchport_programs.act(x * 2) + 1


def test_a_custom_operator(make: Make, tmp_path: Path) -> None:
    import linecache

    runs = []
    for number, body in enumerate(("x.sigmoid() * x", "x.sigmoid() * x", "x.tanh() * x")):
        linecache.clearcache()
        runs.append(make(f"operator{number}", implemented(tmp_path, body), torch.rand(5)))
    assert compared(*runs[:2]).same
    (one,) = compared(runs[0], runs[2]).differences
    assert (one.kind, one.name) == ("operator", "torchport_programs.act.default")
    assert any("x.tanh()" in line for line in one.diff)


class Convolution(torch.nn.Module):
    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4, eps)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)))


class Residual(torch.nn.Module):
    """What freezing makes of it adds to what an earlier launch left, and has a product without its bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (torch.nn.Conv2d(3, 16, 3, bias=False) for _ in range(2))
        self.norm, self.other, self.last = torch.nn.BatchNorm2d(16), torch.nn.BatchNorm2d(16), torch.nn.Linear(16, 101)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.first(x)) + self.other(self.second(x)))
        return self.last(y.mean((-1, -2)))


PICTURE = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def frozen(model: Callable[[], Any], make: Make, name: str, *inputs: torch.Tensor) -> Path:
    with torch._inductor.config.patch(freezing=True):
        return make(name, model, *inputs)


def in_parts(x: torch.Tensor) -> torch.Tensor:
    y = torch.tanh(x * 2)
    torch._dynamo.graph_break()
    return y.cumsum(0)


def legal_pairs(make: Make) -> dict[str, Callable[[], tuple[Path, Path]]]:
    def base() -> Path:
        return make("{}", attention())

    def convolution() -> Path:
        return make("convolution", Convolution, PICTURE)

    def with_threads() -> Path:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return make("threads", attention())
        finally:
            torch.set_num_threads(threads)

    def eager() -> Path:
        folder = base().parent / "eager"
        if not folder.exists():
            model = Attention()
            with torchport.record(folder, "full", eager=model, ttir=False), torch.no_grad():
                model(TOKENS)
        return folder

    last = torch.channels_last
    return {
        "emulated": lambda: (base(), make("h100", attention(), emulate="h100")),
        "another chip": lambda: (base(), make("mi300x", attention(), emulate="mi300x")),
        "opencl": lambda: (base(), make("opencl", attention(), target="opencl")),
        "threads": lambda: (base(), with_threads()),
        "without fusion": lambda: (base(), make("unfused", attention(), max_fusion_size=1)),
        "fused attention": lambda: (base(), make("fused", attention(form="fused"))),
        "rope written otherwise": lambda: (
            make(repr({"rope": "halves"}), attention(rope="halves")),
            make("rope", attention(rope="rotate_half")),
        ),
        "bfloat16": lambda: (base(), make("bfloat16", lambda: Attention().bfloat16())),
        "block of a kernel": lambda: (
            make("kernel", attention(kernel=rows_kernel)),
            make("kernel8", attention(kernel=rows_kernel, block=8)),
        ),
        "kernel in place of nodes": lambda: (base(), make("kernel", attention(kernel=rows_kernel))),
        "nodes in place of a kernel": lambda: (make("kernel", attention(kernel=rows_kernel)), base()),
        "dropout": lambda: (
            make(repr({"dropout": 0.1}), attention(dropout=0.1)),
            make("dropout", attention(dropout=0.1), emulate="h100"),
        ),
        "training and inference": lambda: (make("training", attention(), train=True), base()),
        "training, emulated": lambda: (
            make("training", attention(), train=True),
            make("training h100", attention(), train=True, emulate="h100"),
        ),
        "channels last": lambda: (
            convolution(),
            make("last", lambda: Convolution().to(memory_format=last), PICTURE.to(memory_format=last)),
        ),
        "frozen": lambda: (convolution(), frozen(Convolution, make, "frozen", PICTURE)),
        "frozen residual": lambda: (
            make("residual", Residual, PICTURE),
            frozen(Residual, make, "frozen residual", PICTURE),
        ),
        "not frozen": lambda: (frozen(Convolution, make, "frozen", PICTURE), convolution()),
        "eager": lambda: (base(), eager()),
        "compiled": lambda: (eager(), base()),
        "a graph break": lambda: (
            make("whole", lambda: lambda x: torch.tanh(x * 2).cumsum(0), torch.ones(3, 4)),
            make("parts", lambda: in_parts, torch.ones(3, 4)),
        ),
        "dynamic sizes": lambda: (base(), make("dynamic", attention(), dynamic=True)),
        "statistics only": lambda: (base(), make("stats", attention(), level="stats")),
    }


QUICK = ("emulated", "fused attention", "rope written otherwise", "bfloat16", "nodes in place of a kernel", "frozen",
         "statistics only", "a graph break", "eager", "compiled")  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=slow) for name in legal_pairs(None)]
)  # type: ignore[arg-type]
def test_legal_differences_are_not_another_program(name: str, make: Make) -> None:
    found = compared(*legal_pairs(make)[name]())
    assert [(one.kind, one.name, one.summary) for one in found.differences] == []
    assert found.headline == "Same program, same weights, same inputs."
    assert found.shared


class Layer(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(x))


def test_what_was_not_recorded_of_layers_that_share_a_graph_is_said(tmp_path: Path) -> None:
    def run(name: str, calls: int, factor: float = 1.0) -> Path:
        torch._dynamo.reset()
        torch.manual_seed(0)
        layers = [Layer(8, 8) for _ in range(3)]
        layers[2].weight.data *= factor
        x = torch.ones(2, 8)
        for layer in layers:
            layer.compile(backend="torchport")
        with torchport.record(tmp_path / name, "full", calls=calls, ttir=False), torch.no_grad():
            for layer in layers:
                x = layer(x)
        return tmp_path / name

    (one,) = compared(run("all", 3), run("all scaled", 3, 2.0)).differences
    assert (one.kind, one.name) == ("weight", "weight of call 3")
    few = run("one", 1)
    assert "as far as they were recorded: 2 later calls are not" in compared(few, few).headline


def test_folded_weights_of_another_normalization_are_found(make: Make) -> None:
    other = frozen(lambda: Convolution(eps=1e-2), make, "frozen eps", PICTURE)
    assert not compared(make("convolution", Convolution, PICTURE), other).same


def test_what_a_run_was_recorded_under_is_shown(make: Make) -> None:
    conditions = {
        one.what: (one.a, one.b)
        for one in compared(make("{}", attention()), make("h100", attention(), emulate="h100")).conditions
    }
    assert conditions["target"] == ("cpu", "cpu as h100")
    assert conditions["profile"][0] == "–" and len(conditions["profile"][1]) == 16
    assert {"torch", "triton", "torchport", "llvmlite", "threads", "quarantine", "compiler"} <= set(conditions)
    assert conditions["weights"][0] == conditions["weights"][1] and conditions["weights"][0].startswith("5, hash ")
    assert conditions["inputs"][0].startswith("1, hash ")


def test_runs_from_before_names_and_provenance_are_read(make: Make, tmp_path: Path) -> None:
    runs = []
    for name, switches in (("{}", {}), (repr({"eps": 1e-6}), {"eps": 1e-6})):
        folder = tmp_path / f"run{len(runs)}"
        shutil.copytree(make(name, attention(**switches)), folder)
        (file,) = (folder / "graphs").iterdir()
        content = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in content.items() if k not in ("names", "results", "asked")}))
        info = json.loads((folder / "run.json").read_text())
        for gone in ("compilers", "quarantine", "operators"):
            del info[gone]
        (folder / "run.json").write_text(json.dumps(info))
        runs.append(folder)
    assert compared(runs[0], runs[0]).same
    assert compared(runs[0], make("{}", attention())).same
    (one,) = compared(*runs).differences
    assert one.kind == "graph" and "1e-06" in one.summary


@pytest.fixture
def torchport_diff(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., tuple[int, str]]:
    """Runs ``torchport diff``: its exit status, and what it prints, on lines without breaks."""

    def run(*args: Any) -> tuple[int, str]:
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.setattr(sys, "argv", ["torchport", "diff", *map(str, args)])
        capsys.readouterr()
        try:
            status = main()
        except SystemExit as error:
            status = int(error.code or 0)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


LEGAL = "No kernel's error is beyond what legal arithmetic gives."


def test_programs_that_differ_are_said_first_everywhere(make: Make, torchport_diff: Any, tmp_path: Path) -> None:
    files = [tmp_path / f"report.{kind}" for kind in ("json", "xml", "html")]
    options = [
        one for file, option in zip(files, ("--json", "--junit", "--html"), strict=True) for one in (option, file)
    ]
    runs = make("{}", attention()), make(repr({"eps": 1e-6}), attention(eps=1e-6))
    status, printed = torchport_diff(*runs, *options)
    assert status == 3
    assert printed.startswith("A and B are different programs")
    assert LEGAL not in printed and "norms.0" in printed.partition("launches verified")[0]
    content = json.loads(files[0].read_text())
    assert content["status"] == 3 and list(content)[1:4] == ["status", "headline", "programs"]
    assert content["programs"]["differences"][0]["name"] == "norms.0"
    suite = ElementTree.fromstring(files[1].read_text())[0]
    assert suite.get("name") == "programs" and suite.get("failures") == "1"
    page = files[2].read_text()
    assert page.index("A and B are different programs") < page.index('id="summary"')
    assert "larger than legal arithmetic explains" not in page


def test_the_exit_status_of_runs_that_are_the_same(make: Make, torchport_diff: Any) -> None:
    status, printed = torchport_diff(make("{}", attention()), make("{}", attention()))
    assert (status, printed.startswith("Same program, same weights, same inputs.")) == (0, True)
    assert LEGAL in printed


def test_what_cannot_be_compared_says_what_is_missing(make: Make, torchport_diff: Any, tmp_path: Path) -> None:
    base = make("{}", attention())
    assert torchport_diff(base, tmp_path)[0] == 2
    empty = tmp_path / "empty"
    shutil.copytree(base, empty)
    (empty / "launches.jsonl").write_text("")
    status, printed = torchport_diff(base, empty)
    assert status == 2 and "has no call of a compiled graph" in printed
    status, printed = torchport_diff(base, make("stats", attention(), level="stats"))
    assert status == 2 and "only statistics" in printed
    status, printed = torchport_diff(base, make("convolution", Convolution, PICTURE))
    assert status == 2 and "no graph in common" in printed


def readme_runs(folder: Path) -> Iterator[Path]:
    """The example of the README's section Precision, as it stands there."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    section = text[text.index("\n## Precision\n") :]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    exec(code[1], {})
    yield from (folder / "runs" / name for name in ("cpu", "h100"))


def test_the_readme_s_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torchport_diff: Any) -> None:
    monkeypatch.chdir(tmp_path)
    status, printed = torchport_diff(*readme_runs(tmp_path), "--truth", "fp64", "--html", "report.html")
    assert status == 0, printed
    assert printed.startswith("Same program, same weights, same inputs.")
    assert "target: cpu and cpu as h100" in printed
    assert "B cpu as h100:" in printed
    assert "(cpu as h100)" in Path("report.html").read_text()

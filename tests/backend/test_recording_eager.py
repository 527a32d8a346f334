"""Models that run eagerly are recorded as graphs of torch's operators, and judged like compiled ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import torchport
from torchport.cli.app import app
from torchport.numerics.compare.diff import compare
from torchport.numerics.graphs.evaluate import evaluate
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.operators.calls import OperatorCall
from torchport.numerics.verdicts.operators.narrow_sums import narrow_sums
from torchport.numerics.verdicts.recorded_call import calls_of


class Block(torch.nn.Module):
    """Attention, a norm with state, views, operators in place, dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(50, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.attention = torch.nn.MultiheadAttention(32, 4, batch_first=True)
        self.up, self.down = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)
        self.batch = torch.nn.BatchNorm1d(32)
        self.dropout = torch.nn.Dropout(dropout, inplace=True)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = self.dropout(self.down(torch.nn.functional.gelu(self.up(x))))
        y += x
        cache = torch.zeros(2, 12, 32, dtype=x.dtype)
        cache[:, 1:11] = y
        result: torch.Tensor = self.batch(cache.transpose(1, 2)).relu_()
        return result


def words() -> torch.Tensor:
    return torch.randint(0, 50, (2, 10), generator=torch.Generator().manual_seed(1))


def recorded(folder: Path, model: torch.nn.Module, *, train: bool = False, calls: int = 1, **more: Any) -> Run:
    torch.manual_seed(0)
    with torchport.record(folder, "full", eager=model, **more):
        for _ in range(calls):
            result = model(words())
            if train:
                result.float().square().sum().backward()
    return Run.load(folder)


def levels(run: Run) -> dict[str, int]:
    diff = compare(run, run, judge)
    return dict(diff.coverage["A"].levels)


@pytest.mark.parametrize(
    ("dtype", "dropout", "train"),
    [(torch.float32, 0.5, True), pytest.param(torch.bfloat16, 0.0, False, marks=pytest.mark.slow)],
    ids=str,
)
def test_every_operator_is_verified(tmp_path: Path, dtype: torch.dtype, dropout: float, train: bool) -> None:
    torch.manual_seed(0)
    run = recorded(tmp_path / "run", Block(dropout).to(dtype), train=train)
    assert [call.direction for call in calls_of(run)] == ["forward", "backward"][: 1 + train]
    found = levels(run)
    drawn = found.pop("UNVERIFIED", 0)  # random numbers
    assert set(found) <= {"EXACT", "EXPECTED"} and drawn == bool(dropout), found
    assert sum(found.values()) > 15


def test_the_graph_in_float64_gives_the_model_in_float64(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Block().eval()
    wide = copy.deepcopy(model).double()(words())
    (call,) = calls_of(recorded(tmp_path / "run", model))
    (found,) = evaluate(call.dump, call.graph.inputs, wanted=call.graph.outputs).values()
    torch.testing.assert_close(found, wide, rtol=1e-12, atol=1e-12)
    nodes = {node["name"]: node for node in call.dump["nodes"]}
    assert {"up.weight", "words.weight"} <= {node["target"] for node in nodes.values() if node["op"] == "placeholder"}
    product = next(node for node in nodes.values() if node["module"] and node["module"]["path"] == "up")
    assert Path(product["source"]["file"]).name == Path(__file__).name


def test_eager_and_compiled_runs_are_one_program_whose_values_are_paired(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Block().eval()
    eager = recorded(tmp_path / "eager", model)
    compiled = torch.compile(model, backend="torchport")
    with torchport.record(tmp_path / "compiled", "full"), torch.no_grad():
        compiled(words())
    diff = compare(eager, Run.load(tmp_path / "compiled"), judge)
    assert not [root for root in diff.roots if not root.legal] and not diff.programs.differences
    pairs = [row for row in diff.rows if row.a is not None and row.b is not None]
    assert len(pairs) >= 8 and all((row.difference or 0) < 1e-6 for row in pairs)
    assert "equal" in {row.how for row in pairs}


def test_gradients_of_eager_and_compiled_runs_are_paired(tmp_path: Path) -> None:
    """Each parameter's, though both backward graphs begin with other rounded numbers."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(32, 48), torch.nn.GELU(), torch.nn.LayerNorm(48), torch.nn.Linear(48, 8)
    )
    x = torch.randn(40, 32)
    runs = []
    for name, how in (("eager", {"eager": model}), ("compiled", {})):
        called = model if how else torch.compile(model, backend="torchport", dynamic=False)
        with torchport.record(tmp_path / name, "full", **how):
            called(x).square().mean().backward()
        runs.append(Run.load(tmp_path / name))
    diff = compare(*runs, judge)
    near = [row for row in diff.rows if row.how == "near"]
    shapes = sorted(tuple(row.shape) for row in near)
    assert [shapes.count(one) for one in ((48, 32), (1, 48), (48,), (8, 48), (1, 8))] == [1, 1, 2, 1, 1]
    assert all(row.direction == "backward" and (row.difference or 0) < 1e-5 for row in near)
    assert {row.level for row in near} <= {"EXACT", "EXPECTED"}


def test_calls_of_one_model_are_calls_of_one_graph(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", Block().eval(), calls=3)
    assert len(run.graphs) == 1 and [call.number for call in calls_of(run)] == [0, 1, 2]
    kept = [any(arg.after for launch in call.launches for arg in launch.args) for call in calls_of(run)]
    assert kept == [True, False, False], "tensors are kept of the first call"


@pytest.mark.parametrize("operator", ["aten::addmm", "aten::gelu", "aten::native_layer_norm"])
def test_a_wrong_operator_is_blamed(tmp_path: Path, operator: str) -> None:
    def wrong(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            first = result[0] if isinstance(result, tuple) else result
            first.view(-1)[3] += 0.01
            return result

        return call

    model = Block().eval()
    namespace, name = operator.split("::")
    packet = getattr(getattr(torch.ops, namespace), name).default
    library = torch.library.Library("aten", "IMPL")
    inner = torch.library.get_kernel(packet, "CPU")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    library.impl(name, wrong(lambda *args, **kwargs: inner.call_boxed(keys, *args, **kwargs)), "CPU")
    try:
        run = recorded(tmp_path / "run", model)
    finally:
        library._destroy()
    bad = {root.kernel for root in compare(run, run, judge).roots if not root.legal}
    assert bad == {f"aten.{name}.default"}


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32], ids=str)
def test_sums_in_a_narrow_type_are_atens_own(weights: torch.dtype) -> None:
    """aten's layer norm adds up gradients of weights in bfloat16: these bits, for each number of threads."""
    torch.manual_seed(0)
    x, g = (torch.randn(301, 48).bfloat16() for _ in range(2))
    w = torch.ones(48, dtype=weights)
    function, before = torch.ops.aten.native_layer_norm_backward.default, torch.get_num_threads()
    _, mean, rstd = torch.native_layer_norm(x, (48,), w, w, 1e-5)
    args = (g, x, [48], mean, rstd, w, w, [True, True, True])
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            _, weight, bias = function(*args)
            [found] = narrow_sums(OperatorCall(function, args, {}), {threads})
            assert torch.equal(found[1].to(weights), weight) and torch.equal(found[2].to(weights), bias)
    finally:
        torch.set_num_threads(before)
    wide = tuple(one.float() if isinstance(one, torch.Tensor) else one for one in args)
    assert narrow_sums(OperatorCall(function, wide, {}), {1}) == []


@pytest.mark.slow
def test_gradients_of_a_norm_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, (x, g) = torch.nn.LayerNorm(64).bfloat16(), torch.randn(2, 300, 64).bfloat16()
    with torchport.record(tmp_path / "run", "full", eager=model):
        model(x.requires_grad_()).backward(g)
    run = Run.load(tmp_path / "run")
    assert set(levels(run)) <= {"EXACT", "EXPECTED"}
    call, launch = next(
        (call, one) for call in calls_of(run) for one in call.launches if "layer_norm_backward" in str(one.operation)
    )
    arg = next(arg for arg in launch.args if arg.role == "out" and arg.shape == (64,))
    stored = run.tensor(str(arg.after))
    stored[::2] *= 0.5
    own = Run.tensor
    monkeypatch.setattr(Run, "tensor", lambda run, name: stored if name == arg.after else own(run, name))
    assert judge(next(one for one in calls_of(run) if one.key == call.key), launch).level in ("SUSPECT", "FAIL")


def test_the_command_records_eager_and_compiled_runs(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        "import torch\n\n\ndef make():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()), (torch.ones(2, 8),)\n\n\n"
        "def function():\n    return torch.sin, (torch.ones(2, 8),)\n"
    )
    for name, *more in (("eager", "--eager", "--train"), ("compiled", "--train"), ("h100", "--as", "h100")):
        result = CliRunner().invoke(app, ["record", f"{file}:make", "-o", str(tmp_path / name), *more])
        assert result.exit_code == 0, result.output
        run = Run.load(tmp_path / name)
        assert run.info["complete"] and {call.direction for call in calls_of(run)} == (
            {"forward", "backward"} if "--train" in more else {"inference"}
        )
    result = CliRunner().invoke(app, ["record", f"{file}:function", "-o", str(tmp_path / "function"), "--eager"])
    assert result.exit_code == 0, result.output
    assert [launch.operation for launch in Run.load(tmp_path / "function").launches if launch.operation] == [
        "aten.sin.default"
    ]


def test_compiled_parts_of_an_eager_model_are_recorded_as_graphs_of_their_own(tmp_path: Path) -> None:
    inner = torch.compile(torch.nn.Linear(8, 8), backend="torchport")

    class Outer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x.sin()).cos()
            return result

    torch.manual_seed(0)
    outer = Outer()
    outer.inner = inner
    with torchport.record(tmp_path / "run", "full", eager=outer):
        outer(torch.ones(2, 8))
    run = Run.load(tmp_path / "run")
    operators = {eager: set() for eager in (True, False)}
    for launch in run.launches:
        operators[bool(run.graphs[launch.graph].get("eager"))].add(launch.operation)
    assert {"aten.sin.default", "aten.cos.default"} <= operators[True]
    assert not any("mm" in (name or "") for name in operators[True]), "compiled graphs were recorded twice"
    assert sum(1 for graph in run.graphs.values() if not graph.get("eager")) == 1


def test_nothing_of_a_recording_is_left_behind(tmp_path: Path) -> None:
    model = Block().eval()
    recorded(tmp_path / "run", model)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert torch._C._len_torch_dispatch_stack() == 0


def test_an_error_of_the_model_reaches_the_user(tmp_path: Path) -> None:
    class Wrong(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin() @ x

    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        torchport.record(tmp_path / "run", "full", eager=(model := Wrong())),
    ):
        model(torch.ones(2, 3))
    assert [one.operation for one in Run.load(tmp_path / "run").launches if one.operation] == ["aten.sin.default"]

"""torchport fix: finds the kernels that move a metric, on real models; metrics; and what the command refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from torchport.cli.precision import fix as command
from torchport.errors import OptionError, TargetError
from torchport.inductor.precision.plan import NamedGraph, NamedKernel, NamedNode, Plan
from torchport.precision.fix import Side, fix
from torchport.precision.metrics import METRICS, Figure, better, custom
from torchport.precision.steps import Steps
from torchport.precision.ways import way_of

CPU, CHIP, EXACT = (Side(way_of(name)) for name in ("cpu", "h100-tf32", "float64"))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Net(torch.nn.Module):
    """Two products side by side; the second one's operands are a hundred times as large."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = torch.nn.Linear(32, 16), torch.nn.Linear(32, 16)
        with torch.no_grad():
            self.large.weight.mul_(100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.small(x)) + torch.sin(self.large(x))


def net() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    return Net().eval(), (torch.randn(20, 32),)


def test_the_kernel_that_moves_the_results_is_found(tmp_path: Path) -> None:
    model, inputs = net()
    found = fix(model, inputs, CPU, CHIP, METRICS["error"], budget=1e-3, timed=1)
    (chosen,) = found.search.chosen
    assert found.search.smallest and chosen.share is not None and chosen.share > 0.9
    assert chosen == found.ranked[0] and "mm" in chosen.kernel.nodes[0].operation
    assert found.before.value > 1e-3 >= found.after.value and found.after.value > 0
    assert found.p < 0.01 and found.cost is not None and found.cost.before > 0
    assert found.plan is not None
    path = tmp_path / "precision.json"
    found.plan.write(path)
    assert Plan.of(str(path)).decision["chosen"] == [chosen.kernel.name]
    applied = way_of("h100-tf32").with_precision(path).run(model, inputs)
    again = METRICS["error"].measure(way_of("cpu").run(model, inputs), applied, inputs)
    assert again.value == found.after.value


def test_results_that_are_not_finite_are_mended_and_written(tmp_path: Path) -> None:
    """A product overflows in float16; what is made of it does not, if both kernels are wider."""
    weight = torch.full((4, 4), 20000.0).half()

    def model(x: torch.Tensor) -> torch.Tensor:
        return (x @ weight) * 1e-3

    inputs = (torch.linspace(1, 3, 24).reshape(6, 4).half(),)
    found = fix(model, inputs, EXACT, CPU, METRICS["error"], budget=1e-3, timed=0)
    assert found.before.value == math.inf and found.search.met and found.plan is not None
    assert found.plan.kernels is not None
    assert {kernel.to for kernel in found.plan.kernels} == {"float32"}  # of 16 bits, it does as well
    found.plan.write(tmp_path / "precision.json")
    assert Plan.of(str(tmp_path / "precision.json")).decision["before"]["value"] is None
    mended = way_of("cpu").with_precision(tmp_path / "precision.json").run(model, inputs)
    assert torch.isfinite(mended).all()


@pytest.mark.slow  # several searches; the budget's words are tested by the command
def test_what_is_within_the_budget_or_cannot_be_has_no_file() -> None:
    model, inputs = net()
    fine = fix(model, inputs, CPU, CPU, METRICS["error"], timed=0)
    assert fine.search.met and fine.search.chosen == () and fine.plan is None
    assert fine.null is not None and fine.null.value == 0 and fine.null.high is None
    assert fine.exact is not None and fine.budget == fine.exact.high
    never = fix(model, inputs, CPU, CPU, METRICS["error"], budget=1e-300, timed=0)
    assert never.search.met and never.before.value == 0  # the same bits
    other = fix(model, inputs, CPU, CHIP, METRICS["error"], budget=1e-15, timed=0)
    assert not other.search.met and other.plan is None and other.exact is not None and other.exact.value > 1e-15
    assert other.after.value < other.before.value
    whole = fix(model, inputs, EXACT, CHIP, METRICS["error"], budget=0.0, timed=0)
    assert whole.search.met and whole.search.minimal and len(whole.search.chosen) == len(whole.ranked)


def test_another_model_than_the_run_is_refused(tmp_path: Path) -> None:
    from torchport.numerics.recording.record import record
    from torchport.numerics.runs.reader import Run

    model, inputs = net()
    compiled = CHIP.way.compiled(model)
    with torch.no_grad(), record(tmp_path / "b", "full", ttir=False):
        compiled(*inputs)
    b = Side(CHIP.way, Run.load(tmp_path / "b"))
    assert fix(model, inputs, CPU, b, METRICS["error"], budget=1e-3, timed=0).search.met
    with pytest.raises(OptionError, match="not those of run B"):
        fix(model, (torch.randn(21, 32),), CPU, b, METRICS["error"], budget=1e-3)


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "precision.json"
    node = NamedNode("0123456789ab", "aten.mm.default")
    graph = NamedGraph("0123456789abcdef", "inference")
    Plan((NamedKernel("k", graph.key, "float64", (node,)),), (graph,)).write(path)
    with pytest.raises(OptionError, match="is not of this model: this graph is none of those"):
        way_of("cpu").with_precision(path).run(*net())


def figure(name: str, a: torch.Tensor, b: torch.Tensor) -> Figure:
    return METRICS[name].measure(a, b, (torch.zeros(a.shape[:-1], dtype=torch.int64),))


OF_TRAINING = ("loss", "gradients")


@pytest.mark.parametrize("name", [name for name in METRICS if name not in OF_TRAINING])
def test_metrics_of_equal_and_of_undefined_results(name: str) -> None:
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    same = figure(name, logits, logits.clone())
    assert same.value == 0 and (same.low, same.high) != (0, 0)
    broken = logits.clone()
    broken[0, 0, 0] = math.nan
    assert math.isnan(figure(name, logits, broken).value)
    assert not math.isfinite(figure(name, logits, logits + math.inf).value)
    assert better(METRICS[name], same, figure(name, logits, broken)) == 1.0
    other = figure(name, logits, -logits)
    assert other.value > 0
    single = figure(name, logits[:1], -logits[:1])
    assert single.units == (4 if name == "flips" else 1) and (single.low is None) == (name != "flips")
    with pytest.raises(OptionError):
        figure(name, logits[:0], logits[:0])


@pytest.mark.parametrize("name", OF_TRAINING)
def test_metrics_of_training(name: str) -> None:
    def trained(loss: float, gradient: float) -> dict[str, Any]:
        return {"losses": [9.0, loss], "gradients": {"weight": torch.tensor([1.0, gradient])}}

    def measured(b: Any) -> Figure:
        return METRICS[name].measure(trained(2.0, 3.0), b, ())

    same = measured(trained(2.0, 3.0))
    assert (same.value, same.units, same.low) == (0, 1, None)
    assert measured(trained(2.5, 4.0)).value == pytest.approx(0.25 if name == "loss" else 10**-0.5)
    assert math.isnan(measured(trained(math.nan, math.nan)).value)
    with pytest.raises(OptionError, match="give --train"):
        measured(torch.zeros(3))


def test_figures_by_hand() -> None:
    a = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    b = torch.tensor([[[0.0, 2.0], [0.0, 1.0]]])
    assert figure("flips", a, b).value == 0.5
    rows = METRICS["error"].measure(torch.tensor([[3.0, 4.0], [0.0, 5.0]]), torch.tensor([[3.0, 5.0], [0.0, 5.0]]), ())
    assert rows.value == pytest.approx(1 / math.sqrt(50)) and rows.units == 2
    infinite = torch.tensor([[math.inf, 1.0]])
    assert METRICS["error"].measure(infinite, infinite, ()).value == 0
    assert METRICS["error"].measure(infinite, torch.tensor([[1.0, 1.0]]), ()).value == math.inf
    assert METRICS["error"].measure(torch.zeros(2, 3), torch.full((2, 3), 2.0), ()).value == pytest.approx(24**0.5)


def test_a_metric_of_the_users() -> None:
    near = custom("near", lambda a, b: (a - b).abs().amax(-1) > 0.5)
    found = near.measure(torch.zeros(10, 2), torch.zeros(10, 2), ())
    assert (found.value, found.low, found.units) == (0.0, 0.0, 10) and found.high == pytest.approx(1 - 0.025**0.1)
    for wrong, says in (
        (lambda a, b: 1.0, "not a tensor of one dimension"),
        (lambda a, b: a[:0, 0], "nothing to measure"),
        (lambda a, b: a[:, 0] - 1, "negative"),
    ):
        with pytest.raises(OptionError, match=says):
            custom("wrong", wrong).measure(torch.zeros(10, 2), torch.zeros(10, 2), ())


MODEL = """
import torch
def make():
    torch.manual_seed(0)
    return torch.nn.Linear(8, 4).eval(), (torch.randn(5, 8),)
"""


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"budget": "-1"}, OptionError, "valid: floor, or a number"),
        ({"budget": "nan"}, OptionError, "valid: floor, or a number"),
        ({"metric": "bleu"}, OptionError, "valid: flips, kl, perplexity, error, loss, gradients, or FILE"),
        ({"metric": "flips"}, OptionError, "returns no logits"),
        ({"a": "h999"}, TargetError, "besides targets: eager, float64 or a profile"),
        ({"a": "runs/none"}, OptionError, "no run folder"),
        ({"b": "eager"}, OptionError, "B compiles nothing"),
        ({"output": Path("/nowhere/file.json")}, OptionError, "no folder"),
        ({"model": "nowhere.py:make"}, OptionError, "names no file"),
    ],
)
def test_what_the_command_refuses(tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    arguments: dict[str, Any] = {
        "a": "cpu", "b": "h100-tf32", "model": f"{tmp_path}/model.py:make", "metric": "error", "budget": "floor",
        "output": tmp_path / "p.json", "trials": 10, "timed": 0,
    }  # fmt: skip
    with pytest.raises(error, match=says):
        command.fix(**{**arguments, **changes}, as_json=True)
    assert not (tmp_path / "p.json").exists()


def test_the_command_writes_a_file_and_says_how_sure_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    output = tmp_path / "p.json"
    settings: dict[str, Any] = {"budget": "floor", "output": output, "trials": 10, "timed": 0}
    status = command.fix("cpu", "h100-tf32", f"{tmp_path}/model.py:make", "error", **settings, as_json=False)
    text = capsys.readouterr().out
    assert status == 0 and "1 of 1 kernel in float64" in text and "No smaller set meets the budget." in text
    assert json.loads(output.read_text())["schema"] == "torchport.precision/1"
    settings["budget"] = "0"
    assert command.fix("eager", "h100-tf32", f"{tmp_path}/model.py:make", "error", **settings, as_json=False) == 1
    assert "No file was written" in capsys.readouterr().out


def long_sum() -> tuple[Any, tuple[torch.Tensor, ...]]:
    """A product over 32768 positive terms, and a short one."""
    generator = torch.Generator().manual_seed(0)

    def model(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(x @ w) @ v

    shapes = (6, 32768), (32768, 8), (8, 4)
    return model, tuple(torch.rand(shape, generator=generator) for shape in shapes)


def test_another_order_is_taken_where_it_does_as_well(tmp_path: Path) -> None:
    """An H100's f32 products are running sums: of 32768 positive terms, each is rounded at the size of the total."""
    model, inputs = long_sum()
    chip = Side(way_of("h100"))
    found = fix(model, inputs, EXACT, chip, METRICS["error"], budget=1.5e-7, timed=0)
    assert found.search.met and found.remedies == ("blocks",) and found.before.value > 1.5e-7 >= found.after.value
    strict = fix(model, inputs, EXACT, chip, METRICS["error"], budget=found.after.value / 50, timed=0)
    assert not strict.search.met or "float64" in strict.remedies
    assert found.plan is not None
    found.plan.write(tmp_path / "p.json")
    again = way_of("h100").with_precision(tmp_path / "p.json").run(model, inputs)
    assert METRICS["error"].measure(EXACT.way.run(model, inputs), again, inputs).value == found.after.value


def test_order_alone_and_what_has_no_sum() -> None:
    model, inputs = long_sum()
    found = fix(model, inputs, EXACT, Side(way_of("h100")), METRICS["error"], budget=1.5e-7, timed=1, remedy="order")
    assert found.remedies == ("blocks",) and found.cost is not None and found.kernels == 2
    with pytest.raises(OptionError, match="no kernel of B has a sum whose order is known"):
        fix(torch.exp, inputs[:1], EXACT, CPU, METRICS["error"], budget=0.0, remedy="order")


def test_training_is_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The gradients of the last of two steps, and the loss; the model keeps its weights."""
    model, inputs = net()
    before = [one.detach().clone() for one in model.parameters()]
    steps = Steps(2, 0.05)
    found = fix(model, inputs, CPU, CHIP, METRICS["gradients"], budget=2e-5, timed=1, steps=steps)
    assert found.search.met and found.before.value > 2e-5 >= found.after.value and found.after.units == 1
    assert found.plan is not None and {one.direction for one in found.plan.graphs} == {"forward", "backward"}
    assert found.cost is not None and all(map(torch.equal, before, model.parameters()))
    path = tmp_path / "p.json"
    found.plan.write(path)
    results = [way.run(model, inputs, steps) for way in (CPU.way, CHIP.way, CHIP.way.with_precision(path))]
    assert results[0]["losses"].shape == (2,) and results[0]["losses"][1] < results[0]["losses"][0]
    loss = [METRICS["loss"].measure(results[0], one, ()).value for one in results]
    assert loss[0] == 0 and loss[2] < loss[1]
    with pytest.raises(OptionError, match="is of training"):
        METRICS["loss"].measure(torch.zeros(2), torch.zeros(2), ())
    (tmp_path / "model.py").write_text(MODEL)
    settings: dict[str, Any] = {"budget": "0.5", "output": tmp_path / "q.json", "trials": 10, "timed": 0}
    name = f"{tmp_path}/model.py:make"
    assert command.fix("cpu", "h100-tf32", name, "loss", **settings, as_json=False, train=1) == 0
    assert "within the budget already" in capsys.readouterr().out
    with pytest.raises(OptionError, match="valid: either, type, order"):
        command.fix("cpu", "h100-tf32", name, "loss", **settings, as_json=False, remedy="magic")

"""What recorded launches left, against the graph in float64."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

import torchport
from torchport.numerics.compare.launch_verdict import judge_launch
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.measure import relative_l2
from torchport.numerics.verdicts.observed import tensor_of
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of


def recorded(folder: Path, rows: int = 9) -> RecordedCall:
    def model(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = torch.cat([x, x], 0).reshape(-1, 64)
        return torch.softmax(torch.relu(F.layer_norm(y, (64,)) @ w), -1)

    torch.compiler.reset()
    generator = torch.Generator().manual_seed(0)
    compiled = torch.compile(model, backend="torchport", dynamic=True)
    with torchport.record(folder, "full"):
        compiled(torch.randn(rows, 64, generator=generator), torch.randn(64, 48, generator=generator))
    (call,) = calls_of(Run.load(folder))
    return call


def test_graphs_with_symbolic_sizes_have_a_truth(tmp_path: Path) -> None:
    call = recorded(tmp_path / "run")
    assert any(isinstance(size, str) for node in call.nodes.values() for size in (node["value"] or {}).get("shape", ()))
    assert call.reference.values.keys() == {*call.observed.by_node, *call.graph.outputs}
    assert not call.reference.refused
    assert {launch.kind for launch in call.launches if call.observed.left_by(launch)} == {"kernel", "extern"}
    for node, one in call.observed.by_node.items():
        assert one.value is not None
        exact = call.reference.values[node]
        assert relative_l2(one.value.double() - exact, exact) < 1e-5, node


def test_what_a_kernel_leaves_as_it_was_is_not_the_value_it_would_have_had(tmp_path: Path) -> None:
    """A store that nobody needs is dropped, and the buffer keeps what was in it."""
    call = recorded(tmp_path / "run")
    launch = next(one for one in call.launches if any(arg.role == "inout" for arg in one.args))
    node = next(str(arg.node) for arg in launch.args if arg.role == "inout")
    assert node in call.observed.left_by(launch)
    args = tuple(type(arg)(**{**vars(arg), "after": arg.before}) for arg in launch.args)
    same = [type(one)(**{**vars(one), "args": args}) if one is launch else one for one in call.launches]
    again = RecordedCall(call.run, call.key, call.number, same)
    assert node not in again.observed.left_by(next(one for one in again.launches if one.seq == launch.seq))


def test_a_product_of_what_was_joined_is_judged_on_what_it_read(tmp_path: Path) -> None:
    """Parts are written into one storage, which is then all of the product's operand."""
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(9, 32, generator=generator), torch.randn(64, 48, generator=generator)
    compiled = torch.compile(lambda x, w: torch.cat([torch.exp(x), torch.sin(x)], 1) @ w, backend="torchport")
    with torchport.record(tmp_path / "run", "full"):
        compiled(x, w)
    run = Run.load(tmp_path / "run")
    (call,) = calls_of(run)
    (launch,) = (one for one in call.launches if one.operation is not None)
    operand = next(arg for arg in launch.args if arg.name == "self")
    joined = tensor_of(run, operand, after=False)
    assert joined is not None and operand.shape == (9, 64)
    (exact,) = call.reference.of_launch(launch).values()
    assert torch.equal(exact, joined.double() @ w.double())


def test_a_decision_on_its_boundary_is_no_other_computation(tmp_path: Path) -> None:
    """Fourteen hundredths: 14 * 0.01 is less than 0.14 rounded to f32, and equal to it once the product is rounded."""

    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x * 0.01 >= 0.14, x.sin(), 3.0)

    compiled = torch.compile(model, backend="torchport")
    with torchport.record(tmp_path / "run", "full"):
        compiled(torch.arange(12.0, 18.0))
    (call,) = calls_of(Run.load(tmp_path / "run"))
    (launch,) = call.launches
    found = judge_launch(call, launch, judge)
    (node,) = call.graph.outputs
    value = call.observed.by_node[node].value
    exact = found.reference[node]
    assert value is not None and relative_l2(value.double() - exact, exact) > 0.1, "no decision"
    assert found.verdict.level in ("EXACT", "EXPECTED")
    assert not found.verdict.reasons

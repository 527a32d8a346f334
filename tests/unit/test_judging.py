"""Verdicts on recorded operators: their FX nodes in float64 against what they gave."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from recorded import Fault, recorded

import torchport
from torchport.numerics.compare.diff import compare
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of
from torchport.numerics.verdicts.replay import NotReplayable


def operators(faults: dict[str, Fault] | None = None) -> RecordedCall:
    """A run whose launches are operators of aten."""
    run = recorded(faults)
    launches = [replace(one, kernel=None, operation=f"aten.{one.kernel}.out") for one in run.launches[1:]]
    (call,) = calls_of(replace(run, launches=[run.launches[0], *launches]))
    return call


def test_operators_that_round_legally_are_expected() -> None:
    call = operators()
    levels = {one.nodes[0]: judge(call, one).level for one in call.launches}
    assert set(levels.values()) <= {"EXACT", "EXPECTED"}
    assert levels["mm"] == "EXPECTED"


@pytest.mark.parametrize("part", [1e-4, -1e-4])
def test_a_product_that_is_off_everywhere_fails(part: float) -> None:
    call = operators({"mm": lambda value: value * (1 + part)})
    found = {one.nodes[0]: judge(call, one) for one in call.launches}
    assert found["mm"].level == "FAIL"
    assert found["mm"].method == "FX nodes in float64"
    assert any("biased" in reason for reason in found["mm"].reasons)
    assert {name for name, one in found.items() if one.level in ("SUSPECT", "FAIL")} == {"mm"}


def test_one_wrong_element_fails() -> None:
    def wrong(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[3, 5] += 1e-3
        return value

    call = operators({"mm_1": wrong})
    (verdict,) = [judge(call, one) for one in call.launches if one.nodes == ("mm_1",)]
    assert verdict.level == "FAIL"
    errors = verdict.tensors[0].errors
    assert errors is not None
    assert errors.worst[0][0] == 3 * 16 + 5


def test_what_reads_nothing_that_the_graph_knows_is_not_judged() -> None:
    call = operators()
    launch = call.launches[0]
    unknown = tuple(replace(arg, node=None, before=None) if arg.role == "in" else arg for arg in launch.args)
    with pytest.raises(NotReplayable, match="nothing that it reads"):
        judge(call, replace(launch, args=unknown))


def test_a_product_in_the_target_s_own_arithmetic_is_expected_and_one_beyond_it_fails(tmp_path: Path) -> None:
    """Sums of 2,048 positive terms, cut as an H100's matrix units cut them: far beyond noise, and explained."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(16, 2048, generator=generator).half(), torch.rand(2048, 16, generator=generator).half() / 64
    torch.compiler.reset()
    compiled = torch.compile(lambda x, y: torch.relu(x @ y), backend="torchport", options={"emulate": "h100"})
    with torchport.record(tmp_path / "run", "full"):
        compiled(a, b)
    run = Run.load(tmp_path / "run")
    (call,) = calls_of(run)
    (launch,) = [one for one in call.launches if one.operation is not None]
    verdict = judge(call, launch)
    assert (verdict.level, verdict.cause) == ("EXPECTED", "matrix unit")
    assert verdict.reasons, "it passes every gate: nothing was to be explained"
    assert verdict.residual is not None
    assert verdict.residual < 1e-6

    result = next(arg for arg in launch.args if arg.role == "out")
    wrong = run.tensor(str(result.after)).clone()
    wrong[7] *= 1.01
    changed = _Changed(**{**vars(run), "replaced": {str(result.after): wrong}})
    (call,) = calls_of(changed)
    assert judge(call, launch).level == "FAIL"


def test_gradients_of_convolutions_are_judged_where_the_input_has_none(tmp_path: Path) -> None:
    """What the operator does not return, PyTorch has None for: the results behind it keep their names."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, 8, 8, generator=generator), torch.randn(4, 3, 3, 3, generator=generator)
    weight.requires_grad_()
    torch.compiler.reset()
    compiled = torch.compile(torch.nn.functional.conv2d, backend="torchport")
    with torchport.record(tmp_path / "run", "full"):
        compiled(x, weight).square().sum().backward()
    run = Run.load(tmp_path / "run")
    found = [
        (call, one) for call in calls_of(run) for one in call.launches if "convolution_backward" in str(one.operation)
    ]
    ((call, launch),) = found
    assert launch.nodes
    forward = [one for one in run.launches if one.operation == "aten.convolution.default"]
    assert [(one.checks, one.flags) for one in forward] == [(("repeat",), ())]
    verdict = judge(call, launch)
    assert (verdict.level, [one.shape for one in verdict.tensors]) == ("EXPECTED", [(4, 3, 3, 3)])


@dataclass(frozen=True)
class _Changed(Run):
    """A run some of whose tensors are others."""

    replaced: dict[str, torch.Tensor] = field(default_factory=dict)

    def tensor(self, sha: str) -> torch.Tensor:
        return self.replaced[sha] if sha in self.replaced else super().tensor(sha)


class Embedded(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = torch.nn.Embedding(307, 64), torch.nn.Embedding(19, 64)
        self.norm, self.last = torch.nn.LayerNorm(64), torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.words(x) + self.places(torch.arange(19))
        return self.norm(h + self.last(self.norm(h)))


def test_a_kernel_that_reads_sums_of_rounded_numbers_is_no_other_computation(tmp_path: Path) -> None:
    """Two kernels round a sum to bf16; the one's sums of it are in no FX node, and nodes in float64 do not round."""
    torch.compiler.reset()
    model, x = Embedded().bfloat16(), torch.arange(38).reshape(2, 19)
    called = torch.compile(model, backend="torchport", dynamic=False)
    with torch.no_grad():
        called(x)
        with torchport.record(tmp_path / "run", "full"):
            called(x)
    run = Run.load(tmp_path / "run", trust=True)
    (call,) = calls_of(run)
    kernels = [launch for launch in call.launches if launch.kernel is not None]
    assert any(call.observed.unknown_to(launch) for launch in kernels), "the sums are a kernel's of their own"
    found = compare(run, run, judge)
    assert [root.reasons for root in found.roots if not root.legal] == [] and found.coverage["B"].levels["EXPECTED"]


@pytest.mark.slow  # compiles and judges a whole model
@pytest.mark.parametrize("name", ["qwen3_moe", "mamba"])
def test_what_reads_products_in_tf32_is_no_other_computation(name: str, tmp_path: Path) -> None:
    """Experts' products by groups, and states of a scan, are in no FX node; what they follow from may be in TF32."""
    pytest.importorskip("transformers")
    from torchport.evaluation.loading import load
    from torchport.evaluation.suite import ModelSpec
    from torchport.evaluation.verdicts import recorded as record
    from torchport.evaluation.verdicts import verdicts

    torch.compiler.reset()
    model = load(ModelSpec(name, batches=1))
    called = torch.compile(model.module, backend="torchport", options={"emulate": "a100-tf32"}, dynamic=False)
    model.run(called, model.calls[0])
    record(tmp_path / "run", lambda: model.run(called, model.calls[0]))
    found = verdicts(tmp_path / "run", "")
    assert found["bad"] == [] and found["verified"] > 20

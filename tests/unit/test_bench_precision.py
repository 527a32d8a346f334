"""tools/bench_precision.py: legal variants pass, faults are found and told apart, and its figures are what they say."""

from __future__ import annotations

import functools
import io
import math
from pathlib import Path

import pytest
import torch
from precision_bench import captured
from precision_bench.cases import MAKERS
from precision_bench.faults import outputs_of
from precision_bench.judging import JudgedVariant, judge_problem
from precision_bench.operators import OPERATORS, exact_result, judge_operator, other_ways
from precision_bench.problems import draw
from precision_bench.tables import CAUGHT, tables, wilson
from rich.console import Console

from torchport.numerics.verdicts.operators.references import spread_of
from torchport.numerics.verdicts.verdict import judge_tensor


def judged(name: str, dtype: torch.dtype, label: str) -> list[JudgedVariant]:
    problem = MAKERS[name](dtype, "randn", (33, 70), torch.Generator().manual_seed(1))
    return judge_problem(problem, label, "randn", (33, 70), 1)


@pytest.mark.parametrize(
    ("name", "dtype", "label"),
    [
        pytest.param("product", torch.float32, "fp32", marks=pytest.mark.slow),  # the other has most of its point
        ("rms_norm", torch.bfloat16, "bf16"),
    ],
)
def test_legal_variants_pass_and_faults_do_not(name: str, dtype: torch.dtype, label: str) -> None:
    results = judged(name, dtype, label)
    legal = [r for r in results if not r.number]
    assert len(legal) > 15
    assert [r for r in legal if r.level in CAUGHT] == []
    strong = [r for r in results if r.number and r.severity >= 8]
    assert len(strong) > 5
    assert [r for r in strong if r.level not in CAUGHT] == []
    known = [r for r in results if r.attributed]
    assert known
    assert all(r.attributed == r.cause for r in known)
    caught = [r for r in results if r.number and r.level in CAUGHT]
    assert any(all(r.rivals.values()) for r in caught), "nothing here that only torchport sees"
    console = Console(width=200, record=True, file=io.StringIO())
    for table in tables(results):
        console.print(table)
    assert f"0 of {len(legal)}" in console.export_text()


def test_kernels_of_models_on_what_went_through_them(tmp_path: Path) -> None:
    x = torch.randn(7, 33, generator=torch.Generator().manual_seed(0))

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x) * 3 - x

    run = captured.record(functools.partial(torch.compile(function, backend="torchport"), x), tmp_path / "run")
    launches = list(captured.launches_of(run))
    problems = [captured.problem_of(run, launch, "here") for launch in launches]
    (problem,) = problems
    assert "exp" in problem.functions
    assert problem.traits == {"gradient"}
    results = judge_problem(problem, "fp32", "captured", captured.shape_of(problem), 0)
    legal = [r for r in results if not r.number]
    assert len(legal) > 5
    assert [r for r in legal if r.level in CAUGHT] == []
    strong = [r for r in results if r.number and r.severity >= 8]
    assert len(strong) > 10
    assert [r for r in strong if r.level not in CAUGHT] == []
    assert problem.shorter is not None
    ((name, right),) = outputs_of(problem).items()
    wrong = outputs_of(problem, replay=problem.shorter)[name]
    assert (wrong != right).nonzero().tolist() == [[6, 32]]


def test_wilson() -> None:
    low, high = wilson(0, 5000)
    assert low == 0.0
    assert high == pytest.approx(0.000768, abs=2e-6)  # z^2 / (n + z^2)
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(50, 100)
    assert math.isclose(low + high, 1.0)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_operators_other_ways_are_legal(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    for dtype in (torch.float32, torch.bfloat16):
        called = OPERATORS[name](lambda *size, dtype=dtype: draw(size, dtype, "positive", generator), 20, 30)
        found = spread_of(called, orders=False)
        assert found is not None
        exact, native = exact_result(called), called.run()[0]
        reference = found.reference(0, exact, native.dtype)
        ways = dict(other_ways(called))
        assert len(ways) >= 9
        if dtype == torch.float32:  # rounded to 16 bits, all may be the same
            assert len({tuple(one.flatten().tolist()) for one in ways.values()}) > 5, "ways are one"
        for what, result in {**ways, "native": native}.items():
            verdict = judge_tensor(result, reference)
            assert verdict.level in ("EXACT", "EXPECTED"), (what, verdict.reasons)
        assert judge_tensor((native.double() * (1 + 2 * torch.finfo(dtype).eps)).to(dtype), reference).level in CAUGHT


@pytest.mark.slow  # it compiles some thirty kernels
def test_operators_faults_are_found_and_told_apart() -> None:
    results = judge_operator("aten.addmm", "fp32", "randn", (48, 300), 1)  # truncation needs long sums to be seen
    assert [r for r in results if not r.number and r.level in CAUGHT] == []
    strong = [r for r in results if r.number and r.severity >= 8]
    assert len(strong) > 10
    assert [r for r in strong if r.level not in CAUGHT] == []
    known = [r for r in results if r.attributed]
    assert len(known) >= 3
    assert all(r.attributed == r.cause for r in known)

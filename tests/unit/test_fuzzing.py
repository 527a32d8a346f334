"""The fuzzers: references, minimising, and processes that crash or hang."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import graph_run, graph_shrink, kernel_run, kernel_shrink
from fuzzing.campaign import minimised
from fuzzing.formats import FLOATS, rounded, sample, to_numpy, torch_dtype
from fuzzing.graph_compare import wrong
from fuzzing.graph_program import Input
from fuzzing.graph_program import Program as GraphProgram
from fuzzing.kernel_program import Program, walk
from fuzzing.kernel_random import random_program
from fuzzing.outcome import DIFFERS, ERROR, SAME, Outcome
from fuzzing.values import Value, difference
from fuzzing.worker import Died, Worker

X = Input("x0", "float32", (4, 6), 1)
GRAPH = GraphProgram(
    1,
    (X, Input("x1", "float32", (6,), 2)),
    ("v0 = x0 * 2", "v1 = torch.cumsum(v0, 1)", "v2 = v1 + x1", "x0.add_(1)", "v3 = v2.t()"),
    ("v3", "v0", "x0"),
    frozenset(("v1", "v2", "v3")),
)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_rounding_is_torchs(dtype: str) -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([bits, sample(rng, "fp32", (1000,), "edge").astype(np.float32)])
    expected = to_numpy(torch.from_numpy(values).to(torch_dtype(dtype)))
    np.testing.assert_array_equal(rounded(values.astype(np.float64), dtype), expected)


def test_one_unit_in_the_last_place_is_a_difference() -> None:
    one = np.ones(3)
    assert difference(Value("fp32", one), one.copy()) is None
    off = np.array([1.0, 1.0 + 2.0**-23, 1.0])
    assert difference(Value("fp32", one), off) is not None
    assert difference(Value("fp32", one, np.full(3, 2.0**-22)), off) is None
    assert difference(Value("fp32", np.zeros(1)), np.array([-0.0])) is not None


@pytest.mark.parametrize("seed", range(6))
def test_kernels_on_the_cpu(seed: int) -> None:
    program = random_program(seed)
    assert program.source() == random_program(seed).source()
    assert kernel_run.run(program, "cpu").kind == SAME


def test_a_kernels_wrong_result_is_seen() -> None:
    program = next(
        p for p in map(random_program, range(50)) if any(i.storage.dtype.kind == "f" for i in p.used_inputs())
    )
    expected = kernel_run.expected(program)

    def flipped(value: Value) -> Any:
        got = np.array(value.data)
        got[0] = ~got[0] if got.dtype.kind in "biu" else np.nextafter(got[0], np.inf)
        return got

    assert any(difference(value, flipped(value)) for value in expected)


def test_kernels_are_minimised() -> None:
    program = next(p for p in map(random_program, range(200)) if _has(p, "sum") and len(p.instructions) > 6)
    small, _ = minimised(
        program, Outcome(DIFFERS), kernel_shrink.smaller, lambda p: Outcome(DIFFERS if _has(p, "sum") else SAME), 60
    )
    assert [i.op for i in small.instructions] == ["load", "sum"]
    assert len(small.outputs) == 1
    assert small.grid == 1


def _has(program: Program, op: str) -> bool:
    return any(i.op == op for i in walk(program.instructions))


def test_graphs_are_minimised() -> None:
    def run(program: GraphProgram) -> Outcome:
        return Outcome(DIFFERS if any("cumsum" in line for line in program.lines) else SAME)

    small, _ = minimised(GRAPH, Outcome(DIFFERS), graph_shrink.smaller, run, 60)
    assert [line for line in small.lines if "cumsum" in line] == list(small.lines)[-1:]
    assert len(small.lines) == 2
    assert [i.name for i in small.inputs] == ["x0"]


def _backend(change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Eager, with the first float of the results changed."""

    def compile_graph(module: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        return lambda *arguments: [change(r) for r in module(*arguments)]

    return compile_graph


def test_graphs_are_compared_with_eager() -> None:
    assert graph_run.run(GRAPH, "eager").kind == SAME
    assert graph_run.run(GRAPH, _backend(lambda r: r)).kind == SAME
    assert graph_run.run(GRAPH, _backend(lambda r: r * 1.001)).kind == DIFFERS
    assert graph_run.run(GRAPH, _backend(lambda r: r.double())).kind == DIFFERS


def test_finite_where_eager_overflows_is_judged_by_float64() -> None:
    eager = torch.tensor([float("inf"), 1.0], dtype=torch.float16)
    wide = torch.tensor([38.2031, 1.0], dtype=torch.float64)
    assert wrong(torch.tensor([38.21, 1.0], dtype=torch.float16), eager, wide, False) is None
    assert wrong(torch.tensor([42.0, 1.0], dtype=torch.float16), eager, wide, False) is not None


def test_float64_of_float32_values_needs_a_reference_to_be_exact() -> None:
    eager = torch.ones(1, dtype=torch.float64)
    assert wrong(eager * (1 + 1e-7), eager, None, False) is None
    assert wrong(eager * (1 + 1e-7), eager, eager, False) is not None
    assert wrong(eager * (1 + 1e-7), eager, eager, False, torch.float32) is None
    assert wrong(eager * (1 + 1e-5), eager, eager, False, torch.float32) is not None


def test_gradients_through_16_bits_have_their_roundings_where_there_is_no_reference() -> None:
    eager = torch.ones(1)
    assert wrong(eager * (1 + 1e-3), eager, None, False, torch.float16) is None
    assert wrong(eager * (1 + 1e-3), eager, None, False, torch.float32) is not None
    assert wrong(eager * (1 + 1e-3), eager, eager, False, torch.float16) is not None


def test_a_gradient_that_eager_refuses_is_compared() -> None:
    program = replace(
        GRAPH,
        inputs=(replace(X, grad=True),),
        lines=("v0 = x0 * 0.1", "v1 = torch.exp(v0)", "v2 = v1 * 1", "v1.add_(1)"),
        results=("v2",),
        approximate=frozenset(("v2",)),
    )

    def with_ones(module: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        return lambda x: [result.detach() + x - x.detach() for result in module(x)]

    assert graph_run.run(program, "eager").kind == SAME  # which refuses it too
    assert graph_run.run(program, "aot_eager").kind == SAME
    assert graph_run.run(program, with_ones).kind == DIFFERS


def test_sparse_results_are_compared() -> None:
    x = torch.eye(2).to_sparse()
    assert wrong(x, x, None, True) is None
    assert wrong(x * 2, x, None, True) is not None
    assert wrong(x.to_dense(), x, None, True) == "torch.strided instead of torch.sparse_coo"


def test_what_eager_refuses_is_refused_compiled() -> None:
    assert graph_run.run(replace(GRAPH, lines=("v3 = x0.view(5)", "v0 = x0"), results=("v3",)), "eager").kind == SAME
    growing = replace(GRAPH, lines=("v3 = x0.add_(x1)",), results=("v3",))
    assert graph_run.run(growing, _backend(lambda r: r[:, 1:])).kind in (DIFFERS, ERROR)


def test_crashes_and_hangs_end_their_process_only() -> None:
    worker = Worker(timeout=60)
    assert worker.call(max, 1, 2) == 2
    with pytest.raises(Died, match="crash: SIGABRT"):
        worker.call(os.abort)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        worker.call(divmod, 1, 0)
    worker.timeout = 0.5
    with pytest.raises(Died, match="hang"):
        worker.call(time.sleep, 60)
    worker.close()
    assert set(FLOATS) >= {"fp16", "bf16"}

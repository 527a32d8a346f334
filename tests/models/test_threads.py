"""The number of threads: the same bits where no reduction is split, else right to the same bound."""

from __future__ import annotations

import pytest
import torch
from accuracy import InFloat64, compare
from model_zoo import build
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("no_fallback")

THREADS = (1, 2, 3)


def rows(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Pointwise operations and reductions of rows: each row belongs to one thread."""
    return F.gelu(x) * w, torch.softmax(x, -1), F.layer_norm(x, x.shape[-1:]) + w, x.cumsum(-1), x.argmax(-1)


def test_rows_do_not_depend_on_threads(compile_backend: str) -> None:
    x, w = torch.randn(517, 211), torch.randn(211)
    results = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        results.append(torch.compile(rows, backend=compile_backend)(x, w))
        assert torch.get_num_threads() == threads, "the backend changed torch's number of threads"
    for threads, result in zip(THREADS, results, strict=True):
        for index, (got, expected) in enumerate(zip(result, results[0], strict=True)):
            assert torch.equal(got, expected), f"output {index} with {threads} threads differs from one thread"


@pytest.mark.parametrize("name", ["bert", "dlrm"])
def test_models_are_right_with_any_number_of_threads(name: str, compile_backend: str) -> None:
    built = build(name)
    wide = built.to(torch.float64)
    with torch.no_grad():
        with InFloat64():
            reference = wide.outputs(wide.module(**wide.inputs))
        for threads in THREADS:
            torch.set_num_threads(threads)
            eager = built.outputs(built.module(**built.inputs))
            got = built.outputs(torch.compile(built.module, backend=compile_backend)(**built.inputs))
            problems = compare(got, eager, reference)
            assert not problems, f"{name}, {threads} threads, {compile_backend}:\n" + "\n".join(problems)

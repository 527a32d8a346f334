"""Batch and sequence change: no more compiles than with Inductor, and right at every size."""

from __future__ import annotations

import pytest
import torch
from accuracy import InFloat64, compare
from model_zoo import Built, build
from torch._dynamo.testing import CompileCounterWithBackend

pytestmark = pytest.mark.usefixtures("no_fallback")

SIZES = [(2, 19), (3, 19), (3, 32), (5, 41), (2, 8)]


def compiles(built: Built, backend: str, dynamic: bool | None) -> tuple[int, list[str]]:
    """Number of graphs compiled over SIZES, and what was wrong with the results."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(built.module, backend=counter, dynamic=dynamic)
    wide, problems = built.to(torch.float64), []
    for batch, sequence in SIZES:
        inputs = built.resized(batch, sequence)
        with torch.no_grad():
            with InFloat64():
                reference = built.outputs(wide.module(**inputs))
            eager = built.outputs(built.module(**inputs))
            got = built.outputs(compiled(**inputs))
        problems += [f"{batch} x {sequence}: {line}" for line in compare(got, eager, reference)]
    return counter.frame_count, problems


@pytest.mark.parametrize(
    "dynamic", [pytest.param(None, marks=pytest.mark.slow, id="automatic"), pytest.param(True, id="dynamic")]
)
@pytest.mark.parametrize("name", ["bert", pytest.param("llama", marks=pytest.mark.slow)])
def test_sizes_change(name: str, dynamic: bool | None, compile_backend: str) -> None:
    built = build(name)
    count, problems = compiles(built, compile_backend, dynamic)
    assert not problems, f"{name} with {compile_backend}:\n" + "\n".join(problems)
    # Guards come from tracing and from lowering; the first are the same for every backend, the second are Inductor's.
    allowed, _ = compiles(built, "inductor", dynamic)
    assert count <= allowed, f"{name}: {count} compiles with {compile_backend}, {allowed} with inductor"

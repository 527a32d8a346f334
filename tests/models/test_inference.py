"""Every model of the zoo, in every float dtype: right against float64, and the same bits in a second run."""

from __future__ import annotations

import pytest
import torch
from accuracy import InFloat64, compare
from model_zoo import build, entries
from torch._dynamo.testing import CompileCounterWithBackend

pytestmark = pytest.mark.usefixtures("no_fallback")

# One model of each kind: encoder, decoder, experts, scan, windows, convolutions, graphs, embedding bags. The others,
# and float16, are marked slow.
QUICK = {
    torch.float32: {
        "bert", "llama", "gemma2", "qwen3_moe", "mamba", "t5", "whisper", "swin", "convnext", "unet",
        "dlrm",
    },
    torch.bfloat16: {"llama", "mamba", "convnext", "dlrm"},
}  # fmt: skip


def marks(name: str, dtype: torch.dtype) -> tuple[pytest.MarkDecorator, ...]:
    return () if name in QUICK.get(dtype, ()) else (pytest.mark.slow,)


CASES = [
    pytest.param(name, dtype, id=f"{name}-{str(dtype).removeprefix('torch.')}", marks=marks(name, dtype))
    for name, entry in entries().items()
    for dtype in entry.dtypes
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_inference(name: str, dtype: torch.dtype, compile_backend: str) -> None:
    built = build(name, "small", dtype)
    wide = built.to(torch.float64)
    with torch.no_grad():
        with InFloat64():
            reference = wide.outputs(wide.module(**wide.inputs))
        eager = built.outputs(built.module(**built.inputs))
        counter = CompileCounterWithBackend(compile_backend)
        compiled = torch.compile(built.module, backend=counter)
        first = built.outputs(compiled(**built.inputs))
        first = {key: value.clone() for key, value in first.items()}
        second = built.outputs(compiled(**built.inputs))
    assert counter.frame_count, f"{name}: Dynamo left the whole model to eager"
    problems = compare(first, eager, reference)
    assert not problems, f"{name} {dtype} with {compile_backend}:\n" + "\n".join(problems)
    for key in first:
        torch.testing.assert_close(
            second[key], first[key], rtol=0, atol=0, equal_nan=True, msg=f"{name}: {key} changed in a second run"
        )

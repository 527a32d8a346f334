"""One model graph, one process, several targets: results of those that run agree, machine code for those that are not
here."""

from __future__ import annotations

import pytest
import torch
from accuracy import InFloat64, compare
from model_zoo import Built, build, entries
from training import judge

from torchport.errors import TargetError
from torchport.offline import capture, compile_kernel
from torchport.plugin import backend_for
from torchport.runtime import events
from torchport.target import Target


def opencl_is_here() -> bool:
    try:
        backend_for(Target("opencl")).driver(Target("opencl"))
    except TargetError:
        return False
    return True


pytestmark = pytest.mark.skipif(not opencl_is_here(), reason="no OpenCL device: pip install 'pyopencl[pocl]'")

# Every model runs with --all; a decoder, windows and embedding bags are enough to see a break of the target.
QUICK = ("llama", "dlrm")
ON_THE_HOST = ("convolution", "embedding_bag", "topk", "sort", "histc", "grouped_mm", "_local_scalar_dense")
"""Parts of the names of operations that opencl may leave to the host: they have no device kernel."""


def on(target: str, built: Built) -> dict[str, torch.Tensor]:
    compiled = torch.compile(built.module, backend="torchport", options={"target": target})
    return {name: value.clone() for name, value in built.outputs(compiled(**built.inputs)).items()}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in entries()])
def test_inference(name: str) -> None:
    built = build(name, "small", torch.float32)
    wide = built.to(torch.float64)
    with torch.no_grad(), InFloat64():
        reference = wide.outputs(wide.module(**wide.inputs))
    with torch.no_grad(), events.capture() as happened:
        eager = built.outputs(built.module(**built.inputs))
        outputs = {}
        for target in ("cpu", "opencl"):
            torch._dynamo.reset()
            outputs[target] = on(target, built)
    for target, found in outputs.items():
        problems = compare(found, eager, reference)
        assert not problems, f"{name} on {target}:\n" + "\n".join(problems)
    fallbacks = [event for event in happened if isinstance(event, events.Fallback)]
    strange = [str(f) for f in fallbacks if f.to != "host" or not any(word in str(f) for word in ON_THE_HOST)]
    assert not strange, "\n".join(strange)


@pytest.mark.parametrize("name", [pytest.param("llama", marks=pytest.mark.slow), "dlrm"])
def test_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHPORT_TARGET", "opencl")
    built = build(name, "small", torch.float32, train=True)
    judge(f"training {name} on opencl", built.to(torch.float32), built, built.to(torch.float64), "torchport")


def test_one_module_for_four_targets() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.LayerNorm(64)).eval()
    x = torch.randn(9, 32)
    with torch.no_grad():
        exact = model.double()(x.double())
        model.float()
        for target in ("cpu", "opencl"):
            torch._dynamo.reset()
            got = torch.compile(model, backend="torchport", options={"target": target})(x)
            assert (got.double() - exact).abs().max() <= 2e-6, target
    kernels = capture(model, (x,)).kernels
    for target in ("cuda:90", "hip:gfx942", "opencl"):
        artifacts = [compile_kernel(kernel, Target.parse(target)) for kernel in kernels]
        assert artifacts and all(artifact.binary and not artifact.error for artifact in artifacts), target

"""Several torch devices, and operators between the graphs of a compiled model."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

import torchport
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")

ON_THE_SECOND = """
import torch, torchport
from torchport.torch_device.targets import targets

if len(targets()) < 2:
    raise SystemExit("one device")
torchport.device(0)
first, second = torch.device("torchport:0"), torch.device("torchport:1")
torch.manual_seed(0)
x, w = torch.randn(3, 8), torch.randn(5, 8)

def program(x, w):
    y = torch.nn.functional.layer_norm((x @ w.t()).softmax(-1), (5,))
    return y.cumsum(0), y[:, ::2].sort(-1).values, torch.relu_(y * 2)

wanted = program(x, w)
compiled = torch.compile(program, backend="torchport")
for function, device in ((program, second), (compiled, second), (compiled, first)):
    for mine, theirs in zip(function(x.to(device), w.to(device)), wanted):
        assert mine.device == device
        torch.testing.assert_close(mine.cpu(), theirs)
assert (x.to(first).to(second) + 1).to(first).cpu().equal(x + 1)
with torch.torchport.device(1):
    assert torch.zeros(3, device="torchport").device == second
print(dict(torchport.fallbacks()))
"""


def test_the_second_device_computes() -> None:
    """PoCL shows its CPU twice if asked to."""
    done = subprocess.run(
        [sys.executable, "-c", ON_THE_SECOND],
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "POCL_DEVICES": "pthread pthread"},
    )
    if "one device" in done.stderr:
        pytest.skip("PoCL's CPU has another name here")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{}\n"


def test_operators_between_graphs_are_no_graphs() -> None:
    """``nonzero`` ends a graph; Dynamo, which looks at all that runs until the next, does not compile its code."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(module: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(module)
        return module.forward

    @torch.compile(backend=backend)
    def program(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        return y.nonzero() * 2

    x = torch.tensor([1.0, -1.0, 2.0]).to(torchport.device(0))
    assert program(x).cpu().tolist() == [[0], [4]]
    assert len(graphs) == 2


def test_generated_code_allocates_without_the_dispatcher() -> None:
    from torchport.torch_device import plans

    x = torch.rand(2, 3, 2, 5).to(torchport.device(0))
    seen: list[str] = []
    load = plans._load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "_load", lambda code, guards: seen.append(code) or load(code, guards))
        x.erfinv().logaddexp(x).cpu()  # operators of no other test: plans are made once in a process
    assert any("torchport_empty_0(" in code for code in seen)
    assert not any("= empty_strided(" in code for code in seen)

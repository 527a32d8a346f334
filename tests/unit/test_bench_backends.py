"""The rivals of tools/bench_models.py: left out with a reason, and told to compute what the others do."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from model_bench.backends import compiled, left_to_torch, missing
from model_bench.report import METRICS, ratio, take_floor_away


def test_a_rival_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing("openvino") == "openvino is not installed"
    assert missing("eager") is None


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_openvino_is_told_type_and_threads(monkeypatch: pytest.MonkeyPatch, dtype: str, precision: str) -> None:
    """Left alone, it computes float32 models in bf16 where the CPU has instructions for it."""
    for name in ("openvino", "openvino.torch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(torch, "compile", lambda function, **options: options)
    asked: Any = compiled("openvino", abs, dtype, 3)
    assert asked["options"]["config"] == {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 3}


def test_what_openvino_leaves_to_eager_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Part(torch.nn.Module):
        def __init__(self, failed: bool) -> None:
            super().__init__()
            self.perm_fallback = failed

    def graph(failed: bool, *, eager: bool) -> torch.fx.GraphModule:
        nodes = torch.fx.Graph()
        value = nodes.call_module("fused_0", (nodes.placeholder("x"),))
        nodes.output(nodes.call_function(torch.relu, (value,)) if eager else value)
        return torch.fx.GraphModule({"fused_0": Part(failed)}, nodes)

    def lines(*graphs: torch.fx.GraphModule) -> list[str]:
        execute = SimpleNamespace(partitioned_modules=dict(enumerate(graphs)))
        monkeypatch.setitem(sys.modules, "openvino.frontend.pytorch.torchdynamo", SimpleNamespace(execute=execute))
        return left_to_torch()

    for name in ("openvino", "openvino.frontend", "openvino.frontend.pytorch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert lines(graph(False, eager=False)) == []
    assert "nothing" in lines()[0]
    assert "1 of 1 parts" in lines(graph(True, eager=False))[0]
    assert "relu" in lines(graph(False, eager=True))[0]


def test_the_floor_is_taken_from_both() -> None:
    """Its median, from each cold compile: (7 - 2) / (22 - 2); eager has nothing to be taken from."""
    seconds = {"eager": [0.1], "floor": [1.0, 2.0, 9.0], "inductor": [22.0], "torchport": [7.0]}
    row: dict[str, Any] = {
        "backends": {name: {"cold": [{"first_call_s": s} for s in samples]} for name, samples in seconds.items()}
    }
    (above,) = [metric for metric in METRICS if metric.key == "above"]
    assert ratio(above, row) is None
    take_floor_away(row["backends"])
    assert ratio(above, row) == 0.25
    assert not list(above.samples(row["backends"]["eager"])) + list(above.samples(row["backends"]["floor"]))


def test_the_floor_traces_and_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: options)
    assert compiled("floor", abs, "float32", 1) == {"backend": "aot_eager"}

"""Recorded runs for tests, in memory: a small graph, each of whose nodes is a kernel, with faults put into some."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from torchport.numerics.graphs.dump import dump, references
from torchport.numerics.graphs.evaluate import evaluate
from torchport.numerics.runs.reader import Arg, Launch, Run
from torchport.numerics.runs.summary import summarize
from torchport.numerics.verdicts.measure import measure, relative_l2
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.verdict import KernelVerdict, TensorVerdict, worst_level

Fault = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class MemoryRun(Run):
    """A run whose tensors are in memory."""

    stored: dict[str, torch.Tensor] = field(default_factory=dict)

    def tensor(self, sha: str) -> torch.Tensor:
        return self.stored[sha]


def model(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """A product, an operation that amplifies errors, another product, a normalisation."""
    a = x @ w
    b = torch.exp(a * 3)
    c = b @ w
    return torch.tanh(c / (1 + c.abs().amax(-1, keepdim=True)))


def recorded(
    faults: Mapping[str, Fault] | None = None,
    *,
    kept: bool = True,
    fused: tuple[str, ...] = (),
    target: str = "cpu",
    name: str = "triton_<script>alert(1)</script>",
    seed: int = 0,
) -> MemoryRun:
    """The run of ``model`` in f32. ``faults``: by node, what happens to its value; ``kept``: whether tensors are;
    ``fused``: nodes whose value is not written to memory."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(6, 16, generator=generator), torch.randn(16, 16, generator=generator) / 6]
    graph = dump(make_fx(model)(*inputs).graph)
    names = [node["name"] for node in graph["nodes"] if node["op"] == "placeholder"]
    values: dict[str, torch.Tensor] = dict(zip(names, inputs, strict=True))
    stored: dict[str, torch.Tensor] = {}
    launches: list[Launch] = []

    def arg(node: str, role: str) -> Arg:
        value = values[node].contiguous()
        stored[node] = value.reshape(-1)
        text, _ = summarize(value)
        hashes = (node if role == "in" else None, node if role == "out" else None) if kept else (None, None)
        return Arg(
            f"{role}_{node}", role, node, node, None, "float32", tuple(value.shape), value.stride(), 0, len(stored),
            json.loads(text), *hashes,
        )  # fmt: skip

    launches.append(Launch(0, "g", 0, "input", args=tuple(arg(node, "in") for node in names)))
    for node in graph["nodes"]:
        if node["op"] != "call_function":
            continue
        one = node["name"]
        known = {name: value for name, value in values.items() if name not in names}
        value = evaluate(graph, dict(zip(names, inputs, strict=True)), torch.float32, [one], known)[one]
        values[one] = (faults or {}).get(one, lambda value: value)(value).contiguous()
        if one in fused:
            continue
        reads = tuple(arg(used, "in") for used in dict.fromkeys(_read(graph, node, fused)))
        lines = {"unrecorded": None if kept else "statistics only"}
        launches.append(
            Launch(len(launches), "g", 0, "kernel", one, None, (1,), (*reads, arg(one, "out")), (one,), **lines)
        )
    info: dict[str, Any] = {"complete": True, "level": "full", "environment": {"torch": "2", "variables": {}}}
    kernels = {
        node["name"]: {"function": f"{name}_{node['name']}", "source": f"# <b>&amp;</b>\n{node['name']} = 1\n"}
        for node in graph["nodes"]
    }
    graphs = {"g": {"fx": graph, "direction": "inference", "target": target}}
    return MemoryRun(Path(f"/runs/{target}"), info, graphs, kernels, launches, {}, stored)


def _read(graph: Mapping[str, Any], node: Mapping[str, Any], fused: tuple[str, ...]) -> Iterator[str]:
    """What a kernel of ``node`` reads: in place of nodes that are fused into it, what they read."""
    nodes = {one["name"]: one for one in graph["nodes"]}
    for used in references(node["args"]):
        if used in fused:
            yield from _read(graph, nodes[used], fused)
        else:
            yield used


def judge(call: RecordedCall, launch: Launch, limit: float = 1e-6) -> KernelVerdict:
    """FAIL where a value is off from its FX node by more than ``limit`` (relative L2)."""
    found = []
    for node, one in call.observed.left_by(launch).items():
        assert one.value is not None
        exact = call.reference.of_launch(launch)[node]
        wrong = relative_l2(one.value.double() - exact, exact)
        errors = measure(one.value, exact, exact.abs() * 2**-24 + 1e-30)
        level, cause = ("FAIL", None) if wrong > limit else ("EXPECTED", "legal rounding")
        reasons = (f"off by {wrong:.2g}",) if level == "FAIL" else ()
        found.append(
            TensorVerdict(one.arg.name, node, "float32", tuple(one.value.shape), level, cause, reasons, errors)
        )
    level = worst_level(one.level for one in found)
    reasons = tuple(reason for one in found for reason in one.reasons)
    explained = (("TF32 inputs", 0.8),) if level == "FAIL" else ()
    return KernelVerdict(
        launch.seq, launch.kernel, None, launch.nodes, level, None, reasons, tuple(found), explained, 0.2, "test"
    )

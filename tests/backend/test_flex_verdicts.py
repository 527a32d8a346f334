"""FlexAttention whose kernels compute something else than score_mod and mask_mod: the graph in float64 tells."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import torchport
from torchport.inductor.codegen.templates import Template
from torchport.inductor.flex import lowering, templates
from torchport.numerics.compare.launch_verdict import LaunchVerdict, judge_launch
from torchport.numerics.graphs.evaluate import NotEvaluated, evaluate
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import calls_of

DOCUMENTS = torch.tensor([0] * 30 + [1] * 50 + [2] * 20)


def visible(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q >= k) & (DOCUMENTS[q] == DOCUMENTS[k])


def recorded(folder: Path, dtype: torch.dtype = torch.float32) -> Run:
    """A soft cap, a learned slope for each head, documents, shared heads, gradients of all and of the sums."""
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(4, generator=generator, requires_grad=True)
    shapes = (2, 4, 100, 16), (2, 2, 100, 16), (2, 2, 100, 16)
    given = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    mask = create_block_mask(visible, None, None, 100, 100, device="cpu", BLOCK_SIZE=32)

    def score(s: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return 20 * torch.tanh(s / 20) + slopes[h] * (q - k).abs() * 0.1

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return flex_attention(q, k, v, score_mod=score, block_mask=mask, enable_gqa=True, return_lse=True)

    compiled = torch.compile(call, backend="torchport", dynamic=False)
    with torch._inductor.config.patch(force_disable_caches=True), torchport.record(folder, "full"):
        out, sums = compiled(*given)  # graphs that are the same are compiled anew: templates change
        (out.float().sin().sum() + sums.sum()).backward()
    return Run.load(folder)


def judged(run: Run) -> list[LaunchVerdict]:
    return [judge_launch(call, launch, judge) for call in calls_of(run) for launch in call.launches]


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str)
def test_right_kernels_agree_with_the_graph_in_float64(tmp_path: Path, dtype: torch.dtype) -> None:
    run = recorded(tmp_path / "run", dtype)
    for call in calls_of(run):
        values = evaluate(call.dump, call.graph.inputs, wanted=list(call.observed.by_node))
        for node, seen in call.observed.by_node.items():
            assert seen.value is not None
            size = values[node].double().norm()
            assert (seen.value.double() - values[node]).norm() <= (1e-6 if dtype == torch.float32 else 2e-2) * size
    verdicts = judged(run)
    assert {verdict.verdict.level for verdict in verdicts} <= {"EXACT", "EXPECTED"}
    left = {node for verdict in verdicts for node in verdict.reference}
    assert {"getitem", "getitem_1", "getitem_3", "getitem_4", "getitem_5", "getitem_7"} <= left, "not all were compared"


FAULTS: dict[str, tuple[str, str, str]] = {
    "scale": ("_MACROS", "* SCALE", "* (SCALE * 1.02)"),
    "sums": ("FORWARD", "tl.store(SUMS + sums_at, highest", "tl.store(SUMS + sums_at, 0.99 * highest"),
    "not rescaled": ("FORWARD", "total * shrunk", "total"),
    "delta": ("_MACROS", "grad_weights - delta", "grad_weights - 0.9 * delta"),
}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.slow] * (name != "not rescaled")) for name in FAULTS]
)
def test_a_kernel_with_another_source_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    where, old, new = FAULTS[fault]
    changed: set[str] = set()

    @functools.cache
    def template(name: str) -> Template:
        source = getattr(templates, name)
        if where in (name, "_MACROS") and old in source:
            changed.add(name)
            source = source.replace(old, new)
        return Template(f"torchport_flex_{name.lower()}_{fault.replace(' ', '_')}", source)

    monkeypatch.setattr(lowering, "_template", template)
    bad = [verdict for verdict in judged(recorded(tmp_path / "run")) if verdict.suspicious]
    assert changed, "the templates no longer have this text"
    assert bad and all("flex" in verdict.name for verdict in bad)


def test_graphs_of_strangers_call_nothing_but_operators() -> None:
    def node(name: str, op: str, target: str, args: Sequence[Any] = ()) -> dict[str, Any]:
        rest = {"kwargs": {}, "value": None, "source": None, "module": None, "original": None}
        return {"name": name, "op": op, "target": target, "args": list(args), **rest}

    ends = node("x", "placeholder", "x"), node("y", "call_function", "os.system", ["ls"])
    inner = {"format": "torchport.fx/1", "nodes": list(ends), "outputs": ["y"], "constants": {}}
    q = torch.randn(1, 1, 4, 4)
    counts, blocks = torch.ones(1, 1, 1, dtype=torch.int32), torch.zeros(1, 1, 1, 1, dtype=torch.int32)
    query, count, block, score, mask_of = ({"node": name} for name in "qnism")
    mask = {"tuple": [4, 4, count, block, *[None] * 6, 4, 4, mask_of]}
    empty = {"tuple": []}
    graph = {
        "format": "torchport.fx/1",
        "nodes": [
            *(node(name, "placeholder", name) for name in "qni"),
            *(node(name, "get_attr", name) for name in "sm"),
            node("f", "call_function", "higher_order.flex_attention",
                 [query, query, query, score, mask, 0.5, {"dict": {}}, empty, empty]),
        ],
        "outputs": ["f"], "constants": {}, "graphs": {"s": inner, "m": inner},
    }  # fmt: skip
    refused: dict[str, str] = {}
    assert evaluate(json.loads(json.dumps(graph)), {"q": q, "n": counts, "i": blocks}, refused=refused) == {}
    assert "f" in refused
    ends[1]["args"] = [{"node": "nobody"}]
    with pytest.raises(NotEvaluated, match="nobody"):
        evaluate(json.loads(json.dumps(graph)), {"q": q, "n": counts, "i": blocks})

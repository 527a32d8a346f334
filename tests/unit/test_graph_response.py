"""How a graph's results answer to a changed node: only what depends on it is computed again, with the same bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from recorded import MemoryRun, recorded

from torchport.numerics.graphs.evaluate import evaluate
from torchport.numerics.verdicts import graph_reference
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of


def call_of(run: MemoryRun) -> RecordedCall:
    (call,) = calls_of(run)
    return call


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What was given to each evaluation."""
    seen: list[set[str]] = []

    def watched(*args: Any, **named: Any) -> Any:
        seen.append(set(named.get("given") or ()))
        return evaluate(*args, **named)

    monkeypatch.setattr(graph_reference, "evaluate", watched)
    return seen


def test_only_what_depends_on_a_node_is_computed_again(given: list[set[str]]) -> None:
    call = call_of(recorded())
    exact = call.reference.values
    for node, value in exact.items():
        moved = {node: value.double() * 1.001}
        whole = evaluate(call.dump, call.graph.inputs, wanted=call.graph.outputs, given=moved)
        found = call.reference.response(moved)
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], one) for name, one in whole.items())
    calls = [name for name, one in call.nodes.items() if one["op"] == "call_function"]
    assert given[1] == {"mm"}, "all depends on the first"
    assert given[-1] == set(calls), "nothing depends on the last"


def test_where_nodes_are_written_into_all_is_computed_again(given: list[set[str]]) -> None:
    run = recorded()
    (graph,) = run.graphs.values()
    nodes = [
        {**node, "target": "aten.exp_.default"} if node["target"] == "aten.exp.default" else node
        for node in graph["fx"]["nodes"]
    ]
    call = call_of(replace(run, graphs={"g": {**graph, "fx": {**graph["fx"], "nodes": nodes}}}))
    value = call.reference.values["mm_1"]
    call.reference.response({"mm_1": value * 2})
    assert given[-1] == {"mm_1"}

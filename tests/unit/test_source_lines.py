"""Source lines of nodes: the user's, and where torch's modules call each other, as in nn.Sequential, those of torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torchport
from torchport.numerics.graphs.source_lines import forward_line, source_of


class Own(nn.Module):
    """A forward of the user's around a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.net = sequential()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x * 2)  # the user's line


class Several(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two statements."""
        y = x + 1
        return y * 2


def sequential() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.LayerNorm(8), nn.Softmax(-1))


def nodes_of(model: nn.Module, folder: Path, *, eager: bool) -> list[dict[str, Any]]:
    """The calls of the recorded graph."""
    torch._dynamo.reset()
    called = model if eager else torch.compile(model, backend="torchport", options={"target": "cpu"})
    with torch.no_grad(), torchport.record(folder, "full", eager=model if eager else None):
        called(torch.randn(3, 8))
    (file,) = (folder / "graphs").iterdir()
    nodes = json.loads(file.read_text())["fx"]["nodes"]
    return [node for node in nodes if node["op"] == "call_function"]


@pytest.mark.parametrize("eager", [False, True])
def test_a_sequential_model_has_the_lines_of_torch_s_modules(tmp_path: Path, eager: bool) -> None:
    nodes = nodes_of(sequential(), tmp_path / "run", eager=eager)
    lines = {node["module"]["class"]: node["source"] for node in nodes}
    assert set(lines) == {"Linear", "GELU", "LayerNorm", "Softmax"}
    assert lines["Linear"]["file"].endswith("nn/modules/linear.py")
    assert lines["Linear"]["code"] == "return F.linear(input, self.weight, self.bias)"
    assert lines["Softmax"]["code"].startswith("return F.softmax(")
    for source in lines.values():
        text = Path(source["file"]).read_text().splitlines()
        assert text[source["line"] - 1].strip() == source["code"]
    paths = {node["module"]["path"].rpartition("]")[2].lstrip(".") for node in nodes}
    assert paths == {"0.0", "0.1", "1", "2"}


@pytest.mark.parametrize("eager", [False, True])
def test_where_the_user_calls_modules_the_line_is_the_user_s(tmp_path: Path, eager: bool) -> None:
    nodes = nodes_of(Own(), tmp_path / "run", eager=eager)
    assert {node["source"]["code"] for node in nodes} == {"return self.net(x * 2)  # the user's line"}
    assert {node["source"]["file"] for node in nodes} == {__file__}


def test_a_forward_of_several_statements_is_named_by_its_first_line() -> None:
    source = forward_line(Several)
    assert source is not None
    assert source["code"].startswith("def forward(self")
    assert Path(__file__).read_text().splitlines()[source["line"] - 1].strip() == source["code"]


def test_classes_without_a_source_have_no_line() -> None:
    exec("def forward(self, x):\n    return x", scope := {})
    nameless = type("Nameless", (nn.Module,), {"forward": scope["forward"]})
    assert forward_line(nameless) is None
    assert forward_line(type("Builtin", (), {"forward": len})) is None
    assert forward_line(int) is None


def test_nodes_without_a_module_have_no_line() -> None:
    graph = torch.fx.Graph()
    node = graph.placeholder("x")
    assert source_of(node) is None
    node.meta["stack_trace"] = 'File "/a/model.py", line 3, in forward\n    return x + 1\n'
    assert source_of(node) == {"file": "/a/model.py", "line": 3, "function": "forward", "code": "return x + 1"}

"""What operators were given and gave is known from the graph, whatever the buffers are called."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from torchport.numerics.graphs.dump import by_name, dump
from torchport.numerics.graphs.operands import operand_nodes, operator_nodes, result_nodes
from torchport.numerics.runs.reader import Arg, Launch


def graph_of(function: Any, *inputs: torch.Tensor) -> dict[str, dict[str, Any]]:
    return by_name(dump(make_fx(function)(*inputs).graph))


def arg(name: str, shape: tuple[int, ...], node: str | None = None, role: str = "in") -> Arg:
    return Arg(name, role, f"buf_{name}", node, None, "float32", shape, tuple(shape), 0, 0, None, "b", "a")


def extern(seq: int, operation: str, *args: Arg, nodes: tuple[str, ...] = ()) -> Launch:
    return Launch(seq, "g", 0, "extern", None, operation, None, args, nodes)


def test_operands_in_copies_without_a_name_are_the_graphs() -> None:
    x, w = torch.randn(3, 4), torch.randn(4, 5)
    nodes = graph_of(lambda x, w: torch.relu(x) @ w + torch.sin(x) @ w, x, w)
    made = (arg("out", (3, 5), "mm_1", "out"), arg("out", (3, 5), "mm", "out"))
    launches = [
        extern(seq, "aten.mm.out", arg("self", (3, 4)), arg("mat2", (4, 5), "w_1"), one, nodes=(str(one.node),))
        for seq, one in enumerate(made)
    ]
    found = operator_nodes(nodes, launches)
    assert found == {0: "mm_1", 1: "mm"}
    assert operand_nodes(nodes, launches[0], "mm_1") == {"self": "sin", "mat2": "w_1"}
    assert operand_nodes(nodes, launches[1], "mm") == {"self": "relu", "mat2": "w_1"}
    wrong = extern(0, "aten.mm.out", arg("self", (4, 3)), arg("mat2", (4, 5)), made[0], nodes=("mm",))
    assert operand_nodes(nodes, wrong, "mm") == {"mat2": "w_1"}, "another shape is another value"


def test_an_operator_without_a_name_is_the_only_one_it_can_be() -> None:
    x = torch.randn(2, 3, 8, 8)
    weights = torch.randn(4, 3, 3, 3), torch.randn(4, 3, 5, 5)

    def backward(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> Any:
        found = []
        for one in (w, v):
            grad = torch.ones(2, 4, *(9 - size for size in one.shape[2:]))
            args = (grad, x, one, [0], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])
            found.append(torch.ops.aten.convolution_backward(*args)[1] * 2)
        return found

    nodes = graph_of(backward, x, *weights)
    names = [name for name, node in nodes.items() if node["target"] == "aten.convolution_backward.default"]
    launches = [
        extern(
            seq, "aten.convolution_backward.default", arg("grad_output", (2, 4, size, size)), arg("input", x.shape),
            arg("weight", one.shape), arg("result", one.shape, None, "out"),
        )
        for seq, (one, size) in enumerate(zip(reversed(weights), (4, 6), strict=True))
    ]  # fmt: skip
    assert operator_nodes(nodes, launches) == {0: names[1], 1: names[0]}
    (made,) = result_nodes(nodes, launches[0], names[1]).values()
    assert nodes[made]["args"] == [{"node": names[1]}, 1], "the second result, though it is the only one made"
    twins = [extern(seq, *(launches[0].operation or "",), *launches[0].args) for seq in range(2)]
    assert operator_nodes(graph_of(lambda x, w, v: backward(x, w, w), x, *weights), twins) == {}, "either may be meant"

"""A 16-bit value that several operations use in f32 is stored in 16 bits; an f32 that is written stays one tensor."""

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

from torchport.inductor.passes import widen_for_each_user

convert = torch.ops.prims.convert_element_type.default
aten = torch.ops.aten


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_shared_value_is_stored_in_16_bits(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(16).eval().to(dtype)
    x = torch.randn(2, 16, 32, 32).to(dtype)

    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = F.hardswish(norm(x))
        return y.mean((2, 3)), y * 2

    with torch.no_grad():
        found, (code,) = run_and_get_code(torch.compile(function, backend="torchport", dynamic=False), x)
        expected = function(x)
    assert "(2, 16, 32, 32), (16384, 1024, 32, 1), torch.float32" not in code
    for ours, aten_s in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, aten_s)


def graph_of(written: bool) -> tuple[torch.fx.Graph, torch.fx.Node]:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    made = graph.call_function(aten.neg.default, (x,))
    made.meta["val"] = torch.empty(4, dtype=torch.bfloat16)
    wide = graph.call_function(convert, (made, torch.float32))
    view = graph.call_function(aten.view.default, (wide, [4]))
    one = graph.call_function(aten.add_.Tensor if written else aten.add.Tensor, (view, 1))
    graph.output((graph.call_function(aten.mul.Tensor, (wide, 2)), one))
    return graph, wide


def test_each_user_has_its_own() -> None:
    graph, wide = graph_of(written=False)
    widen_for_each_user(graph)
    assert len(wide.users) == 1 and len(graph.find_nodes(op="call_function", target=convert)) == 2


def test_a_written_value_stays_one() -> None:
    graph, wide = graph_of(written=True)
    widen_for_each_user(graph)
    assert len(wide.users) == 2


def test_of_an_input_one_is_enough() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(4, dtype=torch.bfloat16)
    wide = graph.call_function(convert, (x, torch.float32))
    graph.output((graph.call_function(aten.mul.Tensor, (wide, 2)), graph.call_function(aten.exp.default, (wide,))))
    widen_for_each_user(graph)
    assert len(wide.users) == 2

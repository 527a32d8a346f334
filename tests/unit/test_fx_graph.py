"""FX graphs as JSON, evaluated again in float64: against PyTorch itself in float64."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from torchport.errors import ArtifactError
from torchport.numerics.graphs.align import align_graphs
from torchport.numerics.graphs.dump import FORMAT, by_name, dump, slice_graph
from torchport.numerics.graphs.evaluate import NotEvaluated, evaluate
from torchport.numerics.graphs.sizes import size_of, symbols_of
from torchport.numerics.graphs.views import value_from_view, views_of

aten, prims = torch.ops.aten, torch.ops.prims


def traced(function: Callable[..., Any], *inputs: Any) -> dict[str, Any]:
    """The dump of a function's graph, as it comes back from a file."""
    graph: dict[str, Any] = json.loads(json.dumps(dump(make_fx(function)(*inputs).graph), allow_nan=False))
    return graph


def run(graph: Mapping[str, Any], *inputs: Any, **more: Any) -> Any:
    names = [node["name"] for node in graph["nodes"] if node["op"] == "placeholder"]
    values = evaluate(dict(graph), dict(zip(names, inputs, strict=True)), **more)
    found = list(values.values())
    return found[0] if len(found) == 1 else found


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.dtype == b.dtype
    torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "linear": (lambda x: torch.nn.functional.gelu(x @ x.t() + 0.1), (8, 8)),
    "softmax": (lambda x: torch.softmax(x, -1) * torch.arange(8, dtype=x.dtype), (4, 8)),
    "norm": (lambda x: torch.nn.functional.layer_norm(x, (8,)), (4, 8)),
    "where": (lambda x: torch.where(x > 0, x, -float("inf")).amax(-1), (4, 8)),
    "topk": (lambda x: x.topk(3).values.cumsum(0), (4, 8)),
    "convolution": (lambda x: torch.nn.functional.conv1d(x, x[:2], padding=1), (3, 2, 3)),
    "strided": (lambda x: torch.as_strided(x * 2, (3, 2), (1, 4), 1), (4, 8)),
    "changed": (lambda x: x.clone().index_put_((torch.tensor([1]),), x[:1]), (4, 8)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_float64_values_are_those_of_pytorch_in_float64(name: str, dtype: torch.dtype) -> None:
    function, shape = FUNCTIONS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = x.clone()
    close(run(traced(function, x), x), function(x.double()))
    assert torch.equal(x, before), "the inputs were changed"


def test_conversions_between_floats_do_not_round_but_those_to_integers_happen() -> None:
    x = torch.tensor([1.0 + 2**-20, -2.75])

    def function(x: torch.Tensor) -> Any:
        half = prims.convert_element_type(x, torch.bfloat16)
        return prims.convert_element_type(half, torch.float32), prims.convert_element_type(half, torch.int32)

    wide, integers = run(traced(function, x), x)
    close(wide, x.double())
    assert integers.dtype == torch.int32
    assert integers.tolist() == [1, -2]


def test_integers_that_become_floats_become_float64() -> None:
    x = torch.tensor([1, 2, 3])
    close(run(traced(lambda x: x / 7 + torch.full((3,), 0.1), x), x), x.double() / 7 + 0.1)


def test_bits_are_looked_at_in_the_graphs_type() -> None:
    x = torch.tensor([1.0, -0.1])
    assert torch.equal(run(traced(lambda x: aten.view.dtype(x, torch.int32), x), x), x.view(torch.int32))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_and_its_gradients(causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v, g = (torch.randn(1, 2, 5, 8, generator=generator) for _ in range(4))
    attention = aten._scaled_dot_product_flash_attention_for_cpu

    def function(*inputs: torch.Tensor) -> Any:
        q, k, v, g = inputs
        out, sums = attention(q, k, v, 0.0, causal)
        backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
        return out, *backward(g, q, k, v, out, sums, 0.0, causal)

    wide = [one.double().requires_grad_() for one in (q, k, v)]
    exact = torch.nn.functional.scaled_dot_product_attention(*wide, is_causal=causal)
    gradients = torch.autograd.grad(exact, wide, g.double())
    for found, wanted in zip(run(traced(function, q, k, v, g), q, k, v, g), (exact, *gradients), strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-12, atol=1e-12)


def test_inductors_random_numbers_follow_from_their_seed() -> None:
    """Against Triton's own, which the CPU target compiles."""
    import triton
    import triton.language as tl

    from torchport.numerics.graphs.special import RULES

    @triton.jit
    def kernel(out, seed, N: tl.constexpr, NORMAL: tl.constexpr):  # type: ignore[no-untyped-def]
        offsets = tl.arange(0, N)
        tl.store(out + offsets, tl.randn(seed, offsets) if NORMAL else tl.rand(seed, offsets))

    seed = 0x1234_5678_9ABC
    for normal, mode in ((False, "rand"), (True, "randn")):
        out = torch.empty(64)
        kernel[(1,)](out, seed, 64, normal)
        found = RULES["prims.inductor_random.default"]({}, [8, 8], torch.tensor(seed), mode)
        torch.testing.assert_close(found.double().reshape(-1), out.double(), rtol=3e-6, atol=1e-6)


def test_random_nodes_are_refused_unless_their_value_is_given() -> None:
    x = torch.ones(4)
    graph = traced(lambda x: x + torch.rand(4), x)
    (drawn,) = [node["name"] for node in graph["nodes"] if node["target"].startswith("aten.rand")]
    with pytest.raises(NotEvaluated, match="draws random numbers"):
        run(graph, x)
    close(run(graph, x, given={drawn: torch.full((4,), 0.5)}), torch.full((4,), 1.5, dtype=torch.float64))


def test_what_is_refused_does_not_stop_the_rest() -> None:
    x = torch.ones(4)
    graph = traced(lambda x: (x * 2, torch.rand(4) + x), x)
    refused: dict[str, str] = {}
    found = run(graph, x, refused=refused)
    close(found, torch.full((4,), 2.0, dtype=torch.float64))
    assert len(refused) == 2  # the random numbers, and their sum with x


def test_what_is_written_into_is_read_as_it_is_then() -> None:
    """As Inductor's graphs are where operations work in place: later nodes name what was changed, not who did it."""

    def function(cache: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        before = cache.sum(-1)
        cache[1:3].copy_(x.exp())
        zeros = torch.zeros(4, dtype=x.dtype)
        row = torch.as_strided(zeros, (2, 2), (2, 1))
        row.add_(x[:, :2])
        return before, cache * 2, zeros + 1, row

    cache, x = torch.randn(4, 3), torch.randn(2, 3)
    graph = traced(function, cache, x)
    kept = cache.clone()
    found = run(graph, cache, x)
    assert torch.equal(cache, kept), "the inputs were changed"
    for value, expected in zip(found, function(cache.double().clone(), x.double()), strict=True):
        close(value, expected)
    changed = run(graph, cache, x, wanted=["cache_1"])
    assert torch.equal(changed[0], kept[0].double()) and not torch.equal(changed[1], kept[1].double())


def test_what_an_operation_without_a_value_writes_into_has_none_either() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.zeros(4)
        z = y + x
        y[:2].copy_(torch.bernoulli(x[:2]))
        return y * 2, z

    x = torch.rand(4)
    graph = traced(function, x)
    nodes = by_name(graph)
    zeros = next(name for name, node in nodes.items() if node["target"] == "aten.zeros.default")
    refused: dict[str, str] = {}
    found = evaluate(graph, {"x_1": x}, wanted=[*graph["outputs"], zeros], refused=refused)
    assert found.keys() == {graph["outputs"][1]}
    assert "random" in refused[graph["outputs"][0]] and "random" in refused[zeros]


def test_results_that_the_graph_has_no_use_for_are_empty_in_float64_too() -> None:
    weight, indices, offsets = torch.randn(9, 4), torch.tensor([1, 5, 5, 2]), torch.tensor([0, 3])
    graph = traced(lambda w: torch.ops.aten._embedding_bag(w, indices, offsets)[:2], weight)
    bags, empty = run(graph, weight)
    close(bags, torch.stack([weight[[1, 5, 5]].double().sum(0), weight[2].double()]))
    assert empty.shape == torch.ops.aten._embedding_bag(weight, indices, offsets)[1].shape


def prim(name: str, *values: Any, **more: Any) -> Any:
    """What an operation that ``make_fx`` does not trace gives."""
    nodes = [node_of(f"x{i}", "placeholder", []) for i in range(len(values))]
    graph = {"format": FORMAT, "constants": {}, "outputs": ["out"]}
    args = [{"node": node["name"]} for node in nodes] + more.pop("args", [])
    return evaluate({**graph, "nodes": [*nodes, node_of("out", name, args)]}, dict(zip(
        (node["name"] for node in nodes), values, strict=True)))["out"]  # fmt: skip


def node_of(name: str, target: str, args: list[Any]) -> dict[str, Any]:
    op = "placeholder" if target == "placeholder" else "call_function"
    return {"name": name, "op": op, "target": target, "args": args, "kwargs": {}, "value": None}


@pytest.mark.parametrize("where", [([3, 2], [2, 2], [1, 0], [1, 1]), ([2, 3], [1, 2], [0, 1], [2, 1])])
def test_places_of_maxima_in_their_windows_are_places_in_the_input(where: tuple[list[int], ...]) -> None:
    kernel, stride, padding, dilation = where
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(1))
    values, offsets = prim(
        "prims._low_memory_max_pool_with_offsets.default", x, args=[kernel, stride, padding, dilation, False]
    )
    expected, indices = torch.nn.functional.max_pool2d(x.double(), *where, return_indices=True)
    close(values, expected)
    assert offsets.dtype == torch.int8
    assert offsets.min() >= 0 and offsets.max() < kernel[0] * kernel[1]
    args = [kernel, list(x.shape[-2:]), stride, padding, dilation]
    assert torch.equal(prim("prims._low_memory_max_pool_offsets_to_indices.default", offsets, args=args), indices)


def test_products_by_groups_and_their_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    ends, grad = torch.tensor([2, 2, 6]), torch.randn(7, 5, generator=generator, dtype=torch.float64)
    expected = torch.cat([x[:2] @ weight[0], x[2:6] @ weight[2], torch.zeros(1, 5)])
    expected.backward(grad)
    close(prim("transformers.grouped_mm_fallback.default", x, weight, ends), expected)
    gradients = prim("transformers.grouped_mm_fallback_backward.default", x, weight, ends, grad)
    for gradient, one in zip(gradients, (x, weight), strict=True):
        assert one.grad is not None
        close(gradient, one.grad)
    columns = prim("aten._grouped_mm.default", weight.transpose(1, 2), x.T[:, :6], torch.tensor([2, 2, 6]))
    close(columns, expected.T[:, :6])


@pytest.mark.parametrize(("size", "value"), [
    (7, 7), ("s3", 5), ("2*s0 + 1", 13), ("(s3//2)", 2), ("Max(1, s0 - s3)", 1), ("s9", None), ("s0.x", None),
    ("__import__('os')", None), ("s0 +", None), ("FloorDiv(s0, s3) % 2", 1),
])  # fmt: skip
def test_symbolic_sizes_are_numbers_of_the_inputs(size: int | str, value: int | None) -> None:
    nodes = {
        "x": {"op": "placeholder", "value": {"shape": ["s3", 4]}},
        "n": {"op": "placeholder", "value": {"symbol": "s0"}},
    }
    assert size_of(size, symbols_of(nodes, {"n": 6}, {"x": (5, 4)})) == value


def test_a_value_is_that_of_any_view_of_it_that_was_kept() -> None:
    graph = traced(lambda x: (x * 2).reshape(4, 2, 3).permute(2, 0, 1).clone(), torch.randn(8, 3))
    nodes = by_name(graph)
    (made,) = (name for name, node in nodes.items() if node["target"].startswith("aten.mul"))
    value = torch.randn(8, 3)
    (last,) = graph["outputs"]
    found = value_from_view(
        graph,
        views_of(nodes),
        made,
        lambda name: tuple(nodes[name]["value"]["shape"]),
        {last: value.reshape(4, 2, 3).permute(2, 0, 1)},
    )
    assert found is not None
    assert found[0] == last
    assert torch.equal(found[1], value)


def test_copies_do_not_keep_what_is_behind_them_from_being_aligned() -> None:
    x = torch.randn(4, 6)
    one = traced(lambda x: torch.neg(x.sin().t()), x)
    other = traced(lambda x: torch.neg((x.exp() / x).t().clone()), x)
    alignment = align_graphs(one, other)
    assert alignment.pairs["sin"] == "div"
    assert alignment.how["sin"] == "replaced"


def test_a_slice_computes_one_kernel_from_what_it_reads() -> None:
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    graph = traced(lambda x: ((x @ x).exp() + 1).sum(), x)
    names = [node["name"] for node in graph["nodes"]]
    part = slice_graph(graph, ["add"], ["mm"])
    assert [node["op"] for node in part["nodes"]] == ["placeholder", "call_function", "call_function"]
    close(run(part, x), x.double().exp() + 1)
    with pytest.raises(ArtifactError, match="no node nowhere"):
        slice_graph(graph, ["nowhere"], names)


def test_a_dump_of_another_version_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"torchport\.fx/1"):
        evaluate({"format": "torchport.fx/0", "nodes": [], "outputs": []}, {})


def test_graphs_that_decompose_attention_differently_are_aligned() -> None:
    x, w = torch.randn(2, 8, 64), torch.randn(64, 64)

    def model(fused: bool) -> Callable[..., Any]:
        def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            q = (x @ w).view(2, 4, 8, 16)
            if fused:
                o = aten._scaled_dot_product_flash_attention_for_cpu(q, q, q)[0]
            else:
                o = torch.softmax(q @ q.transpose(-1, -2) / 4, -1) @ q
            return torch.nn.functional.gelu(o.transpose(1, 2).reshape(2, 8, 64) @ w)

        return function

    a, b = (traced(model(fused), x, w) for fused in (True, False))
    found = align_graphs(a, b)
    nodes = {node["name"]: node for node in b["nodes"]}
    assert found.pairs["gelu"] == "gelu"
    (attention,) = [name for name, how in found.how.items() if how == "replaced"]
    assert nodes[found.pairs[attention]]["value"]["shape"] == [2, 4, 8, 16]
    assert len(set(found.pairs.values())) == len(found.pairs)


def test_one_graph_is_aligned_with_itself_whatever_its_names() -> None:
    graph = traced(lambda x: ((x * 2).exp() + (x * 3).exp()).sum(), torch.randn(3))
    other = json.loads(json.dumps(graph).replace('"exp', '"other').replace('"mul', '"product'))
    for node in other["nodes"]:
        node["target"] = node["target"].replace("other", "exp")
    found = align_graphs(graph, other)
    assert len(found.pairs) == len(graph["nodes"])
    assert found.pairs["exp_1"] == "other_1"

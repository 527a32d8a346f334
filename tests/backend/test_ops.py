"""Operators of ``torchport.ops``: values and gradients against float64, with bounds that follow from the arithmetic."""

from __future__ import annotations

import inspect
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import torchport.ops
from torchport.ops import launch as launches
from torchport.ops.check import errors
from torchport.ops.registry import Operator, Sample, operators
from torchport.runtime import events
from torchport.runtime.cache import ObjectCache

OPERATORS = operators()
LONG = {(torch.bfloat16, name) for name in ("attention_totals", "flash_attention", "piecewise_attention")}
CASES = [
    pytest.param(
        operator,
        dtype,
        id=f"{operator.name}-{str(dtype).removeprefix('torch.')}",
        marks=[pytest.mark.slow] if dtype == torch.float16 or (dtype, operator.name) in LONG else [],
    )
    for operator in OPERATORS
    for dtype in operator.dtypes
]
NAMED = pytest.mark.parametrize("operator", OPERATORS, ids=[operator.name for operator in OPERATORS])


def failures(operator: Operator, sample: Sample, call: Any = None) -> dict[str, float]:
    return {
        f"{sample.about}: {name}": error for name, error in errors(operator, sample, call).items() if not error <= 1
    }


@pytest.mark.parametrize(("operator", "dtype"), CASES)
def test_values_and_gradients(operator: Operator, dtype: torch.dtype) -> None:
    wrong: dict[str, float] = {}
    for sample in operator.samples(dtype):
        wrong |= failures(operator, sample)
    assert not wrong


@NAMED
def test_compiled(operator: Operator, compile_backend: str) -> None:
    with events.capture() as seen:
        for number, dtype in enumerate(operator.dtypes[:2]):  # another sample for the other dtype
            sample = list(operator.samples(dtype))[number]
            compiled = torch.compile(operator.call, backend=compile_backend, fullgraph=True)
            assert not failures(operator, sample, compiled)
            torch._dynamo.reset()
    assert not [str(event) for event in seen if isinstance(event, events.Fallback)]


SCALARS = {
    "rms_norm": (), "flash_attention": (), "paged_attention": (), "layer_norm": [pytest.mark.slow],
    "attention_totals": [pytest.mark.slow], "piecewise_attention": [pytest.mark.slow],
}  # fmt: skip


@pytest.mark.parametrize(
    "operator",
    [pytest.param(one, id=one.name, marks=SCALARS[one.name]) for one in OPERATORS if one.name in SCALARS],
)
def test_inductor_which_passes_numbers_in_64_bits(operator: Operator) -> None:
    """Under ``backend="inductor"`` a kernel's numbers are float64; it computes in float32 all the same."""
    sample = next(iter(operator.samples(torch.float32)))
    compiled = torch.compile(operator.call, backend="inductor", fullgraph=True)
    assert not failures(operator, sample, compiled)


@NAMED
def test_not_finite_values_are_where_the_reference_has_them(operator: Operator) -> None:
    for bad in (float("nan"), float("inf"), -float("inf")):
        sample = next(iter(operator.samples(torch.float32)))
        next(value for value in flat(sample.args) if is_float(value)).view(-1)[3] = bad
        wide = tuples(operator.reference(*map(widened, sample.args)))
        results = results_of(operator, sample.args)
        floats = [pair for pair in zip(results, wide, strict=True) if pair[0].is_floating_point()]
        for got, wanted in floats:
            for test in (torch.isnan, torch.isposinf, torch.isneginf):
                assert torch.equal(test(got), test(wanted))


def flat(args: tuple[Any, ...]) -> list[Any]:
    return [one for value in args for one in (value if isinstance(value, list) else [value])]


def widened(value: Any) -> Any:
    if isinstance(value, list):
        return [widened(one) for one in value]
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 3


def with_gradients(operator: Operator, sample: Sample) -> list[Any]:
    """A sample's arguments, those differentiable that have a gradient."""
    names = list(inspect.signature(operator.call).parameters)
    return [
        value.clone().requires_grad_(names[index] in operator.differentiable) if is_float(value) else value
        for index, value in enumerate(sample.args)
    ]


def results_of(operator: Operator, args: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
    """What an operator writes to, and what it returns."""
    names = list(inspect.signature(operator.call).parameters)
    returned = operator.call(*args)
    written = flat(tuple(args[names.index(name)] for name in operator.mutates))
    return (*written, *tuples(returned)) if returned is not None else tuple(written)


def tuples(results: Any) -> tuple[torch.Tensor, ...]:
    return (results,) if isinstance(results, torch.Tensor) else tuple(results)


@NAMED
def test_gradients_of_any_layout(operator: Operator) -> None:
    if not operator.differentiable:
        pytest.skip("it has no gradient")
    sample = next(iter(operator.samples(torch.float32)))
    found = []
    for layout in ("contiguous", "expanded", "transposed"):
        args = with_gradients(operator, sample)
        results = [result for result in tuples(operator.call(*args)) if result.is_floating_point()]
        grads = [torch.ones(()).expand(result.shape) for result in results]
        if layout == "contiguous":
            grads = [grad.contiguous() for grad in grads]
        elif layout == "transposed":
            grads = [grad.mT.contiguous().mT if grad.dim() > 1 else grad for grad in grads]
        inputs = [value for value in args if isinstance(value, torch.Tensor) and value.requires_grad]
        found.append(torch.autograd.grad(results, inputs, grads))
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            assert torch.equal(first, second)


@NAMED
def test_torch_finds_the_operator_well_defined(operator: Operator) -> None:
    overload = getattr(torch.ops.torchport, operator.name).default
    assert str(overload._schema).endswith(operator.schema)
    args = with_gradients(operator, next(iter(operator.samples(torch.float32))))[: len(overload._schema.arguments)]
    torch.library.opcheck(
        overload, tuple(args), test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(torchport.ops.rms_norm(x).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="rms_norm_backward has no gradient"):
        torch.autograd.grad(grad.sum(), x)


def test_a_tangent_is_refused_in_every_way_to_call() -> None:
    x, weight = torch.randn(3, 8), torch.ones(8)
    calls: tuple[Callable[[torch.Tensor], Any], ...] = (
        lambda x: torchport.ops.rms_norm(x, weight),
        lambda x: torch.ops.torchport.rms_norm(x, weight, 1e-6, 0.0),
        lambda x: torch.ops.torchport.rms_norm(x, weight.clone().requires_grad_(), 1e-6, 0.0),
        lambda x: torchport.ops.adamw_step([x], [x], [x.clone()], [x.clone()], 1, 0.1),
    )
    for call in calls:
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, x)
            with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
                call(dual)
            assert torchport.ops.rms_norm(x).shape == x.shape
    for call in calls[:2]:
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            torch.func.jvp(call, (x,), (x,))


def test_float64_is_refused() -> None:
    x = torch.randn(3, 8, dtype=torch.float64)
    for call in (
        lambda: torchport.ops.softmax(x),
        lambda: torch.ops.torchport.softmax(x.requires_grad_()),
        lambda: torchport.ops.adamw_step([x.detach()], [x], [x], [x], 1, 0.1),
        lambda: torch.compile(torchport.ops.softmax, backend="torchport")(x.detach()),
    ):
        with pytest.raises((TypeError, RuntimeError), match="computes in float32, and is given float64"):
            call()


def test_dispatch_modes_and_transforms_see_the_operator() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seen(TorchDispatchMode):
        names: tuple[str, ...] = ()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names += (str(func),)
            return func(*args, **(kwargs or {}))

    x = torch.randn(3, 8)
    with Seen() as seen:
        torchport.ops.rms_norm(x)
    assert seen.names == ("torchport.rms_norm.default",)
    assert torch.equal(torch.vmap(torchport.ops.rms_norm)(x), torchport.ops.rms_norm(x))


def test_a_subclass_without_a_dispatch_of_its_own_is_a_tensor() -> None:
    class Named(torch.Tensor):
        pass

    x = torch.randn(3, 8)
    assert torch.equal(torchport.ops.rms_norm(x.as_subclass(Named)), torchport.ops.rms_norm(x))


def test_a_model_trains_alike_eager_and_compiled(compile_backend: str) -> None:
    def loss(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y, total = torchport.ops.add_rms_norm(x.sin(), residual, weight)
        return (y.cos() * total).sum()

    args = [torch.randn(5, 48, requires_grad=True), torch.randn(5, 48), torch.randn(48, requires_grad=True)]
    compiled = torch.compile(loss, backend=compile_backend, fullgraph=True)
    wanted = torch.autograd.grad(loss(*args), (args[0], args[2]))
    for got, want in zip(torch.autograd.grad(compiled(*args), (args[0], args[2])), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_sizes_may_change_in_a_compiled_graph(compile_backend: str) -> None:
    compiled = torch.compile(torchport.ops.rms_norm, backend=compile_backend, fullgraph=True, dynamic=True)
    for rows in (3, 7, 11):
        x = torch.randn(rows, 40)
        torch.testing.assert_close(compiled(x), torchport.ops.rms_norm(x))


def test_a_warm_start_needs_no_triton() -> None:
    program = (
        "import sys, torch, torchport.ops\n"
        "assert 'triton' not in sys.modules, 'import torchport.ops'\n"
        "torchport.ops.rms_norm(torch.ones(2, 24))\n"
        "print('triton' in sys.modules)"
    )
    torchport.ops.rms_norm(torch.ones(2, 24))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: torchport.ops.rms_norm(torch.ones(())), "no dimension"),
        (lambda: torchport.ops.rms_norm(torch.ones(2, 3), torch.ones(4)), r"weight has shape \(4,\)"),
        (lambda: torchport.ops.add_rms_norm(torch.ones(2, 3), torch.ones(3)), "residual is"),
    ],
)
def test_wrong_arguments_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_target_that_is_no_class_is_an_error(compiled: bool, compile_backend: str) -> None:
    call = torchport.ops.cross_entropy
    call = torch.compile(call, backend=compile_backend, fullgraph=True) if compiled else call
    with pytest.raises(torchport.KernelAssertionError, match="a target is not a column of the logits"):
        call(torch.randn(3, 5), torch.tensor([0, 1 << 40, 1]))


def test_a_fused_linear_layer_holds_few_logits_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchport.ops.written import fused_linear_cross_entropy as fused

    seen = []
    monkeypatch.setattr(fused, "_ELEMENTS", 4096)
    monkeypatch.setattr(fused, "_logits", lambda *args: seen.append(torch.nn.functional.linear(*args)) or seen[-1])
    x, weight = torch.randn(100, 8, requires_grad=True), torch.randn(200, 8, requires_grad=True)
    torchport.ops.fused_linear_cross_entropy(x, weight, None, torch.randint(0, 200, (100,))).backward()
    assert len(seen) == 10
    assert max(logits.numel() for logits in seen) <= 4096


def test_adamw_is_that_of_torch() -> None:
    params = [torch.randn(40, 17, requires_grad=True), torch.randn(5, requires_grad=True)]
    mine = [param.detach().clone() for param in params]
    means, squares = ([torch.zeros_like(one) for one in mine] for _ in range(2))
    optimizer = torch.optim.AdamW(params, lr=1e-2, weight_decay=0.1)
    for step in range(1, 4):
        for param in params:
            param.grad = torch.randn(param.shape)
        optimizer.step()
        torchport.ops.adamw_step(
            mine, [param.grad for param in params], means, squares, step, lr=1e-2, weight_decay=0.1
        )
    for got, wanted in zip(mine, params, strict=True):
        torch.testing.assert_close(got, wanted.detach())


def test_parameters_with_gaps_are_refused() -> None:
    some = [torch.randn(4, 6)[:, ::2]]
    with pytest.raises(ValueError, match="has gaps in memory"):
        torchport.ops.adamw_step(some, [torch.randn(4, 3)], [torch.zeros(4, 3)], [torch.zeros(4, 3)], 1)


def test_tokens_are_drawn_with_their_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.25, 0.125, 0.1, 0.025])
    drawn = torchport.ops.sample(probabilities.log().expand(20000, 5))
    counts = torch.bincount(drawn, minlength=5)
    expected = probabilities * 20000
    assert ((counts - expected) ** 2 / expected).sum() < 23.5  # chi squared, 4 degrees of freedom: 1 in 10,000
    kept = torchport.ops.sample(probabilities.log().expand(2000, 5), top_k=4, top_p=0.75)
    assert set(kept.tolist()) == {0, 1}


@pytest.mark.parametrize("slot", [64, 1 << 40])
def test_a_slot_outside_of_the_cache_is_an_error(slot: int) -> None:
    caches = torch.zeros(2, 4, 16, 1, 8)
    with pytest.raises(torchport.KernelAssertionError, match="a slot is not in the cache"):
        torchport.ops.reshape_and_cache(*torch.ones(2, 1, 1, 8), *caches, torch.tensor([slot]))
    assert not caches.any()


@pytest.mark.parametrize("index", [3, -1, 1 << 40])
def test_an_index_that_is_no_row_is_an_error(index: int) -> None:
    with pytest.raises(torchport.KernelAssertionError, match="an index is not a row of the weight"):
        torchport.ops.embedding(torch.randn(3, 8), torch.tensor([0, index]))


@pytest.mark.parametrize("ends", [[3, 9], [5, 2]])
def test_groups_that_do_not_fit_are_an_error(ends: list[int]) -> None:
    with pytest.raises(torchport.KernelAssertionError, match="ends must ascend"):
        torchport.ops.grouped_mm(torch.randn(8, 16), torch.randn(2, 16, 4), torch.tensor(ends))


def test_two_views_of_one_cache_are_written_in_a_compiled_graph(compile_backend: str) -> None:
    def write(key: torch.Tensor, value: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        torchport.ops.reshape_and_cache(key, value, cache[0], cache[1], slots)
        return cache.sum()

    key, value = torch.randn(2, 3, 2, 8)
    found, wanted = torch.zeros(2, 2, 2, 4, 2, 8)
    slots = torch.tensor([0, 7, 3])
    total = write(key, value, wanted, slots)
    torch.testing.assert_close(torch.compile(write, backend=compile_backend)(key, value, found, slots), total)
    assert torch.equal(found, wanted)


@NAMED
def test_meta_tensors_give_shapes_and_dtypes(operator: Operator) -> None:
    sample = next(iter(operator.samples(torch.bfloat16)))
    found = results_of(operator, tuple(on_meta(value) for value in sample.args))
    for got, wanted in zip(found, results_of(operator, sample.args), strict=True):
        assert (got.shape, got.dtype, got.stride()) == (wanted.shape, wanted.dtype, wanted.stride())
        assert got.is_meta


def on_meta(value: Any) -> Any:
    if isinstance(value, list):
        return [on_meta(one) for one in value]
    return value.to("meta") if isinstance(value, torch.Tensor) else value


def test_tensors_of_two_devices_are_an_error() -> None:
    torchport.ops.rms_norm(torch.ones(2, 8), torch.ones(8))  # the kernel is loaded: what is remembered is no excuse
    with pytest.raises(ValueError, match="its tensors are on cpu and on meta"):
        torchport.ops.rms_norm(torch.ones(2, 8), torch.ones(8, device="meta"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
@pytest.mark.parametrize(("named", "wanted"), [("cpu:x86_64:avx2", "cpu:x86_64:avx2"), ("nothing", "cpu")])
def test_operators_are_compiled_for_the_level_that_is_named(named: str, wanted: str) -> None:
    program = (
        "import torch, torchport.ops, torchport.ops.launch as launch\n"
        "found = []\n"
        "compile_ = launch._compile\n"
        "launch._compile = lambda target, *rest: (found.append(str(target)), compile_(target, *rest))[1]\n"
        "x, w = torch.randn(5, 77), torch.randn(77)\n"
        "expected = torch.nn.functional.rms_norm(x, [77], w, 1e-6)\n"
        "torch.testing.assert_close(torchport.ops.rms_norm(x, w, 1e-6), expected)\n"
        "print(*set(found))"
    )
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TORCHPORT_TARGET": named, "TORCHPORT_CACHE_DIR": folder}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [wanted], done.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
@pytest.mark.parametrize("named", ["cpu:x86_64:avx2", "cpu:x86_64:sse", None])
def test_operators_of_a_graph_are_compiled_for_its_level(
    named: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also in another thread, as gradients are, and beside a graph without a level."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")  # where it is ours
    found, compile_ = [], launches._compile
    monkeypatch.setattr(launches, "_loaded", {})
    monkeypatch.setattr(launches, "object_cache", lambda: ObjectCache(tmp_path, 1 << 24))
    monkeypatch.setattr(
        launches, "_compile", lambda target, *rest: (found.append(str(target)), compile_(target, *rest))[1]
    )
    x = torch.randn(1, 2, 128, 64, dtype=torch.bfloat16, requires_grad=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    def run(options: dict[str, Any]) -> None:
        compiled = torch.compile(function, backend="torchport", options=options)
        (grad,) = torch.autograd.grad(out := compiled(x), x, torch.ones_like(x))
        wide = x.detach().double().requires_grad_()
        (wanted,) = torch.autograd.grad(expected := function(wide), wide, torch.ones_like(wide))
        torch.testing.assert_close(out.double(), expected, atol=0.02, rtol=0.02)
        torch.testing.assert_close(grad.double(), wanted, atol=0.1, rtol=0.05)

    run({} if named is None else {"target": named})
    assert set(found) == {named or "cpu"}
    found.clear()
    run({"target": "cpu:x86_64:avx2"} if named is None else {})
    assert set(found) == {"cpu:x86_64:avx2" if named is None else "cpu"}


def test_a_device_without_a_target_is_named() -> None:
    with pytest.raises(torchport.TargetError, match="not on cuda:0"):
        launches.target_for(torch.device("cuda", 0))

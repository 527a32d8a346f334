"""Operators on the torch device that are made of others: sorts, selections, reductions by index, writes in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

import torchport
from torchport.torch_device.targets import targets

pytestmark = pytest.mark.skipif(not targets(), reason="no target here has memory of its own")


@pytest.fixture(autouse=True)
def all_on_the_device() -> Iterator[None]:
    torchport.fallbacks(reset=True)
    yield
    assert not torchport.fallbacks()


def numbers(*shape: int) -> torch.Tensor:
    """Numbers with ties, both zeros, infinities and NaN."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-9, 10, shape, generator=generator) / 4
    values.view(-1)[:6] = torch.tensor([float("nan"), -0.0, 0.0, float("inf"), float("-inf"), float("nan")])
    return values.view(-1)[torch.randperm(values.numel(), generator=generator)].view(shape)


def check(function: Callable[..., Any], *args: Any) -> None:
    """The device's results are the CPU's, bit by bit, with the same strides."""
    moved = tree_map(lambda v: v.to(torchport.device(0)) if isinstance(v, torch.Tensor) else v, args)
    for mine, theirs in zip(tree_leaves(function(*moved)), tree_leaves(function(*args)), strict=True):
        assert mine.stride() == theirs.stride()
        torch.testing.assert_close(mine.cpu(), theirs, rtol=0, atol=0, equal_nan=True)
        if theirs.is_floating_point():
            assert (mine.cpu().signbit() == theirs.signbit())[~theirs.isnan()].all()


@pytest.mark.parametrize("descending", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_sort(descending: bool) -> None:
    """One run, several, the last of them short; rows with gaps, a dimension outside, none at all."""
    for function in (
        lambda x: torch.sort(x, stable=True, descending=descending),
        lambda x: torch.sort(x[:, ::2], stable=True, dim=0, descending=descending),
        lambda x: torch.sort(x.t(), stable=True, descending=descending),
        lambda x: torch.sort(x[:0], stable=True, descending=descending),
        lambda x: torch.sort(x[0, 0], stable=True, descending=descending),
        lambda x: torch.sort(x[:1].expand(3, -1), stable=True, descending=descending),
    ):
        check(function, numbers(3, 333))


def test_extreme_integers() -> None:
    check(lambda x: torch.sort(x, stable=True), torch.tensor([5, 2**63 - 1, -(2**63), 0, 5, -1]))
    check(lambda x: torch.sort(x, stable=True, descending=True), torch.tensor([5, 2**63 - 1, -(2**63), 0, 5, -1]))


def test_parts_of_what_is_sorted() -> None:
    check(lambda x: torch.topk(x, 3, 0).values.abs(), numbers(70, 2))
    check(lambda x: torch.topk(x, 3, largest=False), torch.arange(20.0).flip(0))


@pytest.mark.slow
def test_medians() -> None:
    check(lambda x: torch.kthvalue(x, 4, 0, keepdim=True).values.abs(), numbers(70, 2))
    check(lambda x: torch.median(x), torch.tensor([3.0, 1.0, 2.0, 5.0]))
    check(lambda x: torch.median(x, 1), torch.tensor([[3.0, float("nan"), 2.0, float("nan")], [4.0, 1.0, 2.0, 5.0]]))
    check(lambda x: torch.nanmedian(x, 1)[0], torch.tensor([[3.0, float("nan"), 2.0], [4.0, 1.0, 2.0]]))
    check(lambda x: torch.mode(x)[0], torch.tensor([[3, 2, 3, 2], [1, 1, 4, 4]]))


def test_results_whose_size_depends_on_values() -> None:
    x = numbers(6, 50)
    check(torch.nonzero, x)
    check(torch.nonzero, x[:0])
    check(lambda x: x[x > 0], x)
    check(lambda x: x[x > 99], x.nan_to_num(0, 0, 0))


@pytest.mark.slow
def test_more_results_whose_size_depends_on_values() -> None:
    x = numbers(6, 50)
    check(torch.nonzero, torch.tensor(3.0))
    check(torch.masked_select, x, x[0] > 0)
    check(lambda x: torch.unique(x, return_inverse=True, return_counts=True), (x.nan_to_num() * 4).to(torch.int64))
    check(lambda x, i: x[:, None][i, :, x[0] > 0], x, torch.tensor([[1], [2]]))
    check(torch.repeat_interleave, torch.tensor([2, 0, 3]))
    check(torch.bincount, torch.tensor([1, 5, 1]))
    check(lambda x: torch.histc(x, 4, -1, 2), x)


def test_writes_where_a_mask_is_set() -> None:
    def put(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[x > 0.5] = values
        return x

    x = numbers(6, 50)
    check(put, x, torch.arange(float((x > 0.5).sum())))
    check(put, x, torch.tensor(7.0))


def test_histogram_of_integers() -> None:
    """Transformers counts the tokens of experts so on devices; the CPU takes no integers."""
    counts = torch.histc(torch.tensor([0, 3, 3, 1], dtype=torch.int32).to(torchport.device(0)), bins=4, min=0, max=3)
    assert counts.dtype == torch.int32 and counts.tolist() == [1, 1, 0, 2]


@pytest.mark.parametrize(
    ("reduce", "include_self"),
    [("amax", False), *(pytest.param(*case, marks=pytest.mark.slow) for case in [("prod", True), ("mean", False)])],
)
def test_reductions_by_index(reduce: str, include_self: bool) -> None:
    """In the order of the elements, so that products and sums are the CPU's."""
    index = torch.randint(0, 5, (4, 9), generator=torch.Generator().manual_seed(0))
    source = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    source[0, 0] = float("nan")

    def scattered(x: torch.Tensor, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return x.scatter_reduce(1, index, source, reduce, include_self=include_self)

    check(scattered, torch.randn(5, 7, generator=torch.Generator().manual_seed(2)), index, source)


def test_an_index_out_of_bounds_raises() -> None:
    args = torch.zeros(3), torch.tensor([0, 3]), torch.ones(2)
    there = [value.to(torchport.device(0)) for value in args]
    with pytest.raises(torchport.KernelAssertionError, match="out of bounds"):
        there[0].scatter_reduce(0, there[1], there[2], "amax").cpu()


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.clamp_(-0.5, 0.5),
        lambda x: x.tril_(-1),
        lambda x: x.masked_fill_(x > 0, torch.full_like(x[0, 0], 7.0)),
        lambda x: x.t()[1:].clamp_min_(0.25),
    ],
)
def test_writes_in_place(write: Callable[[torch.Tensor], torch.Tensor]) -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        copy = x.clone()
        write(copy)
        return copy

    check(written, numbers(5, 7))


def test_results_are_not_written_into_narrower_types() -> None:
    x = torch.tensor([1, 2]).to(torchport.device(0))
    with pytest.raises(RuntimeError, match="can't be cast"):
        x.mul_(1.5)
    torchport.fallbacks(reset=True)  # it is the host that refuses


def test_bags_of_embeddings() -> None:
    indices, starts = torch.tensor([1, 4, 4, 2, 4, 3, 2, 9]), torch.tensor([0, 4, 4, 6])

    def gradients(weight: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor, starts: torch.Tensor) -> Any:
        weight, weights = weight.clone().requires_grad_(), weights.clone().requires_grad_()
        bag = torch.nn.functional.embedding_bag
        total = bag(indices, weight, starts, mode="sum", per_sample_weights=weights)
        mean = bag(indices, weight, starts, mode="mean", padding_idx=4)
        largest = bag(indices, weight, starts, mode="max")
        (total * mean + largest).sum().backward()
        return total.detach(), mean.detach(), largest.detach(), weight.grad, weights.grad

    generator = torch.Generator().manual_seed(0)  # small integers: sums are exact in any order
    check(gradients, *(torch.randint(-3, 4, n, generator=generator).float() for n in ((10, 8), (8,))), indices, starts)


@pytest.mark.parametrize("corners", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradient_of_an_interpolation(corners: bool) -> None:
    def gradient(x: torch.Tensor) -> Any:
        x = x.clone().requires_grad_()
        torch.nn.functional.interpolate(
            x, size=(7, 3), mode="bilinear", align_corners=corners
        ).square().sum().backward()
        return x.grad

    x = torch.randn(1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gradient(x.to(torchport.device(0))).cpu(), gradient(x), rtol=1e-5, atol=1e-5)


def test_gradient_of_a_weight_norm() -> None:
    def gradients(v: torch.Tensor, g: torch.Tensor) -> Any:
        v, g = v.clone().requires_grad_(), g.clone().requires_grad_()
        torch._weight_norm(v, g, 0).square().sum().backward()
        return v.grad, g.grad

    v, g = torch.arange(1.0, 13.0).reshape(3, 4), torch.tensor([[1.0], [2.0], [3.0]])
    found = gradients(v.to(torchport.device(0)), g.to(torchport.device(0)))
    for mine, theirs in zip(found, gradients(v, g), strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [0, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5))])
def test_polygamma_by_series(order: int) -> None:
    """At whole negative numbers there is a pole, of which the CPU gives a large number for order 1."""
    poles = [-3.0, -1.0, 0.0] if order > 1 else [0.0, -0.0]
    x = torch.cat([torch.linspace(-5.3, 30, 97), torch.tensor([1e-3, -1e-3, 1e5, -2.5, float("nan"), *poles])])
    torchport.fallbacks(reset=True)
    mine = torch.polygamma(order, x.to(torchport.device(0))).cpu()
    torch.testing.assert_close(mine, torch.polygamma(order, x), rtol=2e-4, atol=1e-4, equal_nan=True)
    assert not torchport.fallbacks()


@pytest.mark.parametrize("p", [2.0, *(pytest.param(p, marks=pytest.mark.slow) for p in (0.0, 3.0, float("inf")))])
def test_distances_and_their_gradients(p: float) -> None:
    """Two points are equal; a batch is broadcast."""

    def gradients(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> Any:
        a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
        distances = torch.cdist(a, b, p=p)
        (distances * weights).sum().backward()
        return distances.detach(), a.grad, b.grad

    generator = torch.Generator().manual_seed(0)
    a, b, weights = (torch.randn(*size, generator=generator) for size in ((2, 5, 4), (7, 4), (2, 5, 7)))
    b[0] = a[0, 0]
    torchport.fallbacks(reset=True)
    found = gradients(*(value.to(torchport.device(0)) for value in (a, b, weights)))
    for mine, theirs in zip(found, gradients(a, b, weights), strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-5, atol=1e-5)
    assert not torchport.fallbacks()


@pytest.mark.parametrize("function", [torch.unique, torch.unique_consecutive])
@pytest.mark.parametrize("dim", [None, 0, 1])
def test_slices_that_are_there_twice(function: Any, dim: int | None) -> None:
    values = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]])
    values = values if dim else values[:, 0]  # without columns, too
    torchport.fallbacks(reset=True)
    found = function(values.to(torchport.device(0)), return_inverse=True, return_counts=True, dim=dim)
    for mine, theirs in zip(found, function(values, return_inverse=True, return_counts=True, dim=dim), strict=True):
        assert mine.cpu().equal(theirs)
    assert not torchport.fallbacks()


def test_equality_of_tensors() -> None:
    x = torch.arange(6).to(torchport.device(0))
    torchport.fallbacks(reset=True)
    assert torch.equal(x, x.clone()) and not torch.equal(x, x + 1) and not torch.equal(x, x[:5])
    assert not torchport.fallbacks()


@pytest.mark.slow
@pytest.mark.parametrize("padded", [True, False])
def test_ctc_loss(padded: bool) -> None:
    """Repeated labels, a sequence without labels, one that is too short for its labels."""
    labels = torch.tensor([[1, 1, 2], [3, 0, 0], [0, 0, 0], [2, 2, 2]])
    lengths = torch.tensor([3, 1, 0, 3])
    targets = labels if padded else torch.cat([row[:n] for row, n in zip(labels, lengths, strict=True)])

    def gradient(logits: torch.Tensor, targets: torch.Tensor, inputs: torch.Tensor, lengths: torch.Tensor) -> Any:
        logits = logits.clone().requires_grad_()
        log_probs = logits.log_softmax(-1)
        loss = torch.nn.functional.ctc_loss(log_probs, targets, inputs, lengths, reduction="none", zero_infinity=True)
        loss.sum().backward()
        return loss.detach(), logits.grad

    logits = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    args = logits, targets, torch.tensor([6, 5, 4, 2]), lengths
    found = gradient(*(value.to(torchport.device(0)) for value in args))
    for mine, theirs in zip(found, gradient(*args), strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operator", [torch.addcmul, torch.addcdiv])
def test_a_factor_without_dimensions(operator: Any) -> None:
    x, factor = torch.tensor([[1.0, -2.0, 4.0]]), torch.tensor(3.0)
    there, number = x.to(torchport.device(0)), factor.to(torchport.device(0))
    torchport.fallbacks(reset=True)
    for value in (1, -1, 0.5):
        torch.testing.assert_close(
            operator(there, there, number, value=value).cpu(), operator(x, x, factor, value=value)
        )
    assert not torchport.fallbacks()


def test_products_without_terms() -> None:
    device = torchport.device(0)
    left, right, added = torch.empty(2, 3, 0), torch.empty(2, 0, 4), torch.arange(4.0)
    assert torch.mm(right[0].to(device), torch.empty(4, 5).to(device)).shape == (0, 5)
    torchport.fallbacks(reset=True)
    for function in (
        torch.bmm,
        lambda a, b: torch.mm(a[0], b[0], out=torch.ones(3, 4, device=a.device)),
        lambda a, b: torch.addmm(added.to(a.device), a[0], b[0], beta=2),
        lambda a, b: torch.baddbmm(added.to(a.device), a, b, beta=0),
    ):
        assert function(left.to(device), right.to(device)).cpu().equal(function(left, right))
    assert not torchport.fallbacks()


MISFITS: dict[str, Any] = {
    "mm": lambda new: torch.mm(new(2, 3), new(2, 3)),
    "mm of three dimensions": lambda new: torch.mm(new(2, 2, 3), new(3, 4)),
    "bmm": lambda new: torch.bmm(new(2, 3, 4), new(3, 4, 5)),
    "addmm": lambda new: torch.addmm(new(4), new(2, 3), new(2, 4)),
    "linear": lambda new: torch.nn.functional.linear(new(2, 3), new(4, 5)),
    "attention": lambda new: torch.nn.functional.scaled_dot_product_attention(new(2, 3, 4), new(2, 3, 5), new(2, 3, 4)),
    "channels": lambda new: torch.nn.functional.conv2d(new(1, 3, 8, 8), new(4, 5, 3, 3)),
    "groups": lambda new: torch.nn.functional.conv1d(new(1, 4, 8), new(4, 4, 3), groups=2),
    "window": lambda new: torch.nn.functional.conv1d(new(1, 3, 2), new(4, 3, 5), padding=1),
    "transposed": lambda new: torch.nn.functional.conv_transpose1d(new(1, 3, 8), new(4, 3, 3)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_do_not_fit_are_torchs_errors(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"dim|size|channels|2D"):
        MISFITS[name](lambda *shape: torch.ones(shape, device=torchport.device(0)))


def test_a_sequence_longer_than_the_time_is_an_error() -> None:
    log_probs = torch.randn(5, 2, 4).log_softmax(-1).to(torchport.device(0))
    labels = torch.ones(2, 3, dtype=torch.int64, device=log_probs.device)
    with pytest.raises(ValueError, match="an input has length 9, and there are 5 steps"):
        torch.nn.functional.ctc_loss(log_probs, labels, torch.tensor([9, 5]), torch.tensor([3, 3]))

"""The order of additions of a work-group's lanes: computed in numpy, it gives the bits that the device leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import tree_cases as cases
import triton
from torchport_simt.distribute import reduce

from torchport.errors import TargetError
from torchport.numerics.algebra.user_launch import launch_of
from torchport.numerics.trees.evaluate import evaluate
from torchport.numerics.trees.fold import tree_of
from torchport.numerics.trees.follow import follow
from torchport.numerics.trees.invariance import CERTIFIED, DEPENDS, invariance
from torchport.numerics.trees.memory import NotFollowed
from torchport.numerics.trees.nodes import NONE
from torchport.numerics.trees.tree import terms
from torchport.numerics.trees.values import compute
from torchport.plugin import backend_for
from torchport.precision.trees import kernel_trees
from torchport.target import Target
from torchport.triton.active_target import use

BF16 = torch.bfloat16
Case = tuple[Any, tuple[int, ...], dict[str, Any]]


@pytest.fixture(params=["opencl", "webgpu"])
def target(request: pytest.FixtureRequest) -> Target:
    """A target with a device here: PoCL's lanes are elements of vectors, lavapipe's are invocations."""
    parsed = Target.parse(request.param)
    try:
        backend_for(parsed).driver(parsed)
    except TargetError as error:
        pytest.skip(str(error))
    return parsed


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Large ones that cancel, among them small ones: another order gives other bits."""
    generator = torch.Generator().manual_seed(len(shape))
    x = torch.randn(*shape, generator=generator)
    flat = x.view(-1)
    half = len(flat) // 2
    flat[:half] *= 1e6
    flat[half : 2 * half] = -flat[:half].flip(0) + torch.randn(half, generator=generator)
    return x.to(dtype)


def exp_of(target: Target) -> Callable[..., Any]:
    def exp(x: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(np.ascontiguousarray(x)).float().flatten()
        found = torch.empty_like(values)
        with use(target):
            cases.exponentials[(triton.cdiv(max(len(values), 1), 64),)](values, found, len(values), B=64)
        return found.double().numpy().reshape(x.shape)

    return exp


def check(case: Case, target: Target) -> None:
    """All elements, and the tree of the last one, give the device's bits."""
    kernel, grid, arguments = case
    launch = launch_of(kernel, grid, {n: v.clone() if isinstance(v, torch.Tensor) else v for n, v in arguments.items()},
                       target=target)  # fmt: skip
    followed, functions = follow(launch, target=target), {"math.exp": exp_of(target)}
    with use(target):
        kernel[grid](**arguments)
    seen = 0
    for number, roots in followed.results.items():
        written = np.flatnonzero(roots != NONE)
        if len(written):
            seen += 1
            own = arguments[followed.arguments[number]].double().flatten().numpy()
            found = compute(followed.nodes, roots, launch.storages, functions)
            np.testing.assert_array_equal(found[written], own[written])
            tree = tree_of(followed, int(roots[written[-1]]))
            assert evaluate(tree, launch.storages, functions) == own[written[-1]]
    assert seen == 1


def product(m: int = 19, n: int = 13, k: int = 150) -> Case:
    sizes = {"M": m, "N": n, "K": k, "BM": 16, "BN": 16, "BK": 32}
    return cases.product, (2, 1), {"a": numbers(m, k), "b": numbers(k, n), "c": torch.zeros(m, n), **sizes}


def test_the_devices_own_bits(target: Target) -> None:
    x, w = numbers(3, 100, dtype=BF16), numbers(100, dtype=BF16)
    kernel, grid, arguments = cases.rows(5000)
    check((kernel, grid, {**arguments, "x": numbers(3, 5000)}), target)
    check((cases.layer_norm, (3,), {"x": x, "w": w, "b": w + 1, "y": torch.zeros_like(x), "m": 100, "B": 128}), target)
    check((cases.running_sum, (1,), {"x": numbers(50), "y": torch.zeros(50), "m": 50, "B": 64}), target)
    check(product(), target)


@pytest.mark.slow  # the same operations again
def test_more_of_the_devices_own_bits(target: Target) -> None:
    y = torch.zeros
    for m in (1, 31, 128, 1009):
        kernel, grid, arguments = cases.rows(m)
        check((kernel, grid, {**arguments, "x": numbers(3, m)}), target)
    check((cases.whole_sum, (1,), {"x": numbers(7, 50), "y": y(1), "a": 7, "b": 50, "A": 8, "B": 64}), target)
    check((cases.column_sums, (4,), {"x": numbers(77, 50), "y": y(50), "n": 77, "m": 50, "A": 8, "B": 16}), target)
    check((cases.row_maxima, (1,), {"x": numbers(4, 40), "y": y(4), "m": 40, "B": 16}), target)
    check((cases.parts, (2, 4), {"x": numbers(2, 1000), "y": y(2, 4), "m": 1000, "P": 4, "B": 32}), target)
    check((cases.softmax, (3,), {"x": torch.randn(3, 100), "y": y(3, 100), "m": 100, "B": 128}), target)
    check((cases.running_sum, (1,), {"x": numbers(2000), "y": y(2000), "m": 2000, "B": 2048}), target)
    q = torch.randn(20, 16)
    sizes = {"n": 20, "D": 16, "BM": 16, "BN": 16}
    check((cases.attention, (2,), {"q": q, "k": q + 1, "v": q - 1, "o": torch.zeros_like(q), **sizes}), target)


def test_another_lowering_is_another_tree(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is read from the code of a lane: here of one that combines otherwise."""
    kernel, grid, arguments = cases.rows(100)
    launch = launch_of(kernel, grid, {**arguments, "x": numbers(3, 100)}, target=target)
    [before] = kernel_trees(launch, [("y", 1)], target)
    own = evaluate(before.tree, launch.storages)
    in_registers = reduce._in_registers

    def turned(op: Any, values: Any, positions: list[int]) -> Any:
        """Registers of a lane are combined the other way round."""
        return [list(partial) for partial in in_registers(op, _Turned(values), positions)]

    class _Turned:
        def __init__(self, values: Any) -> None:
            self._values = values

        def own(self, operand: Any) -> Any:
            return self._values.own(operand)[::-1]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._values, name)

    monkeypatch.setattr(reduce, "_in_registers", turned)
    monkeypatch.setattr(reduce, "_RADIX", 1)
    [after] = kernel_trees(launch, [("y", 1)], target)
    assert after.tree.root != before.tree.root
    assert terms(after.tree.root) == terms(before.tree.root)
    assert evaluate(after.tree, launch.storages) != own


def test_rows_of_a_batch(target: Target) -> None:
    """Certified for batches of every size; a kernel that takes another order for more rows is not."""

    def means(rows: int) -> Any:
        made = cases.row_sums, (-(-rows // 2),), {"x": torch.ones(rows, 100), "y": torch.zeros(rows), "n": rows,
                                                  "m": 100, "XB": 2, "RB": 32}  # fmt: skip
        return launch_of(*made, target=target)

    found = invariance(means, target)
    assert (found.verdict, found.every_size) == (CERTIFIED, True), found

    def other(rows: int) -> Any:
        block = 32 if rows < 3 else 64
        made = cases.row_sums, (-(-rows // 2),), {"x": torch.ones(rows, 100), "y": torch.zeros(rows), "n": rows,
                                                  "m": 100, "XB": 2, "RB": block}  # fmt: skip
        return launch_of(*made, target=target)

    assert invariance(other, target).verdict == DEPENDS


def test_what_has_no_order(target: Target) -> None:
    launch = launch_of(cases.atomic_sum, (4,), {"x": numbers(200), "y": torch.zeros(1), "n": 200, "B": 64})
    with pytest.raises(NotFollowed, match="atomic operations of work-groups have no order"):
        follow(launch, target=target)

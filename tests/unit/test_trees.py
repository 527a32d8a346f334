"""The order of a kernel's additions: a tree computed in numpy gives the kernel's own bits."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tree_cases as cases
import triton
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.errors import OptionError
from torchport.numerics.trees.evaluate import evaluate
from torchport.numerics.trees.fold import tree_of
from torchport.numerics.trees.follow import follow
from torchport.numerics.trees.identity import Identities
from torchport.numerics.trees.memory import NotFollowed
from torchport.numerics.trees.nodes import NONE
from torchport.numerics.trees.recorded import longest_sum
from torchport.numerics.trees.tree import Pairs, Run, Tree, leaves, terms
from torchport.numerics.trees.values import compute, fused, rounded
from torchport.numerics.verdicts.replay import Replay
from torchport.precision.equal import launch_of
from torchport.precision.trees import kernel_trees
from torchport.target import Target

FILE = Path(cases.__file__)
BF16 = torch.bfloat16


def numbers(*shape: int, cancelling: bool = False, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random ones; or large ones that cancel, among them small ones."""
    x = torch.randn(*shape)
    if cancelling:
        flat = x.view(-1)
        half = len(flat) // 2
        flat[:half] *= 1e6
        flat[half : 2 * half] = -flat[:half].flip(0) + torch.randn(half)
    return x.to(dtype)


def after(launch: Any) -> dict[int, torch.Tensor]:
    return Replay(launch.ttir, launch.arguments, launch.grid, trusted=True).run(launch.storages)


def exp(x: np.ndarray) -> np.ndarray:
    """The target's own, from a kernel that does nothing else."""
    values = torch.from_numpy(np.ascontiguousarray(x)).float().flatten()
    arguments = {"x": values, "y": torch.empty_like(values), "n": len(values), "B": 64}
    found = after(launch_of(cases.exponentials, (triton.cdiv(max(len(values), 1), 64),), arguments))[1]
    return found.double().numpy().reshape(x.shape)


FUNCTIONS = {"math.exp": exp}


def check(case: Any, *, trees: int = 2) -> None:
    """All nodes, and the trees of the first and last elements, give the kernel's bits."""
    launch = launch_of(*case)
    followed, kernel = follow(launch), after(launch)
    seen = 0
    for number, roots in followed.results.items():
        written = np.flatnonzero(roots != NONE)
        if not len(written):
            continue
        seen += 1
        own = kernel[number].double().numpy()
        found = compute(followed.nodes, roots, launch.storages, FUNCTIONS)
        np.testing.assert_array_equal(found[written], own[written])
        for place in np.unique([*written[: trees - 1], written[-1]]).tolist():
            tree = tree_of(followed, int(roots[place]))
            np.testing.assert_array_equal(evaluate(tree, launch.storages, FUNCTIONS), own[place])
    assert seen == 1


@pytest.mark.parametrize("cancelling", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("m", [0, *(pytest.param(m, marks=pytest.mark.slow) for m in (1, 31, 128, 1009)), 33, 5000])
def test_sums_of_rows(m: int, cancelling: bool) -> None:
    kernel, grid, arguments = cases.rows(m)
    check((kernel, grid, {**arguments, "x": numbers(3, max(m, 1), cancelling=cancelling)}))


@pytest.mark.parametrize("cancelling", [pytest.param(False, marks=pytest.mark.slow), True])
def test_other_sums(cancelling: bool) -> None:
    def x(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return numbers(*shape, cancelling=cancelling, dtype=dtype)

    y = torch.zeros
    check((cases.mean_square, (2,), {"x": x(2, 501), "y": y(2), "m": 501, "B": 64}))
    check((cases.mean_square, (2,), {"x": x(2, 4999, dtype=BF16), "y": y(2, dtype=BF16), "m": 4999, "B": 64}))
    check((cases.whole_sum, (1,), {"x": x(7, 50), "y": y(1), "a": 7, "b": 50, "A": 8, "B": 64}))
    check((cases.column_sums, (4,), {"x": x(77, 50), "y": y(50), "n": 77, "m": 50, "A": 8, "B": 16}))
    check((cases.running_sum, (1,), {"x": x(50), "y": y(50), "m": 50, "B": 64}))
    check((cases.atomic_sum, (4,), {"x": x(200), "y": y(1), "n": 200, "B": 64}))
    sizes = {"M": 19, "N": 13, "K": 150, "BM": 16, "BN": 16, "BK": 32}
    check((cases.product, (2, 1), {"a": x(19, 150), "b": x(150, 13), "c": y(19, 13), **sizes}))


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_sums_inside_of_functions(dtype: torch.dtype) -> None:
    x, w = numbers(3, 100, dtype=dtype), numbers(100, dtype=dtype)
    check((cases.layer_norm, (3,), {"x": x, "w": w, "b": w, "y": torch.zeros_like(x), "m": 100, "B": 128}))
    if dtype == torch.float32:
        check((cases.softmax, (3,), {"x": x, "y": torch.zeros_like(x), "m": 100, "B": 128}))
        q = numbers(20, 16)
        sizes = {"n": 20, "D": 16, "BM": 16, "BN": 16}
        check((cases.attention, (2,), {"q": q, "k": q + 1, "v": q - 1, "o": torch.zeros_like(q), **sizes}))


def test_a_sum_split_over_two_kernels() -> None:
    x, parts, y = numbers(2, 1000, cancelling=True), torch.zeros(2, 4), torch.zeros(2)
    first = launch_of(cases.parts, (2, 4), {"x": x, "y": parts, "m": 1000, "P": 4, "B": 32})
    followed = follow(first)
    sums = [evaluate(tree_of(followed, int(root)), first.storages) for root in followed.results[1]]
    final = {"x": torch.tensor(sums).float().view(2, 4), "y": y, "n": 2, "m": 4, "XB": 2, "RB": 4}
    second = launch_of(cases.row_sums, (1,), final)
    found = [evaluate(tree_of(f, int(root)), second.storages) for f in [follow(second)] for root in f.results[1]]
    kernels = after(launch_of(cases.row_sums, (1,), {**final, "x": after(first)[1].view(2, 4)}))[1]
    assert found == kernels.tolist()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the level is of x86-64")
def test_the_tree_of_a_level() -> None:
    [found] = kernel_trees(launch_of(*cases.rows(5000)), target=Target.parse("cpu:x86_64:avx2"))
    assert (found.argument, found.element, found.elements) == ("y", 0, 3)
    assert terms(found.tree.root) == 157 * 32
    assert found.lines() == [
        "sum of 32 in pairs, 16, 8, 4, 2, 1 apart (f32)",
        "  0",
        "  and then (f32)",
        "    running sum of 9, 512 apart (f32)",
        "      running sum of 16 from 0, 32 apart (f32)",
        "        x[0]",
        "    and then (f32)",
        "      running sum of 13 from 0, 32 apart (f32)",
        "        x[4608]",
        "masked: 24",
    ]


def test_another_order_gives_other_bits() -> None:
    torch.manual_seed(0)
    kernel, grid, arguments = cases.rows(1024)
    launch = launch_of(kernel, grid, {**arguments, "x": numbers(3, 1024)})
    own = after(launch)[1].tolist()
    trees = [kernel_trees(launch, [("y", row)])[0].tree for row in range(3)]
    count, roundings = longest_sum(follow(launch))
    assert count == 1024
    assert 23 <= roundings <= 26  # 16 and 2 in a lane, 5 among 32 lanes, and zeros that sums start from
    assert [evaluate(tree, launch.storages) for tree in trees] == own

    def changed(tree: Tree) -> list[Any]:
        root = tree.root
        assert isinstance(root, Pairs)
        assert isinstance(root.body, Run)
        [first] = leaves(root)
        turned = replace(root, steps=root.steps[::-1])
        one_run = replace(root.body, body=first, count=1024, step=(1,))
        return [evaluate(replace(tree, root=other), launch.storages) for other in (turned, one_run)]

    for other in zip(*map(changed, trees), strict=True):
        assert list(other) != own


def test_maxima_have_no_order() -> None:
    x = numbers(4, 40)

    def largest(block: int) -> tuple[Any, int]:
        followed = follow(launch_of(cases.row_maxima, (1,), {"x": x, "y": torch.zeros(4), "m": 40, "B": block}))
        return followed, int(followed.results[1][2])

    (first, a), (second, b) = largest(16), largest(64)
    same = Identities()
    assert same.of(first, np.array([a]), {}) == same.of(second, np.array([b]), {})
    assert tree_of(first, a).root != tree_of(second, b).root
    check((cases.row_maxima, (1,), {"x": x, "y": torch.zeros(4), "m": 40, "B": 16}))
    x[1, 7], x[2, 9] = float("nan"), float("inf")
    check((cases.row_maxima, (1,), {"x": x, "y": torch.zeros(4), "m": 40, "B": 16}))


def test_integers_are_computed() -> None:
    launch = launch_of(cases.integer_sum, (1,), {"x": torch.arange(50), "y": torch.zeros(1), "m": 50, "B": 64})
    [found] = kernel_trees(launch)
    assert evaluate(found.tree, launch.storages) == 50 * 49 / 2


def test_what_is_not_followed() -> None:
    case = launch_of(cases.while_positive, (1,), {"x": torch.ones(4), "y": torch.zeros(1), "B": 4})
    with pytest.raises(NotFollowed, match="depends on the values of floats"):
        follow(case)
    rows = launch_of(*cases.rows(40))
    with pytest.raises(NotFollowed, match="does not show"):
        follow(rows, target=Target.parse("linalg"))
    short = launch_of(*cases.rows(40))
    short.storages[0].resize_(50)
    with pytest.raises(NotFollowed, match="leaves its arguments"):
        follow(replace(short, arguments=tuple(replace(one, shape=(), stride=()) for one in short.arguments)))
    with pytest.raises(OptionError, match=r"writes no float to y\[3\]"):
        kernel_trees(rows, [("y", 3)])


def test_rounding_once() -> None:
    a, b = np.float32(1 + 2**-12), np.float32(1 - 2**-12)
    exact = fused(np.array([a], float), np.array([b], float), np.array([-1.0]), "f32")
    assert exact[0] == -(2.0**-24)  # rounded before, the product would be 1
    between = 1 + 2**-9 + 2**-40  # above the middle of two bf16; rounded to f32 first, the middle
    assert rounded(np.array([between]), "bf16")[0] == 1.0  # 2^-9 is a quarter of a step
    middle = 1 + 2**-8 + 2**-40
    assert rounded(np.array([middle]), "bf16")[0] == 1 + 2**-7


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "case.py"
    file.write_text(f"import sys; sys.path.insert(0, {str(FILE.parent)!r})\nfrom tree_cases import rows\n"
                    "def sums(): return rows(40)\n")  # fmt: skip
    shown = CliRunner().invoke(app, ["trees", f"{file}:sums", "--element", "y[1]"])
    assert (shown.exit_code, shown.output.splitlines()[0]) == (0, "y[1]:")
    refused = CliRunner().invoke(app, ["trees", f"{file}:sums", "--target", "linalg"])
    assert refused.exit_code == 2
    assert refused.output.startswith("NOT FOLLOWED: ")

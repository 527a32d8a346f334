"""Batch invariance from the order of operations: what is certified, what depends on the batch, what is not known."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import invariance_cases as cases
import pytest
import torch
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.listing import Lists
from torchport.numerics.algebra.user_launch import launch_of
from torchport.numerics.trees.dependence import Dependence, check_rows
from torchport.numerics.trees.invariance import Invariance, invariance
from torchport.numerics.verdicts.replay import Replay
from torchport.plugin import backend_for
from torchport.target import Target


def found(case: cases.Case) -> Invariance:
    return invariance(lambda n: launch_of(*case(n)))


def rows_after(case: Any, inputs: list[torch.Tensor], rows: int) -> torch.Tensor:
    """The result for the first rows of ``inputs``, by the kernel itself."""
    kernel, grid, arguments = case(rows)
    tensors = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]
    for name, whole in zip(tensors[:-1], inputs, strict=True):
        at = tuple(slice(0, size) for size in arguments[name].shape)
        arguments[name] = whole[at].clone()
    launch = launch_of(kernel, grid, arguments)
    last = arguments[tensors[-1]]
    return (
        Replay(launch.ttir, launch.arguments, launch.grid, trusted=True)
        .run(launch.storages)[len(tensors) - 1]
        .view_as(last)
    )


QUICK = {"rows in blocks", "layer norm", "persistent programs", "rows of their own length", "no columns"}


def marked(names: Iterable[str], quick: Container[str]) -> list[Any]:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", marked(cases.EVERY_SIZE, QUICK))
def test_rows_that_do_not_depend_on_the_batch(name: str) -> None:
    case = cases.EVERY_SIZE[name]
    result = found(case)
    assert (result.verdict, result.every_size, result.reason) == ("CERTIFIED", True, "")
    assert result.rows == sum(result.sizes)
    inputs = [value for value in case(23)[2].values() if isinstance(value, torch.Tensor)][:-1]
    whole = rows_after(case, inputs, 23)
    for count in (1, 6, 7):
        assert torch.equal(rows_after(case, inputs, count), whole[:count])


@pytest.mark.slow
@pytest.mark.parametrize("name", cases.PRODUCTS)
def test_products(name: str) -> None:
    result = found(cases.PRODUCTS[name])
    assert (result.verdict, result.every_size, result.sizes) == ("CERTIFIED", True, tuple(range(1, 18)))


@pytest.mark.parametrize("name", cases.DEPENDING)
def test_rows_that_depend_on_the_batch(name: str) -> None:
    reason, case = cases.DEPENDING[name]
    result = found(case)
    assert result.verdict == "DEPENDS"
    assert reason in result.reason


def test_what_is_certified_for_some_sizes_only() -> None:
    def lengths(n: int) -> Any:
        given = {"x": cases.x(n, 60), "lengths": torch.full((n,), 37, dtype=torch.int32), "y": cases.z(n)}
        return cases.ragged_block, (cases.cdiv(n, 4),), {**given, "n": n, "m": 60, "R": 4, "B": 16}

    result = found(lengths)  # rows of one program run as long as the longest of them
    assert (result.verdict, result.every_size, result.sizes) == ("CERTIFIED", False, (1, 2, 3, 5, 8))
    assert "tt.reduce" in result.reason


@pytest.mark.parametrize(
    "name", ["the first rows", "position", "size", "steps by the size", "another mask", "reversed"]
)
def test_the_ttir_alone_shows_it(name: str) -> None:
    """Also where the batches that are compared would not: each kernel is refused for batches of every size."""
    _, case = cases.DEPENDING[name]
    launch = launch_of(*case(2))
    compiler = backend_for(Target("cpu")).compiler(Target("cpu"))
    assert isinstance(compiler, Lists)
    sizes = [number for number, one in enumerate(launch.arguments) if one.name == "n"]
    with pytest.raises(Dependence):
        check_rows(compiler.listing(launch.ttir, "tensors"), sizes, [0])


def test_what_is_not_known() -> None:
    result = invariance(lambda n: launch_of(*cases.EVERY_SIZE["softmax"](n)), Target("linalg"))
    assert result.verdict == "NOT KNOWN"
    assert "does not show" in result.reason


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "case.py"
    file.write_text(f"import sys; sys.path.insert(0, {str(Path(cases.__file__).parent)!r})\n"
                    "from invariance_cases import DEPENDING, EVERY_SIZE\n"
                    "good, bad = EVERY_SIZE['softmax'], DEPENDING['atomic'][1]\n")  # fmt: skip
    good = CliRunner().invoke(app, ["invariant", f"{file}:good"])
    assert (good.exit_code, good.output.split(":")[0]) == (0, "CERTIFIED for batches of every size")
    bad = CliRunner().invoke(app, ["invariant", f"{file}:bad"])
    assert (bad.exit_code, bad.output[:7]) == (1, "DEPENDS")
    unknown = CliRunner().invoke(app, ["invariant", f"{file}:good", "--target", "linalg", "--json"])
    assert unknown.exit_code == 2

"""A against B: launches that read the same bits and differ by more than is legal are blamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from precision_bench.sources import run_of
from torch.nn import functional as F

from torchport.numerics.compare.diff import Diff, compare
from torchport.numerics.verdicts.judge import judge


def right() -> Any:
    @triton.jit
    def doubled(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + i, tl.load(x + i, i < n) * 2.0, i < n)

    return doubled


def wrong() -> Any:
    @triton.jit
    def doubled(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + i, tl.load(x + i, i < n) * 2.02, i < n)

    return doubled


@torch.library.custom_op("torchport_tests::rows", mutates_args=())
def rows(x: torch.Tensor) -> torch.Tensor:
    return WAYS[WAY[0]](x)


@rows.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0])


WAY = ["sum"]
WAYS = {
    "sum": lambda x: x.sum(-1),
    "backwards": lambda x: x.double().flip(-1).sum(-1).float() * (1 + 2**-22),
    "wrong": lambda x: x.sum(-1) * 1.01,
    "lost": lambda x: x[:, :-1].sum(-1),
}


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def blamed(diff: Diff) -> set[str]:
    return {root.run for root in diff.roots if not root.legal}


def test_kernels_of_the_user_whose_sources_differ_are_both_named(tmp_path: Path) -> None:
    def made(kernel: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        def call(x: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(x)
            kernel[(4,)](x, out, x.numel(), BLOCK=16)
            return out

        return call

    runs = [run_of(tmp_path / one.__name__, made(one()), (drawn(50),)) for one in (right, wrong)]
    assert compare(runs[0], runs[0], judge).level in ("EXACT", "EXPECTED")
    diff = compare(*runs, judge)
    assert (diff.level, blamed(diff)) == ("FAIL", {"A", "B"})
    assert "read the same bits as B launch" in diff.roots[0].reasons[0]


@pytest.mark.parametrize(("way", "level"), [("backwards", "UNVERIFIED"), ("wrong", "FAIL"), ("lost", "FAIL")])
def test_operators_that_nothing_is_known_of_agree_or_are_both_named(tmp_path: Path, way: str, level: str) -> None:
    runs = []
    for name in ("sum", way):
        WAY[0] = name
        runs.append(run_of(tmp_path / name, lambda x: torch.relu(rows(x * 2)), (drawn(8, 100),)))
    diff = compare(*runs, judge)
    assert diff.level == level
    assert blamed(diff) == ({"A", "B"} if level == "FAIL" else set())


def test_a_kernel_that_disagrees_with_its_nodes_is_the_one_at_fault(tmp_path: Path) -> None:
    def call(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = F.silu(x)
        return y * 1.7, y.to(torch.float8_e4m3fn)

    fault = (r"(tl\.full\(\[1(?:, 1)?\], )1\.7\d*", r"\g<1>1.734")
    diff = compare(
        run_of(tmp_path / "a", call, (drawn(8, 64),)), run_of(tmp_path / "b", call, (drawn(8, 64),), fault), judge
    )
    assert (diff.level, blamed(diff)) == ("FAIL", {"B"})
    levels = {row.node: row.b.level for row in diff.rows if row.b is not None}
    assert {node for node, level in levels.items() if level == "FAIL"} == {"mul"}, "the other output is right"


@pytest.mark.parametrize("chip", ["h100", pytest.param("mi300x", marks=pytest.mark.slow)])
def test_the_arithmetic_of_another_chip_is_not_blamed(tmp_path: Path, chip: str) -> None:
    def call(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.softmax(F.gelu(x @ w).float(), -1)

    given = drawn(16, 512).half(), drawn(512, 32).half() / 8
    runs = [run_of(tmp_path / "cpu", call, given), run_of(tmp_path / chip, call, given, emulate=chip)]
    assert blamed(compare(*runs, judge)) == set()

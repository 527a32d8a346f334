"""What Inductor asks for again and again when it fuses nodes: the answers are its own, and come sooner."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sympy
from torch._inductor.codegen.block_analysis import BlockPatternMatcher
from torch._inductor.sizevars import SizeVarAllocator
from torch._inductor.virtualized import V
from torch.utils._sympy.functions import FloorDiv, Identity, ModularIndexing

from torchport.inductor.codegen import tilings
from torchport.inductor.scope import Scope, Settings, enter, leave

x, y, s = sympy.symbols("x y s", integer=True, nonnegative=True)
PLAIN = (x, 64 * x, 64 * x + y, s * x, FloorDiv(s, 2) * x, 2 * x + Identity(3 * x), x**2)
BLOCKS = (
    sympy.S.Zero,
    8 * FloorDiv(x, 4) + ModularIndexing(x, 1, 4),
    8 * FloorDiv(Identity(x), 4) + ModularIndexing(x, 1, 4),
    3 * ModularIndexing(x, 1, 4) + x,
)


@pytest.fixture
def graph() -> Iterator[None]:
    tilings._match_only_blocks()
    with V.set_graph_handler(SimpleNamespace(sizevars=SizeVarAllocator())):
        yield


def in_scope(index: Any) -> Any:
    token = enter(Scope(Settings("cpu", "cpu", {}, "")))
    try:
        return BlockPatternMatcher.match_mod_div_block_expr(index, x, sympy.Integer(32), 2)
    finally:
        leave(token)


@pytest.mark.parametrize("index", PLAIN + BLOCKS, ids=str)
def test_indices_match_the_same_blocks(graph: None, index: Any) -> None:
    assert in_scope(index) == BlockPatternMatcher.match_mod_div_block_expr(index, x, sympy.Integer(32), 2)


def test_only_quotients_are_compared_with_the_pattern(graph: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Any] = []
    stock = sympy.Basic.match
    monkeypatch.setattr(sympy.Basic, "match", lambda self, *args, **how: compared.append(self) or stock(self, *args))
    for index in PLAIN + BLOCKS:
        in_scope(index)
    assert len(compared) == len(BLOCKS)

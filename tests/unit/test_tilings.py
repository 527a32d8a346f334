"""What Inductor asks for again and again when it fuses nodes: the answers are its own, and come sooner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import sympy
from torch._inductor.codegen.block_analysis import BlockPatternMatcher
from torch._inductor.codegen.triton import TritonScheduling
from torch._inductor.dependencies import MemoryDep, ReadWrites
from torch._inductor.scheduler import SchedulerNode
from torch._inductor.sizevars import SizeVarAllocator
from torch._inductor.virtualized import V
from torch.utils._sympy.functions import FloorDiv, Identity, ModularIndexing

from torchport.inductor.codegen import tilings
from torchport.inductor.codegen.tilings import TiledScheduling
from torchport.inductor.scope import Scope, Settings, enter, leave

x, y, s = sympy.symbols("x y s", integer=True, nonnegative=True)
PLAIN = (x, 64 * x, 64 * x + y, s * x, FloorDiv(s, 2) * x, 2 * x + Identity(3 * x), x**2)
BLOCKS = (
    sympy.S.Zero,
    8 * FloorDiv(x, 4) + ModularIndexing(x, 1, 4),
    8 * FloorDiv(Identity(x), 4) + ModularIndexing(x, 1, 4),
    3 * ModularIndexing(x, 1, 4) + x,
)


@contextmanager
def scope() -> Iterator[None]:
    token = enter(Scope(Settings("cpu", "cpu", {}, "")))
    try:
        yield
    finally:
        leave(token)


@pytest.fixture
def graph() -> Iterator[None]:
    tilings._match_only_blocks()
    with V.set_graph_handler(SimpleNamespace(sizevars=SizeVarAllocator(), removed_buffers=set())):
        yield


def in_scope(index: Any) -> Any:
    with scope():
        return BlockPatternMatcher.match_mod_div_block_expr(index, x, sympy.Integer(32), 2)


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


def node(*ranges: int) -> Any:
    """A node that reads and writes the elements of a tensor in order."""
    made: Any = object.__new__(SchedulerNode)
    made._sizes, made._body = (tuple(map(sympy.Integer, ranges)), ()), object()
    names = (x, y)[: len(ranges)]
    dep = MemoryDep("b", 64 * x + y if len(ranges) > 1 else x, names, made._sizes[0])
    made.read_writes = ReadWrites({dep}, set(), set(), list(names))
    made.pointwise_or_reduction_read_writes = lambda pointwise: made.read_writes
    return made


@pytest.fixture
def asked(graph: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The questions that reach Inductor's own code."""
    found: list[str] = []
    for name in ("tiling_is_compatible", "get_nd_tilings", "candidate_tilings"):
        stock = getattr(TritonScheduling, name)

        def ask(cls: Any, *args: Any, name: str = name, stock: Any = stock) -> Any:
            found.append(name)
            return stock(*args)

        monkeypatch.setattr(TritonScheduling, name, classmethod(ask))
    with scope():
        yield found


def answers(nodes: list[Any]) -> list[Any]:
    size = sympy.Integer(4096)
    tilings_ = TiledScheduling.get_nd_tilings(nodes, size, sympy.S.One)
    fits = [TiledScheduling.tiling_is_compatible(nodes, size, sympy.S.One, one) for one in tilings_]
    return [tilings_, fits, [TiledScheduling.candidate_tilings(one, size, sympy.S.One) for one in nodes]]


def test_equal_nodes_are_asked_for_once(asked: list[str]) -> None:
    nodes = [node(64, 64) for _ in range(20)]
    first = answers(nodes)
    assert [dict(one) for one in first[0]] == [{"y": 64, "x": 64, "r0_": 1}] and first[1] == [True]
    assert asked == ["get_nd_tilings", "tiling_is_compatible", *["candidate_tilings"] * 20]
    assert answers(nodes) == first and len(asked) == 22


def test_a_node_whose_loops_changed_is_asked_for_again(asked: list[str]) -> None:
    one, merged = node(64, 64), node(4096)
    before = answers([one])
    one._sizes, one._body, one.read_writes = merged._sizes, merged._body, merged.read_writes  # as merge_loops does
    after = answers([one])
    assert [dict(tiling) for tiling in after[0]] == [{"x": 4096, "r0_": 1}] and after != before


def test_removed_buffers_change_the_candidates(asked: list[str]) -> None:
    one = node(64, 64)
    answers([one])
    V.graph.removed_buffers.add("b")
    answers([one])
    assert asked.count("candidate_tilings") == 2 and asked.count("get_nd_tilings") == 1


def test_out_of_a_graph_of_torchports_inductor_answers(graph: None) -> None:
    nodes = [node(64, 64), node(4096)]
    with scope():
        kept = answers(nodes)
    assert kept == answers(nodes)

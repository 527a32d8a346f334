"""Whether pointers of two accesses meet is compared with all pairs of lanes, for random tiles of one array."""

from __future__ import annotations

import itertools
import random

import pytest
from mlir import ir
from torchport_passes.analysis.disjoint import disjoint
from torchport_passes.frontend.importer import new_context
from torchport_passes.ir.ops import matching

TILE = """
  %first{n} = arith.constant {start} : i32
  %start{n} = "tt.splat"(%first{n}) : (i32) -> tensor<{rows}x{columns}xi32>
  %stride{n} = arith.constant {stride} : i32
  %scale{n} = "tt.splat"(%stride{n}) : (i32) -> tensor<{rows}x1xi32>
  %r{n} = "tt.make_range"() {{start = 0 : i32, end = {rows} : i32}} : () -> tensor<{rows}xi32>
  %c{n} = "tt.make_range"() {{start = 0 : i32, end = {columns} : i32}} : () -> tensor<{columns}xi32>
  %rr{n} = "tt.expand_dims"(%r{n}) {{axis = 1 : i32}} : (tensor<{rows}xi32>) -> tensor<{rows}x1xi32>
  %cc{n} = "tt.expand_dims"(%c{n}) {{axis = 0 : i32}} : (tensor<{columns}xi32>) -> tensor<1x{columns}xi32>
  %rs{n} = "arith.muli"(%rr{n}, %scale{n}) : (tensor<{rows}x1xi32>, tensor<{rows}x1xi32>) -> tensor<{rows}x1xi32>
  %rb{n} = "tt.broadcast"(%rs{n}) : (tensor<{rows}x1xi32>) -> tensor<{rows}x{columns}xi32>
  %cb{n} = "tt.broadcast"(%cc{n}) : (tensor<1x{columns}xi32>) -> tensor<{rows}x{columns}xi32>
  %in{n} = "arith.addi"(%rb{n}, %cb{n}) : {pair}
  %own{n} = "arith.addi"(%in{n}, %start{n}) : {pair}
  %some{n} = "tt.splat"(%{scalar}) : (i32) -> tensor<{rows}x{columns}xi32>
  %at{n} = "arith.addi"(%own{n}, %some{n}) : {pair}
  %base{n} = "tt.splat"(%p) : (!llvm.ptr) -> tensor<{rows}x{columns}x!llvm.ptr>
  %t{n} = "tt.addptr"(%base{n}, %at{n}) {{elem_bytes = 4 : i64}} :
    (tensor<{rows}x{columns}x!llvm.ptr>, tensor<{rows}x{columns}xi32>) -> tensor<{rows}x{columns}x!llvm.ptr>
"""


def proven(tiles: list[tuple[int, int, int, int]], scalars: tuple[str, str] = ("a", "a")) -> bool:
    """``tiles``: of each access the first element, the distance of rows, and how many rows and columns there are."""
    text = ""
    for n, ((start, stride, rows, columns), scalar) in enumerate(zip(tiles, scalars, strict=True)):
        tensor = f"tensor<{rows}x{columns}xi32>"
        pair = f"({tensor}, {tensor}) -> {tensor}"
        names = {"start": start, "stride": stride, "rows": rows, "columns": columns, "pair": pair, "scalar": scalar}
        text += TILE.format(n=n, **names)
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(f"func.func @f(%p: !llvm.ptr, %a: i32, %b: i32) {{\n{text}\nreturn\n}}")
        first, second = matching(module.operation, "tt.addptr".__eq__)
        return disjoint(first.results[0], second.results[0])


def meet(tiles: list[tuple[int, int, int, int]]) -> bool:
    first, second = (
        {start + stride * r + c for r, c in itertools.product(range(rows), range(columns))}
        for start, stride, rows, columns in tiles
    )
    return not first.isdisjoint(second)


def test_agrees_with_all_pairs_of_lanes() -> None:
    draw = random.Random(0)
    answers = []
    for _ in range(60):
        stride = draw.choice([3, 4, 8, 16])
        tiles = [
            (draw.randrange(20), draw.choice([stride, stride, 5]), draw.choice([1, 2, 4]), draw.choice([2, 4, 8]))
            for _ in range(2)
        ]
        answers.append(proven(tiles))
        assert answers[-1] == (not meet(tiles)), tiles
    assert True in answers
    assert False in answers


@pytest.mark.parametrize("scalars", [("a", "b"), ("b", "a")])
def test_nothing_is_proven_of_unknown_distances(scalars: tuple[str, str]) -> None:
    tiles = [(0, 32, 2, 8), (16, 32, 2, 8)]
    assert proven(tiles)
    assert not proven(tiles, scalars)

"""Packages: dataclasses, named tuples and caches as inputs and results, by the names of their fields alone."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from torchport.errors import ArtifactError, CompilationError, InputError
from torchport.packages import Package, Result, build, load, trees
from torchport.packages.building import default_targets
from torchport.packages.containers import plain, rebuilt

Pair = namedtuple("Pair", "left right")


@dataclass
class Output:
    first: torch.Tensor
    cache: Any
    second: torch.Tensor | None = None


@dataclass(frozen=True)
class Given:
    x: torch.Tensor
    mask: torch.Tensor | None = None


class Layer:
    def __init__(self, width: int, grows: bool) -> None:
        self.keys = torch.zeros(1, 4, width)
        self.length = torch.tensor(0)
        self.grows = grows


class Cache:
    def __init__(self, width: int = 2) -> None:
        self.layers = [Layer(width, False), Layer(width, True)]
        self.name = "no tensor"

    def update(self, x: torch.Tensor) -> torch.Tensor:
        fixed, growing = self.layers
        fixed.keys.index_copy_(1, fixed.length[None], x)
        fixed.length.add_(1)
        growing.keys = torch.cat([growing.keys, x * 2], 1)
        return fixed.keys.sum() + growing.keys.sum()


def step(given: Given, pair: Pair, cache: Cache) -> Output:
    return Output(cache.update(given.x) + pair.left * pair.right, cache)


def packaged(function: Callable[..., Any], args: tuple[Any, ...], path: Path, **options: Any) -> Package:
    build(function, args, path / "it.tpz", targets=[default_targets()[0]], **options)
    return load(path / "it.tpz")


def inputs(cache: Any) -> tuple[Any, ...]:
    return Given(torch.randn(1, 1, 2)), Pair(torch.randn(3), torch.randn(3)), cache


def test_a_cache_is_given_and_returned(tmp_path: Path) -> None:
    grown = torch.export.Dim("grown", min=2, max=64)
    shapes = ({"x": None}, (None, None), {"layers": [{"keys": None, "length": None}, [{1: grown}, None]]})
    given = inputs(Cache())
    package = packaged(step, given, tmp_path, dynamic_shapes=shapes)
    assert given[2].layers[0].length == 0 and given[2].layers[1].keys.shape[1] == 4  # the example is not changed
    cache, other = Cache(), Cache()
    answer = Result({"cache": other})
    for _ in range(3):
        one, pair, _ = inputs(None)
        wanted, answer = step(one, pair, cache), package({"x": one.x}, pair, answer.cache)
        assert isinstance(answer, Result) and list(answer) == ["first", "cache"] and answer.second is None
        torch.testing.assert_close(answer[0], wanted.first)
        assert answer[:2][1] is answer.cache and copy.deepcopy(answer).second is None
        assert isinstance(answer.cache, SimpleNamespace)
        for got, layer in zip(answer.cache.layers, cache.layers, strict=True):
            torch.testing.assert_close(got.keys, layer.keys)
            assert got.length == layer.length
    assert other.layers[0].length == 3 and other.layers[1].keys.shape[1] == 4  # written in place; replaced
    one, pair, _ = inputs(None)
    for wrong, problem in (
        ((Given(one.x, one.x), pair, cache), "given.mask is a Tensor, and the model was exported without it"),
        (({"x": one.x, "y": one.x}, pair, cache), "given is a dict with x, y, and the model takes a dict or object"),
        ((one, namedtuple("Other", "right left")(*pair), cache), "pair has right, left, and the model takes left, ri"),
        ((one, pair[0], cache), "pair is a Tensor, and the model takes a named tuple of 2"),
        ((one, pair, cache.layers), "cache is a list of 2, and the model takes an object with layers"),
        ((one, pair, SimpleNamespace(layers=cache.layers[:1])), "cache.layers is a list of 1, and .* a list of 2"),
        ((one, pair, SimpleNamespace(layers=[cache, cache])), r"layers\[0\] is a Cache, and .* with keys, length"),
        ((one, pair, one.x), "cache is a Tensor, and the model takes an object with layers"),
    ):
        with pytest.raises(InputError, match=problem):
            package(*wrong)


class Keeps(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.cache = self.alias = Cache()
        self.tables = [torch.ones(2), self.linear.bias]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fixed = self.cache.layers[0]
        fixed.length.add_(1)
        fixed.keys.mul_(0.5).add_(self.linear(x))
        return fixed.keys.sum() * self.tables[0] + self.tables[1] + self.alias.layers[0].length


def test_a_cache_in_the_model_is_its_state(tmp_path: Path) -> None:
    model = Keeps()
    with torch.no_grad():
        package = packaged(model, (torch.ones(1, 2),), tmp_path)
        for _ in range(3):
            torch.testing.assert_close(package(torch.ones(1, 2)), model(torch.ones(1, 2)))
    names = {"cache.layers[0].keys", "cache.layers[0].length", "tables[0]", "linear.weight", "linear.bias"}
    assert names <= {*package.weights} and package.weights["cache.layers[0].length"] == 3
    assert model.cache is model.alias and load(tmp_path / "it.tpz").weights["cache.layers[0].length"] == 0


class Counts(Cache):
    calls = 0

    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return x * self.layers[0].keys.sum()


class Replaces(Cache):
    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.layers[1].keys = torch.cat([self.layers[1].keys, x], 1)
        return x * 2


def counting() -> Counts:
    cache = Counts()
    cache.calls = 3
    return cache


class Marks(Cache):
    """Marks what it has seen, as transformers' caches of encoders and decoders do."""

    def __init__(self, seen: bool) -> None:
        super().__init__()
        self.seen, self.order = {0: seen}, [[1, 2]]

    def update(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.seen[0] else x * 2
        self.seen[0] = True
        return y * self.layers[0].keys.sum()


class Sorts(Marks):
    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.order[0].reverse()
        return x * self.layers[0].keys.sum()


def test_marks_that_stay(tmp_path: Path) -> None:
    x, cache = torch.randn(1, 1, 2), Marks(True)
    package = packaged(lambda x, cache: cache.update(x), (x, cache), tmp_path)
    torch.testing.assert_close(package(x, cache), cache.update(x))


def test_an_example_keeps_its_marks(tmp_path: Path) -> None:
    cache = Marks(False)
    with pytest.raises(CompilationError):
        packaged(lambda x, cache: cache.update(x), (torch.randn(1, 1, 2), cache), tmp_path)
    assert cache.seen == {0: False}


@pytest.mark.parametrize(
    "cache, problem",
    [
        (Marks(False), r"cache\.seen\[0\] is False before a call and True after it"),
        (Sorts(True), r"cache\.order\[0\]\[0\] is 1 before a call and 2 after it"),
        (counting(), r"cache\.calls is 3 before a call and 4 after it"),
        (Replaces(), r"gives cache\.layers\[1\]\.keys a new tensor that the result does not have"),
        (object(), "cache is a object that holds no tensors"),
        (SimpleNamespace(layers=[]), "cache is a SimpleNamespace that holds no tensors"),
    ],
)
def test_what_a_package_would_lose_is_refused(tmp_path: Path, cache: Any, problem: str) -> None:
    with pytest.raises(CompilationError, match=problem):
        packaged(lambda x, cache: cache.update(x), (torch.randn(1, 1, 2), cache), tmp_path)


@pytest.mark.parametrize(
    "function, problem",
    [
        (lambda x: {"x": x, "kind": "text"}, r"the result\['kind'\] is a text, which a package cannot return"),
        (lambda x: (x, x.dtype), r"the result\[1\] is a dtype that holds no tensors"),
    ],
)
def test_results_that_are_refused(tmp_path: Path, function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(CompilationError, match=problem):
        packaged(function, (torch.ones(3),), tmp_path)


def test_containers_come_back_as_they_were() -> None:
    cache = Cache()
    value = [Given(torch.ones(2)), Pair(1, None), {"a": (cache, 2.0)}, torch.ones(3).topk(2)]
    made = plain(value, "it")
    again = rebuilt(value, made.value)
    assert [type(one) for one in again] == [type(one) for one in value]
    assert again[0].x is value[0].x and again[2]["a"][0].layers[1].keys is cache.layers[1].keys
    assert again[2]["a"][0] is not cache and again[2]["a"][0].name == "no tensor" and again[3].values is value[3].values
    trees.check(made.tree)
    assert trees.leaves(made.tree) == 1 + 2 + 5 + 2
    names = [*trees.names_in_tree(made.tree, "it")]
    assert names[:2] == ["it[0].x", "it[1].left"] and "it[2]['a'][0].layers[0].keys" in names
    loop = SimpleNamespace(x=torch.ones(1), inner=SimpleNamespace(x=torch.ones(1)))
    loop.inner.outer = loop
    with pytest.raises(CompilationError, match="nested more than 32 deep"):
        plain(loop, "it")


@pytest.mark.parametrize(
    "tree",
    [
        None, [], 3, ["set", "*"], ["tuple", None], ["object"], ["object", "ab", "*", "*"], ["object", ["a"]],
        ["object", ["a", "a"], "*", "*"], ["object", ["__class__"], "*"], ["result", ["a.b"], "*"],
        ["result", [3], "*"],        ["object", ["a\n"], "*"],
        ["named", ["a"], None], ["dict", ["a"], None], ["named", ["class"], "*"],
    ],
)  # fmt: skip
def test_trees_of_a_stranger(tree: Any) -> None:
    with pytest.raises(ArtifactError):
        trees.check(tree)


def test_a_tree_that_is_too_deep() -> None:
    tree: Any = "*"
    for _ in range(60):
        tree = ["list", tree]
    with pytest.raises(ArtifactError, match="more than 40 deep"):
        trees.check(tree)

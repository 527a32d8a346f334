"""Evaluates two programs in float64 on the data of the first, and tells which of their nodes hold the same values."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.graphs.dump import by_name, references
from torchport.numerics.graphs.evaluate import evaluate
from torchport.numerics.graphs.sizes import size_of, symbols_of
from torchport.numerics.programs.program import Program
from torchport.numerics.programs.sketch import Form, Table, distance, sketch_of

__all__ = ["TOLERANCE", "Evaluated", "Other", "Pairing", "evaluate_first", "evaluate_other", "made_up", "rounding_of"]

TOLERANCE = 1e-9
"""How far two values may be apart, relative to their norm, and be the same: float64 in another order of operations."""

_NEAR = 64.0
"""How far a recorded value may be from a float64 one that it stands for, in square roots of its type's unit, as a
result of many operations in that type is. For bfloat16 that is limited by ``_LARGEST``."""

_LARGEST = 0.02

_MOST = 2**28
"""Elements of a value that is made up."""


@dataclass
class Evaluated:
    """A program in float64.

    values: of externals, by node
    forms: sketches by node
    numbers: of sketches in ``table``, by node
    made_up: values that stand for nodes without a float64 value, by what identifies these
    stood_for: recorded values among them, by node
    known_by: what identifies these, by node
    refused: by node, why it has no value
    kept: values of nodes that were asked for
    """

    values: dict[str, Any]
    table: Table
    forms: dict[str, Form] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    made_up: dict[str, Any] = field(default_factory=dict)
    stood_for: dict[str, torch.Tensor] = field(default_factory=dict)
    known_by: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass
class Other:
    """The second program in float64, on the first one's data.

    forms: sketches by node
    partners: by node, the number of its value in the first program's table; None if the first has no such value
    healed: nodes whose value was replaced by the first program's, with that one's node
    adopted: nodes of the first program whose values recorded ones of this program stand for; they must be kept
    shared: what identifies nodes without a float64 value that both programs have
    own: types of recorded values of this program that stand for themselves
    refused: by node, why it has no value
    """

    forms: dict[str, Form] = field(default_factory=dict)
    adopted: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    own: set[torch.dtype] = field(default_factory=set)
    partners: dict[str, int | None] = field(default_factory=dict)
    healed: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass
class Pairing:
    """Two programs with what is known of both.

    externals: of A by those of B
    values: of externals, of A and of B
    first, other: their float64 values
    """

    a: Program
    b: Program
    externals: Mapping[str, str]
    values: tuple[Mapping[str, Any], Mapping[str, Any]]
    first: Evaluated
    other: Other


def rounding_of(first: Evaluated, other: Other) -> float:
    """How far values may be apart because recorded ones, which are rounded, stand for nodes of one program alone."""
    types = {
        recorded.dtype for name, recorded in first.stood_for.items() if first.known_by.get(name) not in other.shared
    }
    return max(map(_nearness, types | other.own), default=0.0)


def made_up(name: str, shape: Sequence[int]) -> torch.Tensor:
    """Numbers from 0.5 to 1.5, float64, that follow from a name: logarithms and roots of them exist."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def evaluate_first(program: Program, values: Mapping[str, Any], keep: Iterable[str] = ()) -> Evaluated:
    """Program A. ``values``: of its externals; ``keep``: nodes whose values are wanted."""
    found = Evaluated(dict(values), Table(TOLERANCE))
    watch = _First(program, found, set(keep))
    for name, value in values.items():
        watch.seen(name, _wide(value))
    wanted = list(dict.fromkeys([*(result.node for result in program.results), *keep]))
    evaluate(program.dump, values, wanted=wanted, given=_constants(program, values), refused=found.refused, watch=watch)
    return found


def evaluate_other(
    program: Program, values: Mapping[str, Any], first: Evaluated, heal: Mapping[str, str] | None = None
) -> Other:
    """Program B. ``values``: of its externals; ``heal``: nodes of A whose kept values replace those of nodes of B."""
    found = Other()
    watch = _Second(program, found, first, dict(heal or {}))
    for name, value in values.items():
        watch.seen(name, _wide(value))
    wanted = list(dict.fromkeys(result.node for result in program.results))
    evaluate(program.dump, values, wanted=wanted, given=_constants(program, values), refused=found.refused, watch=watch)
    return found


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _constants(program: Program, values: Mapping[str, Any]) -> dict[str, Any]:
    """Weights that were frozen into the graph: nodes, but no placeholders."""
    return {name: value for name, value in values.items() if program.externals[name].kind == "constant"}


class _Watch:
    """What both programs' watches share."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes = by_name(program.dump)
        shapes = {name: one.arg.shape for name, one in program.externals.items() if one.arg is not None}
        numbers = {name: program.given(name) for name, one in program.externals.items() if not _is_tensor(one.arg)}
        self.symbols = symbols_of(self.nodes, numbers, shapes)

    def identity(self, name: str, numbers: Mapping[str, int | None]) -> str | None:
        """What tells a node that cannot be evaluated: its operation, its operands' values, and its other arguments."""
        node = self.nodes[name]
        used = list(references([node["args"], node["kwargs"]]))
        operands = [-1 if self._is_module(one) else numbers.get(one) for one in used]
        if None in operands or node["op"] != "call_function":
            return None
        modules = [
            _text(self.program.dump["graphs"][self.nodes[one]["target"]]) for one in used if self._is_module(one)
        ]
        return json.dumps([node["target"], operands, _without_nodes([node["args"], node["kwargs"]]), modules])

    def form(self, name: str, value: Any) -> Form:
        """The sketch of a node's value; the text of a graph that it hands to an operator."""
        return (
            json.dumps(_text(self.program.dump["graphs"][self.nodes[name]["target"]]))
            if self._is_module(name)
            else sketch_of(value)
        )

    def _is_module(self, name: str) -> bool:
        return self.nodes[name]["op"] == "get_attr" and self.nodes[name]["target"] in self.program.dump["graphs"]

    def stand_in(self, name: str) -> Any:
        """The recorded value of a node, or a made-up one of its shape; None if that is not known."""
        described = self.nodes[name]["value"]
        if self.nodes[name]["op"] != "call_function":
            return None
        seen = self.program.seen(name)
        if seen is not None:
            return seen
        if isinstance(described, list):
            members = [self._made_up(name, one) for one in described]
            return None if any(one is None for one in members) else tuple(members)
        return self._made_up(name, described)

    def _made_up(self, name: str, described: Any) -> Any:
        shape = described.get("shape") if isinstance(described, Mapping) else None
        sizes = [size_of(size, self.symbols) for size in shape] if shape is not None else [None]
        if None in sizes or math.prod(size or 0 for size in sizes) > _MOST:
            return None
        dtype: torch.dtype = getattr(torch, described["dtype"])
        whole = [size for size in sizes if size is not None]
        if not dtype.is_floating_point:
            return torch.zeros(whole, dtype=dtype)
        return made_up(f"{type(self).__name__} {name}", whole)


class _First(_Watch):
    def __init__(self, program: Program, found: Evaluated, keep: set[str]) -> None:
        super().__init__(program)
        self.found, self.keep = found, keep
        self.counts: Counter[str] = Counter()

    def seen(self, name: str, value: Any) -> Any:
        form = self.form(name, value)
        self.found.forms[name] = form
        if form is not None:
            self.found.numbers[name] = self.found.table.add(form)
        if name in self.keep:
            self.found.kept[name] = _copied(value)
        return value

    def unknown(self, name: str) -> Any:
        identity = self.identity(name, self.found.numbers)
        value = self.stand_in(name)
        if value is None:
            return None
        if identity is not None:
            self.found.known_by[name] = f"{identity}#{self.counts[identity]}"
            self.found.made_up[self.found.known_by[name]] = value
            self.counts[identity] += 1
        if isinstance(recorded := self.program.seen(name), torch.Tensor) and recorded.is_floating_point():
            self.found.stood_for[name] = recorded
        return self.seen(name, _wide(value))


class _Second(_Watch):
    def __init__(self, program: Program, found: Other, first: Evaluated, heal: dict[str, str]) -> None:
        super().__init__(program)
        self.found, self.first, self.heal = found, first, heal
        self.counts: Counter[str] = Counter()
        self.nodes_of = {number: name for name, number in reversed(first.numbers.items())}

    def seen(self, name: str, value: Any) -> Any:
        form = self.form(name, value)
        self.found.forms[name] = form
        self.found.partners[name] = self.first.table.find(form) if form is not None else None
        if self.found.partners[name] is None and isinstance(value, torch.Tensor):
            for twin, recorded in self.first.stood_for.items():  # A has no float64 value there, only a recorded one
                if distance(form, self.first.forms[twin]) <= _nearness(recorded.dtype):
                    self.found.forms[name] = self.first.forms[twin]
                    self.found.partners[name] = self.first.numbers[twin]
                    return recorded.double().reshape(value.shape)
        replacement = self.first.kept.get(self.heal.get(name, ""))
        if replacement is None or not _fits(replacement, value):
            return value
        self.found.healed[name] = self.heal[name]
        self.found.partners[name] = self.first.numbers.get(self.heal[name])
        return _copied(replacement)

    def unknown(self, name: str) -> Any:
        identity = self.identity(name, self.found.partners)
        if identity is not None:
            key = f"{identity}#{self.counts[identity]}"
            known = self.first.made_up.get(key)
            self.counts[identity] += 1
            if known is not None:
                self.found.shared.add(key)
                return self.seen(name, _wide(known))
        value = self.stand_in(name)
        if value is None:
            return None
        recorded = self.program.seen(name)
        if recorded is not None and recorded.is_floating_point():
            number = self.first.table.nearest(sketch_of(recorded), _nearness(recorded.dtype))
            if number is not None:  # within what its type rounds to, it is what A computes
                twin = self.nodes_of[number]
                self.found.adopted.add(twin)
                self.found.forms[name], self.found.partners[name] = self.first.forms.get(twin), number
                exact = self.first.kept.get(twin)
                return _wide(value) if exact is None else exact.reshape(value.shape).clone()
            self.found.own.add(recorded.dtype)
        return self.seen(name, _wide(value))


def _fits(one: Any, other: Any) -> bool:
    """Whether one value of a node may stand for another."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_fits, one, other))
    return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and one.shape == other.shape


def _copied(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_copied, value))
    return value.clone() if isinstance(value, torch.Tensor) else value


def _nearness(dtype: torch.dtype) -> float:
    return min(_LARGEST, _NEAR * format_of(dtype).unit)


def _is_tensor(arg: Any) -> bool:
    return arg is not None and arg.role != "scalar"


def _without_nodes(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nodes(one) for one in value]
    if isinstance(value, dict):
        return {key: "" if key in ("node", "device") else _without_nodes(one) for key, one in value.items()}
    return value


def _text(module: Any) -> Any:
    """A graph inside of the graph: what it computes, without lines of source."""
    if not isinstance(module, Mapping):
        return None
    return [[node["target"], _numbered(module, node)] for node in module["nodes"]]


def _numbered(module: Mapping[str, Any], node: Mapping[str, Any]) -> Any:
    places = {one["name"]: place for place, one in enumerate(module["nodes"])}

    def renamed(value: Any) -> Any:
        if isinstance(value, list):
            return [renamed(one) for one in value]
        if isinstance(value, dict):
            return {key: places.get(one, -1) if key == "node" else renamed(one) for key, one in value.items()}
        return value

    return renamed([node["args"], node["kwargs"]])

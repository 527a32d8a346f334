"""A graph's program: its inputs, steps and results, and their form in JSON (docs/packages.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, TypeAlias, TypedDict, get_type_hints

from torchport.errors import ArtifactError
from torchport.files import parse_json
from torchport.schema import Mismatch, conform

__all__ = ["SCHEMA", "Call", "Check", "Launch", "Let", "Program", "Require", "Step"]

SCHEMA = "torchport.program/1"


@dataclass(frozen=True)
class Let:
    """Give ``name`` a value."""

    name: str
    value: Any


@dataclass(frozen=True)
class Launch:
    """Launch a kernel, over the grid that follows from its arguments."""

    kernel: str
    args: Sequence[Any]


@dataclass(frozen=True)
class Call:
    """Call an operator, ``aten.mm.out``; ``name`` gets what it returns."""

    operator: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    name: str | None = None


@dataclass(frozen=True)
class Check:
    """The tensor ``name`` must have these sizes and strides, as the steps that follow assume them."""

    name: str
    sizes: Sequence[Any]
    strides: Sequence[Any]


@dataclass(frozen=True)
class Require:
    """The value must be true; ``text`` says what is wrong where it is not."""

    value: Any
    text: str


Step: TypeAlias = Let | Launch | Call | Check | Require

_STEPS: Mapping[str, type[Step]] = {"let": Let, "launch": Launch, "call": Call, "check": Check, "require": Require}
_TAGS = {step: tag for tag, step in _STEPS.items()}


class _Program(TypedDict):
    schema: str
    inputs: tuple[str, ...]
    steps: list[list[Any]]
    results: list[Any]


@dataclass(frozen=True)
class Program:
    """A graph as data.

    inputs: names of the tensors that it takes, in order.
    steps: what it does, in order. A name that gets a value twice has the last one.
    results: values that it returns.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    results: tuple[Any, ...]

    def as_json(self) -> dict[str, Any]:
        """The program as JSON values."""
        steps = [[_TAGS[type(step)], *astuple(step)] for step in self.steps]
        return {"schema": SCHEMA, "inputs": list(self.inputs), "steps": steps, "results": list(self.results)}

    @classmethod
    def parse(cls, text: bytes, where: str) -> Program:
        """Read JSON text. Raises ArtifactError for what is no program; ``where`` names it in the message.

        Operations, operators and names are checked when the program is linked (``Executor``).
        """
        known = parse_json(text, _Program, where)
        if known["schema"] != SCHEMA:
            raise ArtifactError(f"{where} has schema {known['schema'][:40]!r}, not {SCHEMA!r}; package the model again")
        try:
            steps = tuple(_step(entry, f"step {index}") for index, entry in enumerate(known["steps"]))
        except Mismatch as problem:
            raise ArtifactError(f"{where} is damaged: {problem}") from problem
        return cls(known["inputs"], steps, tuple(known["results"]))


def _step(entry: list[Any], place: str) -> Step:
    kind = _STEPS.get(entry[0]) if entry and isinstance(entry[0], str) else None
    if kind is None:
        raise Mismatch(f"{place} is none of {', '.join(_STEPS)}")
    names = [field.name for field in fields(kind)]
    if len(entry) != len(names) + 1:
        raise Mismatch(f"{place} has {len(entry)} members, not {len(names) + 1}")
    hints = get_type_hints(kind)
    return kind(*(conform(v, hints[n], f"{place}.{n}") for n, v in zip(names, entry[1:], strict=True)))

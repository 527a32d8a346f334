"""Numerics profiles: chips' arithmetic as data, each value with its source (``profiles/*.json``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypedDict

from torchport.arithmetic.rules import check
from torchport.errors import OptionError
from torchport.files import parse_json, read_json

__all__ = ["Instruction", "Profile", "names"]


def names() -> tuple[str, ...]:
    """The profiles that come with torchport, sorted."""
    return tuple(sorted(one.name.removesuffix(".json") for one in _folder().iterdir() if one.name.endswith(".json")))


def _modes() -> Iterator[str]:
    """Everything that ``Profile.load`` takes as a name."""
    for name in names():
        yield name
        if Profile.load(name).dot("default") == "tf32":
            yield f"{name}-tf32"


def _folder() -> Any:
    return files("torchport.arithmetic") / "profiles"


_REMARKS = ("source", "instruction", "rows", "columns", "formats")  # beside rules, and none themselves


class _File(TypedDict):
    name: str
    chip: str
    rules: dict[str, Any]


@dataclass(frozen=True)
class Instruction:
    """An instruction of a matrix unit.

    name: of the instruction, or of several with the same arithmetic.
    rows, columns: the least ones of a block that takes it.
    formats: MLIR's names of the operands that it takes, empty if the type says it.
    """

    name: str
    rows: int
    formats: tuple[str, ...]
    columns: int = 1


@dataclass(frozen=True)
class Profile:
    """A chip's arithmetic.

    name: of the profile.
    chip: for people.
    data: the file's rules with their sources.
    tf32: libraries' f32 products run in TF32, as with ``torch.backends.cuda.matmul.allow_tf32``.
    """

    name: str
    chip: str
    data: Mapping[str, Any]
    tf32: bool = False

    @classmethod
    def load(cls, name: str) -> Profile:
        """The profile ``name``, one of ``names()`` or a file's path; ``-tf32`` behind it as the field says.

        Raises OptionError for an unknown name and for a file that is not a valid profile.
        """
        stem, mode = (name[:-5], True) if name.endswith("-tf32") else (name, False)
        if stem in names():
            data = parse_json((_folder() / f"{stem}.json").read_bytes(), _File, f"profile {stem}", OptionError)
        elif Path(stem).suffix == ".json" and Path(stem).exists():
            data = read_json(Path(stem), _File, OptionError)
        else:
            raise OptionError(f"no profile is called {name!r}; profiles: {', '.join(_modes())}, or a file NAME.json")
        profile = cls(data["name"] + "-tf32" * mode, data["chip"], data["rules"], mode)
        check(profile.rules())
        if mode and profile.dot("default") != "tf32":
            raise OptionError(f"profile {stem} has no tf32 unit: {name!r} is no profile")
        return profile

    def rules(self) -> dict[str, Any]:
        """The rules alone, as the option ``arithmetic`` takes them under ``rules``."""
        found: dict[str, Any] = _without_sources(self.data)
        return found

    def arithmetic(self) -> str:
        """The option ``arithmetic`` of a kernel: JSON text with sorted keys."""
        return json.dumps({"rules": self.rules()}, sort_keys=True)

    def dot(self, key: str) -> Any:
        """A common key of the rule ``dot``; None if it is not set."""
        return self.rules().get("dot", {}).get(key)

    def ulp(self) -> dict[str, float]:
        """Maximum ULP of functions of f32 that the profile bounds in ULP."""
        functions = self.rules().get("functions", {})
        return {name: float(rule["ulp"]) for name, rule in functions.items() if "ulp" in rule}

    def instruction(self, type_: str) -> Instruction | None:
        """The instruction whose arithmetic the rule for dots of ``type_`` (one of DOT_TYPES) is; None if not known."""
        own = self.data.get("dot", {}).get("types", {}).get(type_) or {}
        if "instruction" not in own:
            return None
        return Instruction(own["instruction"], own.get("rows", 1), tuple(own.get("formats", ())), own.get("columns", 1))

    def sources(self) -> dict[str, str]:
        """Where each value comes from, by its place in the rules (``dot.types.f16``)."""
        return dict(_sources("", self.data))


def _without_sources(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if "value" in value:
        return value["value"]
    return {key: _without_sources(inner) for key, inner in value.items() if key not in _REMARKS}


def _sources(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if "source" in value:
            yield place, str(value["source"])
        for key, inner in value.items():
            yield from _sources(f"{place}.{key}" if place else key, inner)

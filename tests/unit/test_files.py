"""The one reader of JSON: what it takes, and what it refuses with one sentence."""

from __future__ import annotations

import gc
import json
import os
import re
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytest

from torchport.errors import ArtifactError, RunError
from torchport.files import parse_json, read_json, write_whole
from torchport.schema import Mismatch, conform


class Place(TypedDict):
    file: str
    line: int


class MaybePlace(Place, total=False):
    code: str | None


@dataclass(frozen=True)
class Part:
    name: Annotated[str, re.compile(r"\w+")]
    sizes: tuple[int, ...] = ()
    place: MaybePlace | None = None
    factor: float = 1.0
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Whole:
    parts: dict[str, Part]
    pair: tuple[int, str]


def test_objects_are_made_of_what_fits() -> None:
    place = {"file": "m.py", "line": 3, "more": [1]}
    text = json.dumps({"parts": {"p": {"name": "x", "sizes": [2, 3], "place": place, "factor": 2}}, "pair": [1, "é"]})
    found = parse_json(text.encode(), Whole, "text")
    assert found == Whole({"p": Part("x", (2, 3), place, 2.0)}, (1, "é"))  # type: ignore[arg-type]
    assert type(found.parts["p"].factor) is float


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        ({"name": 3}, Part, "name is 3, not text"),
        ({"name": "../x"}, Part, r"name is '../x', not text of the form \w+"),
        ({"name": "x", "sizes": [1, True]}, Part, "sizes[1] is True, not a whole number"),
        ({"name": "x", "sizes": 3}, Part, "sizes is 3, not a list"),
        ({"name": "x", "place": {"file": "m.py"}}, Part, "place has no 'line'"),
        ({"name": "x", "place": {"file": "m.py", "line": 1, "code": 2}}, Part, "place.code is 2, not text or null"),
        ({"name": "x", "kind": "c"}, Part, "kind is 'c', not 'a' or 'b'"),
        ({"name": "x", "factor": None}, Part, "factor is null, not a number"),
        ({"name": "x", "nmae": 1}, Part, "it has 'nmae', which is not known"),
        ({}, Part, "it has no 'name'"),
        ([], Part, "it is a list, not an object"),
        ([1, 2, 3], tuple[int, int], "it has 3 members, not 2"),
        (1, Annotated[int, range(1)], "it is 1, not a valid value"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, type_: Any, message: str) -> None:
    with pytest.raises(Mismatch, match=re.escape(message)):
        conform(value, type_)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[NaN]", "NaN is no number in JSON"),
        (b"[-Infinity]", "-Infinity is no number in JSON"),
        (b"[1e999]", "too large"),
        (b"[" + b"9" * 5000 + b"]", "too large"),
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"a\\u0000b": 1}', "control characters"),
        (b'[["\\u001b[2J"]]', "control characters"),
        (b'["\\ud800"]', "control characters"),
        ('["\x9b2J"]'.encode(), "control characters"),
        (b"[" * 100 + b"]" * 100, "more than 64 levels"),
        (b"[" * 100_000, "too many levels"),
        (b'["\xff"]', "utf-8"),
        (b"", "Expecting value"),
        (b"[1] [", "Extra data"),
    ],
)
def test_what_is_no_plain_json_is_one_sentence(text: bytes, why: str) -> None:
    with pytest.raises(RunError, match=re.escape(why)) as error:
        parse_json(text, list, "file", RunError)  # type: ignore[type-abstract]
    assert str(error.value).startswith("file cannot be read as JSON: ") and "\n" not in str(error.value)


def test_ordinary_text_with_escapes_is_read() -> None:
    values = ["a\tb\nc\f", "\\u0000", "\U0001f600", "é"]
    assert parse_json(json.dumps(values), list[str], "text") == values
    assert parse_json(json.dumps(values, ensure_ascii=False), list[str], "text") == values
    deep = "[" * 64 + "]" * 64
    assert json.dumps(parse_json(deep, Any, "text")) == deep


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe", "missing", "nul\0name"):
        with pytest.raises(ArtifactError, match="cannot be read: "):
            read_json(tmp_path / name, dict[str, Any])


def test_a_choice_that_does_not_fit_keeps_no_caller_alive() -> None:
    class Held:
        pass

    def caller() -> weakref.ref[Held]:
        held = Held()
        assert conform("text", int | str) == "text"
        return weakref.ref(held)

    gc.disable()
    try:
        assert caller()() is None
    finally:
        gc.enable()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "x.json", tmp_path):
        with pytest.raises(OSError) as caught:
            write_whole(path, b"")
        assert caught.value.filename == str(path)

"""The text form of pass lists, and the registry of passes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torchport_passes import registry

from torchport.cli.passlist import make_pass, parse
from torchport.errors import OptionError
from torchport.pipeline import format_pass

_NAME = re.compile(r'^    name: ClassVar\[str\] = "([\w-]+)"', re.MULTILINE)
_RUN = re.compile(r"^// RUN: .*", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """A pass with an option of each type."""

    name: ClassVar[str] = "sample"

    width: int = 8
    fast: bool = False
    bound: float = 0.5
    arch: str = "x86_64"

    def apply(self, module: Any) -> None: ...


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a", [("a", {})]),
        (" a , b-c ", [("a", {}), ("b-c", {})]),
        ("a{x=1},b", [("a", {"x": "1"}), ("b", {})]),
        ("a{x=1 y-z=w},b{}", [("a", {"x": "1", "y_z": "w"}), ("b", {})]),
        ("a{x=1,y=2}", [("a", {"x": "1", "y": "2"})]),
    ],
)
def test_parse(text: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["a{", "a}", "a b", "a{x}", "a{=1}", ",a", "a{x=1}b"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(OptionError):
        parse(text)


def test_options_are_read_by_type() -> None:
    made = make_pass(Sample, {"width": "16", "fast": "true", "bound": "1e-3", "arch": "aarch64"})
    assert made == Sample(16, True, 1e-3, "aarch64")


@pytest.mark.parametrize(("key", "value"), [("width", "wide"), ("fast", "perhaps"), ("bound", "-"), ("depth", "1")])
def test_options_are_refused(key: str, value: str) -> None:
    with pytest.raises(OptionError, match=key):
        make_pass(Sample, {key: value})


def test_text_form_round_trips() -> None:
    one = Sample(4, True, 0.25, "aarch64")
    ((name, options),) = parse(format_pass(one))
    assert name == "sample" and make_pass(Sample, options) == one


def test_every_registered_pass_loads_under_its_own_name() -> None:
    for name in registry.names():
        kind = registry.load(name)
        assert kind.name == name and (kind.__doc__ or "").strip()
        ((_, options),) = parse(format_pass(kind()))
        assert make_pass(kind, options) == kind()


def test_every_pass_in_the_package_is_registered() -> None:
    folder = Path(registry.__file__).parent
    written = {name for file in folder.rglob("*.py") for name in _NAME.findall(file.read_text())}
    assert written and written <= set(registry.names())


def test_every_registered_pass_has_a_lit_test() -> None:
    folder = Path(registry.__file__).parents[1] / "test"
    runs = [
        line
        for file in folder.glob("*")
        if file.suffix in (".mlir", ".ttir")
        for line in _RUN.findall(file.read_text())
    ]
    for name in registry.names():
        assert any(re.search(rf"[\s,'\"]{name}[\s,'\"{{]", line) for line in runs), name


def test_an_unknown_pass_lists_what_there_is() -> None:
    with pytest.raises(OptionError, match="scalarize"):
        registry.load("no-such-pass")


def test_a_name_claimed_twice_names_both_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    rival = EntryPoint("scalarize", "rival.passes:Scalarize", "torchport.passes")
    monkeypatch.setattr(registry, "entry_points", lambda group: [rival])
    with pytest.raises(OptionError, match=r"both torchport and rival\.passes:Scalarize"):
        registry.names()

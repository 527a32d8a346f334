"""The private APIs that torchport touches are as it expects: what a new torch or Triton changes, fails here by name."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import torchport.compat
import torchport.inductor.compat
import torchport.triton.compat
from torchport.compat import SUPPORTED, Touch, resolver
from torchport.errors import VersionError

TABLES = {
    "core": torchport.compat.TOUCHES,
    "inductor": torchport.inductor.compat.TOUCHES,
    "triton": torchport.triton.compat.TOUCHES,
}
ENTRIES = {f"{room}.{name}": touch for room, table in TABLES.items() for name, touch in table.items()}
TOUCHED = {name: touch for name, touch in ENTRIES.items() if touch.is_touched}


def where(name: str, touch: Touch) -> str:
    return f"{name} on {touch.project} {version(touch.project)} ({touch.use})"


def check_parameters(name: str, touch: Touch, found: Any, expected: tuple[str, ...]) -> None:
    function = found.__init__ if inspect.isclass(found) else getattr(found, "fn", found)
    names = tuple(inspect.signature(function).parameters)
    if inspect.isclass(found) and expected[0] != "self":
        names = names[1:]
    assert names[: len(expected)] == expected, f"{where(name, touch)}: its parameters are {names}"


@pytest.mark.parametrize("name", TOUCHED)
def test_the_name_exists_with_its_parameters(name: str) -> None:
    touch = ENTRIES[name]
    found: Any = touch.find()
    if touch.parameters:
        check_parameters(name, touch, found, touch.parameters)


@pytest.mark.parametrize("name", [name for name, touch in TOUCHED.items() if touch.methods])
def test_its_methods_have_their_parameters(name: str) -> None:
    touch = ENTRIES[name]
    for path, expected in touch.methods.items():
        found: Any = touch.find()
        for attribute in path.split("."):
            assert hasattr(found, attribute), f"{where(name, touch)}: it has no {path}"
            found = getattr(found, attribute)
        check_parameters(f"{name}.{path}", touch, found, expected)


@pytest.mark.parametrize("name", [name for name, touch in TOUCHED.items() if touch.attributes])
def test_it_has_the_attributes(name: str) -> None:
    touch = ENTRIES[name]
    for path in touch.attributes:
        found: Any = touch.find()
        for attribute in path.split("."):
            assert hasattr(found, attribute), f"{where(name, touch)}: it has no {path}"
            found = getattr(found, attribute)


@pytest.mark.parametrize("name", [name for name, touch in TOUCHED.items() if touch.text])
def test_the_module_writes_the_text_that_is_read(name: str) -> None:
    touch = ENTRIES[name]
    source = inspect.getsource(importlib.import_module(touch.path.partition(":")[0]))
    for piece in touch.text:
        assert piece in source, f"{where(name, touch)}: its source no longer holds {piece!r}"


@pytest.mark.parametrize("module", torchport.triton.compat.PASSES)
def test_libtriton_has_the_passes(module: str) -> None:
    from triton._C.libtriton import passes

    for name in torchport.triton.compat.PASSES[module]:
        assert hasattr(getattr(passes, module), name), f"triton {version('triton')} has no pass {module}.{name}"


def test_the_passes_that_are_run_are_those_listed() -> None:
    import re

    from torchport_passes.frontend import triton_options

    run = set(re.findall(r"passes\.(\w+)\.(\w+)\(", inspect.getsource(triton_options)))
    assert run == {(module, name) for module, names in torchport.triton.compat.PASSES.items() for name in names}


def test_dot_asks_for_precisions_in_its_own_frame() -> None:
    """``FrontendOptions.allowed_dot_input_precisions`` reads its caller's arguments."""
    import triton.language.core as core

    source = inspect.getsource(getattr(core.dot, "fn", core.dot))
    assert "allowed_dot_input_precisions" in source, f"tl.dot of triton {version('triton')} asks another way"


def test_a_missing_name_is_one_clear_error() -> None:
    touch = Touch("torch._inductor.config:no_such_thing", "nothing")
    with pytest.raises(VersionError) as caught:
        resolver("here", {"thing": touch})("thing")
    message = str(caught.value)
    assert message.startswith(f"torch {version('torch')} has no torch._inductor.config.no_such_thing (nothing)")
    assert SUPPORTED["torch"] in message


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = torchport.inductor.compat.no_such_thing


def test_every_entry_says_what_it_is_for() -> None:
    for name, touch in ENTRIES.items():
        assert touch.use and touch.checked, name
        assert touch.fragility in ("low", "medium", "high"), name
        assert touch.project in SUPPORTED, name


def test_the_architecture_page_lists_every_entry() -> None:
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    for name, touch in ENTRIES.items():
        row = f"| `{touch.path.replace(':', '.')}` | {touch.use} | {touch.fragility} |"
        assert row in page, f"docs/architecture.md lacks {name}: {row}"

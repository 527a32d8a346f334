"""Finding backends by entry point."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from torchport.errors import TargetError
from torchport.plugin import API_VERSION, GROUP, Backend, Registry, registry


def make(name: str, **changes: Any) -> types.SimpleNamespace:
    values = {
        "name": name,
        "api_version": API_VERSION,
        "options": {},
        "devices": lambda: [],
        "capabilities": lambda target: None,
        "compiler": lambda target: None,
        "driver": lambda target: None,
    }
    return types.SimpleNamespace(**{**values, **changes})


@pytest.fixture
def vendors(monkeypatch: pytest.MonkeyPatch) -> Registry:
    module = types.ModuleType("vendors_of_test")
    for name, backend in {
        "good": make("good"),
        "old": make("old", api_version=0),
        "misnamed": make("other"),
        "twice": make("twice"),
    }.items():
        setattr(module, name, backend)
    incomplete = make("incomplete")
    del incomplete.devices
    module.incomplete = incomplete  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vendors_of_test", module)
    names = ["good", "old", "misnamed", "incomplete", "twice", "absent"]
    points = [EntryPoint(name, f"vendors_of_test:{name}", GROUP) for name in names]
    points.append(EntryPoint("twice", "elsewhere:backend", GROUP))
    points.append(EntryPoint("good", "vendors_of_test:good", GROUP))  # an editable install, listed again
    points.append(EntryPoint("broken", "no_such_module_of_test:backend", GROUP))
    return Registry(points)


def test_a_good_one_is_found_beside_bad_ones(vendors: Registry) -> None:
    assert isinstance(vendors.get("good"), Backend)
    assert vendors.get("good") is vendors.get("good")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody", "installed backends: absent, broken, good"),
        ("old", "plugin API 0, this torchport has 2"),
        ("misnamed", "calls itself 'other'"),
        ("incomplete", "has no devices"),
        ("twice", r"claimed twice, by vendors_of_test:twice .* and elsewhere:backend"),
        ("broken", "cannot be loaded: ModuleNotFoundError"),
        ("absent", "cannot be loaded: AttributeError"),
    ],
)
def test_errors(vendors: Registry, name: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        vendors.get(name)


def test_the_cpu_is_installed() -> None:
    assert registry().get("cpu").options["cpu_backend"] == "triton"

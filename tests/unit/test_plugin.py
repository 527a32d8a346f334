"""Finding backends by entry point."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from torchport.errors import KernelAssertionError, TargetError
from torchport.plugin import API_VERSION, GROUP, Backend, Device, Registry, registry
from torchport.target import Target


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


class Chip:
    """Satisfies ``torchport.plugin.Compiler`` and ``Driver``, as far as anyone looks."""

    triton, device, stock = "torchport", "cpu", False

    def fingerprint(self) -> str:
        return ""

    compile = passes = load = fingerprint


CHIP = Target("chip")


def one(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Registry:
    """A registry with one backend, ``chip``."""
    module = types.ModuleType("vendor_of_test")
    module.backend = make("chip", **changes)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vendor_of_test", module)
    return Registry([EntryPoint("chip", "vendor_of_test:backend", GROUP)])


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    known = Registry([EntryPoint("chip", "no_such_module_of_test:backend", GROUP)])
    assert known.names == ("chip",)
    assert known.package("chip") == ""


def test_what_a_good_one_gives_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    device, chip, able = Device(CHIP, "a chip"), Chip(), registry().get("cpu").capabilities(Target("cpu"))
    backend = one(
        monkeypatch, devices=lambda: [device], capabilities=lambda target: able, compiler=lambda target: chip,
        driver=lambda target: chip, options={"cpu_backend": "triton"},
    ).get("chip")  # fmt: skip
    assert list(backend.devices()) == [device]
    assert backend.capabilities(CHIP) is able
    assert backend.compiler(CHIP) is chip
    assert backend.driver(CHIP) is chip
    assert dict(backend.options) == {"cpu_backend": "triton"}


@pytest.mark.parametrize(
    ("member", "value", "says"),
    [
        ("devices", None, r"devices\(\) returned None, not a list of torchport.plugin.Device"),
        ("devices", "abc", r"devices\(\) returned 'abc'"),
        ("devices", [Device(Target("cpu"), "")], r"devices\(\) lists cpu; its targets must begin with 'chip'"),
        ("capabilities", {}, r"capabilities\(\) returned {}, not a torchport.capabilities.Capabilities"),
        ("compiler", 5, r"compiler\(\) returned 5, not an object with triton, fingerprint, compile, passes"),
        ("driver", None, r"driver\(\) returned None, not an object with device, stock, load"),
    ],
)
def test_nonsense_is_an_error_that_names_backend_and_member(
    monkeypatch: pytest.MonkeyPatch, member: str, value: Any, says: str
) -> None:
    backend = one(monkeypatch, **{member: lambda *target: value}).get("chip")
    with pytest.raises(TargetError, match=rf"backend 'chip' \(vendor_of_test:backend, .*{says}"):
        getattr(backend, member)(*(() if member == "devices" else (CHIP,)))


@pytest.mark.parametrize("raised", [RuntimeError("no chip"), KernelAssertionError("no chip"), SystemExit("no chip")])
def test_whatever_a_member_raises_is_a_target_error(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    def fail(target: Target) -> None:
        raise raised

    backend = one(monkeypatch, driver=fail).get("chip")
    with pytest.raises(TargetError, match=rf"failed in driver\(chip\): {type(raised).__name__}: no chip"):
        backend.driver(CHIP)


def test_a_vendors_own_target_error_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: Target) -> None:
        raise TargetError("plug it in")

    with pytest.raises(TargetError, match=r"^plug it in$"):
        one(monkeypatch, driver=fail).get("chip").driver(CHIP)

"""OpenCL drivers that compile nothing for the CPU they are on, and PoCL's name for a CPU that it does not know."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
from processes import run

from torchport.errors import TargetError
from torchport.plugin import registry
from torchport.target import Target

pytest.importorskip("pyopencl")
import pyopencl as cl
from torchport_opencl import device, plugin, pocl

GENERIC = "clBuildProgram failed: BUILD_PROGRAM_FAILURE\nerror: unknown target CPU 'generic'\nDevice failed"


class Structure:
    """Memory as of PoCL's device: words, of which some are pointers. `known` keeps what they point at."""

    def __init__(self, *texts: bytes) -> None:
        self.known = [ctypes.create_string_buffer(text, max(len(text) + 1, 8)) for text in texts]
        self.words = (ctypes.c_uint64 * 512)(0, 1, 2**64 - 1, 0xDEAD0000, *map(ctypes.addressof, self.known))

    @property
    def int_ptr(self) -> int:
        return ctypes.addressof(self.words)


@pytest.mark.parametrize(("flags", "name"), [(pocl._NEEDED, b"haswell"), ({"avx2"}, b"x86-64"), (set(), b"x86-64")])
def test_the_name_is_replaced(monkeypatch: pytest.MonkeyPatch, flags: set[str], name: bytes) -> None:
    monkeypatch.setattr(pocl, "_flags", lambda: flags)
    structure = Structure(b"pthread", b"generic", b"generic-", b"x-generic")
    before = bytes(structure.words)
    assert pocl.give_known_cpu(structure)
    assert [one.value for one in structure.known] == [b"pthread", name, b"generic-", b"x-generic"]
    assert bytes(structure.words) == before


@pytest.mark.parametrize("texts", [(), (b"znver3",)])
def test_a_device_without_the_name_is_left_alone(texts: tuple[bytes, ...]) -> None:
    structure = Structure(*texts)
    assert not pocl.give_known_cpu(structure)
    assert [one.value for one in structure.known] == list(texts)


def test_no_memory_there() -> None:
    assert not pocl.give_known_cpu(SimpleNamespace(int_ptr=8))


def fake(platform: str = "Portable Computing Language", kind: int = cl.device_type.CPU) -> Any:
    return SimpleNamespace(
        platform=SimpleNamespace(name=platform, version="OpenCL 3.0 PoCL 3.0 "), name="pthread ", type=kind, int_ptr=8
    )


@pytest.mark.parametrize("platform", ["Portable Computing Language", "Another"])
@pytest.mark.parametrize("message", [GENERIC, "out of memory"])
def test_a_driver_that_compiles_nothing_is_missing(
    monkeypatch: pytest.MonkeyPatch, platform: str, message: str
) -> None:
    def failing(device: Any) -> str:
        raise cl.Error(message)

    monkeypatch.setattr(device, "_probed", failing)
    monkeypatch.setattr(device, "describe", lambda device: "a device")
    monkeypatch.setattr(plugin, "_devices", lambda: ([fake(platform)], ""))
    (found,) = plugin.backend.devices()
    reason = "unknown target CPU" if message is GENERIC else "out of memory"
    assert reason in found.missing
    assert "install another OpenCL driver" in found.missing
    for method in (plugin.backend.driver, plugin.backend.capabilities, plugin.backend.compiler):
        with pytest.raises(TargetError, match=r"target opencl is not available: .* compiles nothing for this CPU"):
            method(Target("opencl"))


def test_a_gpu_is_not_probed() -> None:
    assert device.fault(fake(kind=cl.device_type.GPU)) == ""


def test_the_name_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = iter([cl.Error(GENERIC), "lacks_avx512"])

    def probed(device: Any) -> str:
        result = next(builds)
        if isinstance(result, cl.Error):
            raise result
        return result

    monkeypatch.setattr(device, "_probed", probed)
    monkeypatch.setattr(pocl, "give_known_cpu", lambda device: True)
    assert device.fault(fake()) == ""
    assert next(builds, None) is None


def test_pocl_does_not_know_this_cpu_yet() -> None:
    """Fails once PoCL knows the CPU, or compiles for ``generic``: torchport_opencl/pocl.py is not needed then."""
    devices, _ = plugin._devices()
    unknown = [
        i for i, d in enumerate(devices)
        if d.platform.name == "Portable Computing Language" and d.version.endswith("-generic")
    ]  # fmt: skip
    if not unknown:
        pytest.skip("no PoCL here, or it knows this CPU")
    number = unknown[0]
    target = Target("opencl", (str(number),) if number else ())
    assert {one.target: one.missing for one in registry().get("opencl").devices()}[target] == ""
    program = (
        "import pyopencl as cl\n"
        f"d = [d for p in cl.get_platforms() for d in p.get_devices()][{number}]\n"
        "try:\n    cl.Program(cl.Context([d]), '__kernel void f(void) {}').build(cache_dir=False)\n"
        "except cl.Error as error:\n    print(error)\n"
    )
    assert "unknown target CPU 'generic'" in run(program).stdout

"""A backend of tests: the CPU's kernels, run on memory that only copies reach.

What it computes is the CPU's; where data is, when it is copied and why is what tests of devices look at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from fake_device import FakeMemory
from torchport_cpu.plugin import backend as cpu

from torchport import plugin
from torchport.plugin import API_VERSION, GROUP, Binary, Device, Registry
from torchport.runtime.devices import DeviceDriver
from torchport.target import Target

CPU = Target("cpu")


class Compiler:
    """The CPU's, with what a device's launcher must know about arguments. Inductor's names say how they are used."""

    triton = "cpu"

    def fingerprint(self) -> str:
        return "emulated" + cpu.compiler(CPU).fingerprint()

    def compile(self, source: Any, options: Mapping[str, Any]) -> Binary:
        binary = cpu.compiler(CPU).compile(source, options)
        access = [
            "" if type_[0] != "*" else "rw" if "in_out" in name else "w" if "out" in name else "r"
            for name, type_ in source.signature.items()
            if type_ != "constexpr"
        ]
        about = {"access": access, "sites": [], "lanes": 1, "types": list(source.signature.values())}
        return dataclasses.replace(binary, metadata={**binary.metadata, **about})

    def passes(self) -> list[Any]:
        return []


def build(binary: Binary, parameters: Sequence[str]) -> Callable[..., None]:
    types = list(binary.metadata["types"])
    launcher, function = cpu.driver(CPU).load(binary, types)

    def run(grid: tuple[int, int, int], values: Sequence[Any]) -> None:
        waiting = iter(values)
        args: list[Any] = [None] * len(types)
        for position, type_ in enumerate(types):
            if type_ != "constexpr":
                value = next(waiting)
                if type_[0] == "*":
                    offset = next(waiting)
                    value = 0 if value is None else value.ctypes.data + offset
                args[position] = value
        launcher(*grid, None, function, None, None, None, None, *args)

    return run


class Emulated:
    """Satisfies ``torchport.plugin.Backend``."""

    name = "emulated"
    api_version = API_VERSION
    options = cpu.options

    def __init__(self) -> None:
        self.memory = FakeMemory()
        self.drivers: dict[Target, DeviceDriver] = {}

    def devices(self) -> list[Device]:
        return [Device(Target("emulated"), "a CPU with memory beside the CPU's")]

    def capabilities(self, target: Target) -> Any:
        return cpu.capabilities(CPU)

    def compiler(self, target: Target) -> Compiler:
        return Compiler()

    def driver(self, target: Target) -> DeviceDriver:
        if target not in self.drivers:
            self.drivers[target] = DeviceDriver(self.memory, build, (2**31 - 1,) * 3)
        return self.drivers[target]


backend = Emulated()


@contextmanager
def installed() -> Iterator[Emulated]:
    """The backend, found by its name while the context is open. Its kernels stay loaded, as generated code does."""
    points = [*plugin.entry_points(group=GROUP), EntryPoint("emulated", "emulated_device:backend", GROUP)]
    known = Registry(points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin, "registry", lambda: known)
        yield backend
    torch._dynamo.reset()

"""A backend of tests whose driver leaves code and launching to Inductor, as those of GPUs do, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torchport_cpu.plugin import CPUDevice, CPUPlugin

from torchport import plugin
from torchport.plugin import GROUP, Compiler, Device, Registry
from torchport.target import Target

CPU = Target("cpu")


class StockDriver(CPUDevice):
    stock = True


class Stock(CPUPlugin):
    """Satisfies ``torchport.plugin.Backend``: the CPU's compiler, called by Inductor, one configuration a kernel."""

    name = "stock"
    options: Mapping[str, Any] = {
        **CPUPlugin.options, "compile_threads": 1, "triton.autotune_pointwise": False, "deterministic": True
    }  # fmt: skip

    def __init__(self) -> None:
        self._driver = StockDriver()

    def devices(self) -> list[Device]:
        return [Device(Target("stock"), "a CPU that Inductor generates code for")]

    def capabilities(self, target: Target) -> Any:
        return super().capabilities(CPU)

    def compiler(self, target: Target) -> Compiler:
        return super().compiler(CPU)

    def driver(self, target: Target) -> StockDriver:  # type: ignore[override]
        return self._driver  # type: ignore[return-value]


backend = Stock()


@contextmanager
def installed() -> Iterator[Stock]:
    """The backend, found by its name while the context is open."""
    known = Registry([*plugin.entry_points(group=GROUP), EntryPoint("stock", "stock_device:backend", GROUP)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin, "registry", lambda: known)
        yield backend
    torch._dynamo.reset()

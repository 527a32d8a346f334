"""Cases of ``torchport.ops``: the library's operators and their gradients, within each one's own bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from torchport.conformance.case import Bench, Case, Measured, Wrong
from torchport.errors import TargetError
from torchport.ops.check import elsewhere, errors
from torchport.ops.launch import ELEMENTS
from torchport.ops.registry import Operator, operators
from torchport.plugin import backend_for
from torchport.runtime.devices.device import DeviceDriver

__all__ = ["cases"]

_QUICK = 2
"""Samples of an operator in a case; the first ones are the plainest."""


def cases() -> Iterator[Case]:
    """One case for each operator and dtype."""
    for operator in operators():
        for dtype in operator.dtypes:
            name = ELEMENTS[dtype]
            level = "quick" if dtype == torch.float32 else "full"
            run = _checked(operator, dtype)
            yield Case("library", operator.name, name, (), "samples", run, (name,), level)


def _checked(operator: Operator, dtype: torch.dtype) -> Callable[[Bench], Measured]:
    def run(bench: Bench) -> Measured:
        call = _placed(operator, bench)
        worst = 0.0
        for sample, _ in zip(operator.samples(dtype), range(_QUICK), strict=False):
            for label, error in errors(operator, sample, call).items():
                if error > 1:
                    raise Wrong(f"{label} of {sample.about} is off by {error:.4g} of its bound", error)
                worst = max(worst, error)
        return Measured(worst)

    return run


def _placed(operator: Operator, bench: Bench) -> Callable[..., Any]:
    """The operator where the target computes: on CPU tensors, or on its torch device."""
    driver = backend_for(bench.target).driver(bench.target)
    if not isinstance(driver, DeviceDriver):
        return elsewhere(operator, torch.device(driver.device))
    from torchport.torch_device.api import device
    from torchport.torch_device.current import is_native
    from torchport.torch_device.native import COMMAND

    placed = device(bench.target)
    if placed.index and not is_native():
        raise TargetError(
            f"{bench.target} is {placed} here, and PyTorch has gradients on a second device with the C++ part only: "
            f"run '{COMMAND}' first"
        )
    return elsewhere(operator, placed)

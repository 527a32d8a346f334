"""``torchport package``: a compiled model in one file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchport.cli.model import load_model
from torchport.errors import OptionError

__all__ = ["dynamic_shapes", "package"]

_DYNAMIC = re.compile(r"(\w+):(\d+)=([A-Za-z_]\w*)(?::(\d+))?(?::(\d+))?")


def package(model: str, output: Path, targets: str, dynamic: Sequence[str], weights: str) -> None:
    """Export and compile ``model`` (``FILE.py:FUNCTION``), write the package, and print its digest."""
    from torchport.packages import build

    module, inputs = load_model(model)
    built = build(
        module,
        inputs,
        output,
        dynamic_shapes=dynamic_shapes(dynamic, module, inputs) if dynamic else None,
        targets=targets.split(",") if targets else (),
        weights_file=None if weights == "inside" else output.parent / weights,
        name=model.rpartition(":")[2],
    )
    kernels = f"{built.kernels} kernels for {', '.join(built.targets)}"
    print(f"{built.path}: {built.bytes:,} bytes, {built.steps} steps, {kernels}")
    print(f"sha256={built.sha256}")


def dynamic_shapes(options: Sequence[str], module: Any, inputs: Sequence[Any]) -> Any:
    """What ``--dynamic`` says, as torch.export takes it. Raises OptionError."""
    from inspect import signature

    import torch

    names = [*signature(getattr(module, "forward", module)).parameters][: len(inputs)]
    shapes: list[Any] = [{} if isinstance(value, torch.Tensor) else None for value in inputs]
    dims: dict[str, Any] = {}
    for option in options:
        if (match := _DYNAMIC.fullmatch(option)) is None:
            raise OptionError(
                f"--dynamic {option!r} is not INPUT:DIMENSION=NAME[:LOWEST[:HIGHEST]], such as x:0=batch:2:64"
            )
        name, dimension, size, low, high = match.groups()
        index = int(name) if name.isdigit() else names.index(name) if name in names else len(inputs)
        if index >= len(inputs) or shapes[index] is None:
            raise OptionError(f"--dynamic {option!r} names no tensor; the inputs are {', '.join(names) or 'none'}")
        if int(dimension) >= inputs[index].dim():
            raise OptionError(f"--dynamic {option!r}: {name} has {inputs[index].dim()} dimensions")
        limits = {key: int(value) for key, value in (("min", low), ("max", high)) if value is not None}
        dims.setdefault(size, torch.export.Dim(size, **limits))
        shapes[index][int(dimension)] = dims[size]
    return tuple(shapes)

"""Calls of operators that models make on a torch device, as data in ``calls.jsonl``, one a line.

``tools/operator_calls.py`` writes the file. A call stands for all with arguments of the same types, ranks and layouts:
their code is the same. ``float`` is the type that a model computes in.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["FILE", "Recorded", "encoded", "recorded"]

FILE = Path(__file__).parent / "calls.jsonl"
_FLOAT = "float"
_KINDS = {"layout": torch.layout, "memory_format": torch.memory_format}


@dataclass(frozen=True)
class Recorded:
    """A call.

    operator: such as ``aten.add.Tensor``.
    args, kwargs: its arguments, as ``encoded`` writes them.
    types: types of models that make it; ``float32`` or ``bfloat16``.
    models: how many of the models do.
    """

    operator: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    types: Sequence[str]
    models: int

    def serves(self, dtype: str) -> bool:
        """Whether models of ``dtype`` make it: those of float16 as those of bfloat16."""
        return ("bfloat16" if dtype == "float16" else dtype) in self.types

    @property
    def computes(self) -> bool:
        """Whether numbers of the model's type are in it; else it is the same in all models."""
        return f'"{_FLOAT}"' in json.dumps((self.args, self.kwargs))

    def run(self, dtype: torch.dtype, device: torch.device) -> Any:
        """Make the call on ``device`` for a model of ``dtype``, with numbers that all operators take."""
        _, name, overload = self.operator.split(".")
        operator = getattr(getattr(torch.ops.aten, name), overload)
        args = [_decoded(value, dtype, device) for value in self.args]
        return operator(*args, **{key: _decoded(value, dtype, device) for key, value in self.kwargs.items()})


@functools.cache
def recorded() -> tuple[Recorded, ...]:
    """All calls; those that most models make come first."""
    with FILE.open(encoding="utf-8") as lines:
        return tuple(
            Recorded(o, args, kwargs, tuple(types), models) for o, args, kwargs, types, models in map(json.loads, lines)
        )


def encoded(value: Any, dtype: torch.dtype) -> Any:
    """An argument of a model of ``dtype`` as JSON. Raises TypeError for what has no form there."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [encoded(one, dtype) for one in value]
    if isinstance(value, torch.Tensor):
        strides = {} if value.is_contiguous() else {"strides": list(value.stride())}
        return {"tensor": _named(value.dtype, dtype), "sizes": list(value.shape), **strides}
    if isinstance(value, torch.dtype):
        return {"dtype": _named(value, dtype)}
    if isinstance(value, torch.device):
        return {"device": ""}  # that of the tensors
    for kind, type_ in _KINDS.items():
        if isinstance(value, type_):
            return {kind: str(value).removeprefix("torch.")}
    raise TypeError(f"an argument of {type(value)} has no form in {FILE.name}")


def _named(dtype: torch.dtype, own: torch.dtype) -> str:
    return _FLOAT if dtype == own else str(dtype).removeprefix("torch.")


def _decoded(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_decoded(one, dtype, device) for one in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return _filled(value, dtype, device)
    ((kind, name),) = value.items()
    if kind == "device":
        return device
    return dtype if name == _FLOAT else getattr(torch, name)


def _filled(value: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of ones; of zeros if they may be indices."""
    own = dtype if value["tensor"] == _FLOAT else getattr(torch, value["tensor"])
    one = own == torch.bool or own.is_floating_point or own.is_complex
    there = torch.full(value["sizes"], int(one), dtype=own).to(device)
    if "strides" not in value:
        return there
    laid = torch.empty_strided(value["sizes"], value["strides"], dtype=own, device=device)
    return laid.copy_(there) if there.numel() and 0 not in value["strides"] else laid

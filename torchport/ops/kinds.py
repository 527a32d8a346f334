"""Checks of the kinds of an operator's arguments: a TypeError, in one sentence, at the first that is wrong."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["flags", "integers", "numbers", "optional_tensors", "tensors"]


def tensors(name: str, **values: Any) -> None:
    """All must be tensors. name: of the operator; the names of ``values`` are those of its arguments."""
    for argument, value in values.items():
        if not isinstance(value, torch.Tensor):
            raise _wrong(name, argument, value, "a tensor")


def optional_tensors(name: str, **values: Any) -> None:
    """All must be tensors or None."""
    for argument, value in values.items():
        if value is not None and not isinstance(value, torch.Tensor):
            raise _wrong(name, argument, value, "a tensor or None")


def numbers(name: str, **values: Any) -> None:
    """All must be Python's numbers, and finite."""
    for argument, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | torch.SymInt | torch.SymFloat):
            raise _wrong(name, argument, value, "a number")
        if not -float("inf") < value < float("inf"):
            raise ValueError(f"{name}: {argument} is {value}; it must be a finite number")


def integers(name: str, **values: Any) -> None:
    """All must be Python's integers, of at most 64 bits."""
    for argument, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | torch.SymInt):
            raise _wrong(name, argument, value, "an integer")
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"{name}: {argument} is {value}; it must fit into 64 bits")


def flags(name: str, **values: Any) -> None:
    """All must be True or False."""
    for argument, value in values.items():
        if not isinstance(value, bool):
            raise _wrong(name, argument, value, "True or False")


def _wrong(name: str, argument: str, value: Any, wanted: str) -> TypeError:
    is_tensor = isinstance(value, torch.Tensor)
    found = f"a tensor of shape {tuple(value.shape)}" if is_tensor else repr(value)
    hint = " (a tensor's number is tensor.item())" if is_tensor and wanted in ("a number", "an integer") else ""
    return TypeError(f"{name}: {argument} is {found}; it must be {wanted}{hint}")

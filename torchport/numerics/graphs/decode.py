"""Reads arguments of nodes and operators back from a dump."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchport.numerics.graphs.special import Refused

__all__ = ["decode"]


def decode(value: Any, value_of: Callable[[str], Any]) -> Any:
    """What ``torchport.numerics.graphs.dump.encode`` wrote; ``value_of`` gives the value of a node by name.

    Raises Refused for an argument that is known by name only.
    """
    if isinstance(value, list):
        return [decode(inner, value_of) for inner in value]
    if not isinstance(value, dict):
        return value
    ((key, inner),) = value.items()
    match key:
        case "node":
            return value_of(inner)
        case "tuple":
            return tuple(decode(element, value_of) for element in inner)
        case "dict":
            return {name: decode(element, value_of) for name, element in inner.items()}
        case "slice":
            return slice(*(decode(bound, value_of) for bound in inner))
        case "float":
            return float(inner)
        case "complex":
            return complex(*(decode(part, value_of) for part in inner))
        case "device":
            return torch.device("cpu")
        case "dtype" | "layout" | "memory_format":
            return getattr(torch, inner)
    raise Refused(f"an argument is {inner!r}, which is known by name only")

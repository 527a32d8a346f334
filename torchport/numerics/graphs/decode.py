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
    if len(value) != 1:
        raise Refused("an argument is encoded in an unknown way")
    ((key, inner),) = value.items()
    match key, inner:
        case "node", str():
            return value_of(inner)
        case "tuple", list():
            return tuple(decode(element, value_of) for element in inner)
        case "dict", dict():
            return {name: decode(element, value_of) for name, element in inner.items()}
        case "slice", [_, _, _]:
            return slice(*(decode(bound, value_of) for bound in inner))
        case "float", "nan" | "inf" | "-inf":
            return float(inner)
        case "complex", [_, _]:
            return complex(*(decode(part, value_of) for part in inner))
        case "device", str():
            return torch.device("cpu")
        case "dtype" | "layout" | "memory_format", str():
            found = getattr(torch, inner, None)
            if isinstance(found, (torch.dtype, torch.layout, torch.memory_format)):
                return found
    raise Refused(f"an argument is {str(inner)[:80]!r}, which is known by name only")

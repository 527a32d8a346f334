"""Nodes of a program as text, for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchport.numerics.programs.program import Program

__all__ = ["module_of", "module_path", "node_text", "place_text"]

_SHOWN = 160
"""Characters of a node's arguments."""


def node_text(program: Program, node: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """``add_3 = aten.add.Tensor(var, 1e-05)  # model.py:12``; ``names``: what nodes are called instead."""

    def named(name: str) -> str:
        external = program.externals.get(name)
        return external.title if external is not None else names.get(name, name)

    def text(value: Any) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        if isinstance(value, dict) and len(value) == 1:
            (key, inner) = next(iter(value.items()))
            if key == "node":
                return named(str(inner))
            if key == "tuple":
                return "(" + ", ".join(map(text, inner)) + ")"
            if key == "dict":
                return "{" + ", ".join(f"{name}: {text(one)}" for name, one in inner.items()) + "}"
            return str(inner)
        if isinstance(value, dict):
            return "{" + ", ".join(f"{name}: {text(one)}" for name, one in value.items()) + "}"
        return value if isinstance(value, str) else json.dumps(value)

    arguments = [*map(text, node["args"])]
    arguments += [f"{key}={text(value)}" for key, value in node["kwargs"].items() if key not in _SETTINGS]
    inside = ", ".join(arguments)
    inside = inside if len(inside) <= _SHOWN else inside[:_SHOWN] + "..."
    operation = node["target"].removesuffix(".default")
    if node["op"] == "placeholder":
        return f"{named(node['name'])}: an input"
    if node["op"] == "get_attr":
        module = program.dump["graphs"].get(node["target"])
        what = _constant(program, node["target"]) if module is None else _graph(module)
        return f"{names.get(node['name'], node['name'])} = {what}"
    return f"{names.get(node['name'], node['name'])} = {operation}({inside})"


def _graph(module: Mapping[str, Any]) -> str:
    """A graph inside of the graph, in one line."""
    inner = Program(None, {**module, "graphs": {}})  # type: ignore[arg-type]  # no value of it was recorded
    nodes = [node_text(inner, one, {}) for one in module["nodes"] if one["op"] != "placeholder"]
    return f"graph {{{'; '.join(nodes)}}}"


_SETTINGS = ("device", "layout", "pin_memory")


def _constant(program: Program, target: str) -> str:
    constant = program.dump["constants"].get(target)
    if not isinstance(constant, Mapping):
        return f"constant {target}"
    values = constant.get("values")
    numbers = [f"{one:.9g}" if isinstance(one, float) else str(one) for one in (values or ())[:4]]
    shown = f" [{', '.join(numbers)}{', ...' if len(values) > 4 else ''}]" if values else ""
    return f"constant {constant['dtype']} {constant['shape']}{shown}"


def module_of(node: Mapping[str, Any]) -> str:
    """The path of the module that a node comes from, as parameters have it; empty if it is not known."""
    return module_path((node.get("module") or {}).get("path"))


def module_path(path: Any) -> str:
    """A module's path as parameters have it, from one of Dynamo's; empty if it is not known."""
    return re.sub(r"^[LG]\['\w+'\]\.?", "", str(path or ""))


def place_text(node: Mapping[str, Any]) -> str:
    """The user's line: ``model.py:12 x = self.norm(x)``; empty if it is not known."""
    source = node.get("source")
    return f"{Path(source['file']).name}:{source['line']}  {source['code']}" if source else ""

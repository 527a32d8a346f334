"""The names that the inputs of Dynamo's graphs have in the user's model: ``layers.0.weight``, ``x``."""

from __future__ import annotations

import re
from typing import Any

import torch.fx

__all__ = ["gradient_of", "input_names", "place_of"]

_MEMBER = re.compile(r"\._(modules|parameters|buffers)\['([^']*)'\]")
_ROOT = re.compile(r"^[LG]\['([^']*)'\]")
_PLAIN = re.compile(r"(?:Plain|ViewBase|SubclassGetAttr|Param|Buffer)AOTInput\(.*?idx=(\d+)")
_GRADIENT = re.compile(r"GradAOTOutput\(grad_of=(.*)\)$")
_TANGENT = re.compile(r"TangentAOTInput\(output=PlainAOTOutput\(idx=(\d+)\)\)")


def input_names(gm: torch.fx.GraphModule) -> tuple[str, ...]:
    """By placeholder of Dynamo's graph, in order, ``kind name``; empty where Dynamo does not tell.

    Kinds are ``parameter``, ``buffer`` and ``input``.
    """
    return tuple(_name(node) for node in gm.graph.find_nodes(op="placeholder"))


def _name(node: torch.fx.Node) -> str:
    source = getattr(node.meta.get("grapharg"), "source", None)
    if source is None:
        return ""
    text = source.name() if callable(source.name) else source.name  # a method up to torch 2.11
    kinds = [found[1] for found in _MEMBER.finditer(text)]
    short = _MEMBER.sub(lambda found: f".{found[2]}", text)
    if not kinds:
        return f"input {_ROOT.sub(lambda found: found[1], short)}"
    short = _ROOT.sub("", short).lstrip(".")  # the module that is compiled, whatever it is called
    kind = {"parameters": "parameter", "buffers": "buffer"}.get(kinds[-1], "input")
    return f"{kind} {short}"


def place_of(description: Any) -> int | None:
    """The place among Dynamo's inputs that AOTAutograd's description of an input names; None for others."""
    found = _PLAIN.match(repr(description)) if description is not None else None
    return None if found is None else int(found[1])


def gradient_of(description: Any) -> tuple[str, int] | None:
    """What AOTAutograd's description of a gradient is of: ``input`` or ``result``, and which; None for others."""
    text = repr(description)
    if (result := _TANGENT.match(text)) is not None:
        return "result", int(result[1])
    found = _GRADIENT.match(text)
    place = _PLAIN.match(found[1]) if found is not None else None
    return None if place is None else ("input", int(place[1]))

"""Gradients of results whose elements overlap in memory (``unfold``).

AOTAutograd gives the gradient of a result the result's strides. Where elements overlap, they overwrite each other.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["overlaps", "separate_outputs"]


def separate_outputs(gm: torch.fx.GraphModule) -> None:
    """Let Dynamo's graph return contiguous copies of such results. Views of inputs stay: autograd makes them itself."""
    inputs = {_storage(node) for node in gm.graph.find_nodes(op="placeholder")}
    for output in gm.graph.find_nodes(op="output"):
        for node in output.all_input_nodes:
            example = node.meta.get("example_value")
            if not isinstance(example, torch.Tensor) or _storage(node) in inputs:
                continue
            if example.requires_grad and example.layout == torch.strided and overlaps(example):
                with gm.graph.inserting_before(output):
                    copy = gm.graph.call_method("clone", (node,), {"memory_format": torch.contiguous_format})
                with example.fake_mode:  # type: ignore[attr-defined]
                    copy.meta["example_value"] = example.clone(memory_format=torch.contiguous_format)
                output.replace_input_with(node, copy)
                gm.recompile()


def _storage(node: torch.fx.Node) -> Any:
    example = node.meta.get("example_value")
    if not isinstance(example, torch.Tensor) or example.layout != torch.strided:
        return None
    return example.untyped_storage()._cdata


def overlaps(example: torch.Tensor) -> bool:
    """Whether a step along some dimension is shorter than what lies within it. Expanded dimensions are no concern."""
    numbers = (*example.stride(), *example.shape)
    if any(isinstance(number, torch.SymInt) and not number.node.has_hint() for number in numbers):
        return False  # known at run time only
    dimensions = sorted(
        (step, size) for step, size in zip(example.stride(), example.shape, strict=True) if step != 0 and size != 1
    )
    extent = 1
    for step, size in dimensions:
        if step < extent:
            return True
        extent = step * (size - 1) + extent
    return False

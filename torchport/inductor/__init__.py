"""Compiling one FX graph with Inductor, torchport's way: the only package that touches torch._inductor.

Everything torchport changes in Inductor (config, choices, code generation for the target's device) is in force while a
graph of torchport's is compiled, in the thread that compiles it, and nowhere else. ``graph``, which imports Inductor's
code generators, is imported when the first graph is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torchport.inductor.capture import without_graph_caches
from torchport.inductor.options import mode_options, validate_options
from torchport.inductor.request import Request

__all__ = ["Request", "compile_graph", "mode_options", "validate_options", "without_graph_caches"]


def compile_graph(gm: Any, example_inputs: Sequence[Any], request: Request) -> Callable[..., Any]:
    """See ``torchport.inductor.graph.compile_graph``."""
    from torchport.inductor import graph

    return graph.compile_graph(gm, example_inputs, request)

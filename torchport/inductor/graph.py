"""Compiles one FX graph under torchport's settings, or takes it out of the cache.

What compiles, ``compiling``, imports Inductor's code generators: only where the cache does not have the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from torchport.inductor import warm
from torchport.inductor.announcing import announced, operations_of
from torchport.inductor.input_names import input_names
from torchport.inductor.keys import know_torch, know_triton
from torchport.inductor.request import Request, shared_memory
from torchport.inductor.savings.calls import shortened
from torchport.inductor.upstream.corrections import applies
from torchport.inductor.upstream.images import interpolate_in_aten
from torchport.inductor.upstream.lists import write_in_turn
from torchport.inductor.upstream.outputs import separate_outputs
from torchport.inductor.upstream.sizes import traced_with_sizes
from torchport.inductor.upstream.strides import keep_strides
from torchport.plugin import backend_for
from torchport.report import counted
from torchport.runtime import alone

__all__ = ["compile_graph"]


def compile_graph(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], request: Request) -> Callable[..., Any]:
    """Compile Dynamo's graph ``gm`` with Inductor. Returns the compiled callable, differentiable if ``gm`` is.

    Raises CompilationError (inside Inductor's error) for a kernel the target cannot compile, where the request's
    fallback is ``error`` or there is no other way to run the graph.
    """
    know_torch()
    know_triton()
    with alone.noticed():
        return _compile_graph(
            gm, example_inputs, replace(request, inputs=input_names(gm), shared=shared_memory(example_inputs))
        )


def _compile_graph(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], request: Request) -> Callable[..., Any]:
    if backend_for(request.target).driver(request.target).stock:
        from torchport.inductor.compiling import compile_stock

        return compile_stock(gm, example_inputs, request)
    if applies("sizes-in-place"):
        traced_with_sizes(gm)
    settings = request.settings()
    with announced(f"graph of {counted(operations_of(gm), 'operation')}"), request.recording():
        with warm.configured(settings):
            _correct(gm)
            found = warm.load(gm, example_inputs, settings)
        if found is not None:
            return shortened(found)
        from torchport.inductor.savings.templates import parsed_later

        with parsed_later():
            from torchport.inductor.compiling import compile_with_inductor

        return shortened(compile_with_inductor(gm, example_inputs, request))


def _correct(gm: torch.fx.GraphModule) -> None:
    """Change in Dynamo's graph what Inductor would compute otherwise than eager mode does."""
    if applies("listed-writes"):
        write_in_turn(gm)
    if applies("interpolated-bytes"):
        interpolate_in_aten(gm)
    if applies("written-strides"):
        keep_strides(gm)
    if applies("overlapping-results"):
        separate_outputs(gm)

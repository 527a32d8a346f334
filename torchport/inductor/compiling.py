"""Compiles one FX graph with Inductor, as often as it takes: forward now, backward when it is first needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from torchport.errors import CompilationError
from torchport.inductor import fallback
from torchport.inductor.announcing import announced, operations_of
from torchport.inductor.capture import GraphCode, capturing
from torchport.inductor.compat import InductorError, TracingContext, compile_fx, compile_fx_inner
from torchport.inductor.device_attention import DECOMPOSITIONS as ATTENTION
from torchport.inductor.generators import without_generators
from torchport.inductor.precision.applied import Applied, noted
from torchport.inductor.quarantined import STEPS, step_down
from torchport.inductor.request import Request
from torchport.inductor.scope import Scope, Settings
from torchport.inductor.session import active, suspended
from torchport.inductor.upstream.corrections import applies
from torchport.inductor.upstream.decompositions import decompositions
from torchport.inductor.upstream.loops import carry_dense_tensors
from torchport.inductor.upstream.order import in_program_order
from torchport.inductor.upstream.saved import save_old_inputs, turn_complex_inputs
from torchport.inductor.upstream.scalars import constant_where_read, traced_once
from torchport.report import counted
from torchport.runtime import events
from torchport.runtime.collection import no_collection

__all__ = ["compile_stock", "compile_with_inductor"]

ATTEMPTS = 8
"""How often a graph is compiled with more of its operations in aten before the whole graph runs elsewhere."""


def compile_with_inductor(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], request: Request) -> Any:
    """Compile a graph that ``torchport.inductor.graph`` has prepared. Returns the compiled callable.

    Raises as ``torchport.inductor.graph.compile_graph`` does.
    """

    def inner_compile(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any) -> Any:
        started = time.perf_counter()
        operations = operations_of(gm)
        training = "backward" if kwargs.get("is_backward") else "forward"
        direction = "inference" if kwargs.get("is_inference") else training
        title = f"{direction} graph of {counted(operations, 'operation')}"
        if direction == "forward" and applies("saved-inputs"):
            _save_old_inputs(gm.graph)
        if direction == "backward" and applies("complex-strides"):
            turn_complex_inputs(gm.graph, example_inputs)
        if applies("expanded-carries"):
            carry_dense_tensors(gm.graph)
        kwargs.pop("get_decomp_fn", None)  # a table of functions has no cache key; the scope's tag names the target
        with announced(title), no_collection(), request.recording():
            compiled = _compile(gm, example_inputs, request, kwargs, title)
        events.record(events.Graph(direction, str(request.target), operations, time.perf_counter() - started))
        return compiled

    settings = request.settings()
    # What the host's library would do in one call is done on the device in several.
    table = {**decompositions(), **(ATTENTION if settings.own_memory or request.device else {})}
    with active(Scope(settings)), traced_once(gm), constant_where_read(), without_generators():
        return compile_fx(gm, example_inputs, inner_compile=inner_compile, decompositions=table)


def _save_old_inputs(graph: torch.fx.Graph) -> None:
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    if metadata is not None and not metadata.tokens:
        save_old_inputs(graph, metadata.num_forward, metadata.mutated_inp_runtime_indices)


def compile_stock(gm: torch.fx.GraphModule, inputs: Sequence[Any], request: Request) -> Callable[..., Any]:
    """Compile with Inductor's own code generation and launcher; options and events are torchport's."""

    def inner_compile(gm: torch.fx.GraphModule, inputs: Sequence[Any], **kwargs: Any) -> Any:
        kwargs.pop("get_decomp_fn", None)
        with active(Scope(request.settings())), request.recording():
            return compile_fx_inner(gm, inputs, **kwargs)

    started = time.perf_counter()
    operations = operations_of(gm)
    with (
        announced(f"graph of {counted(operations, 'operation')}"),
        active(Scope(request.settings())),
        request.recording(),
    ):
        compiled: Any = compile_fx(gm, inputs, inner_compile=inner_compile)
    events.record(events.Graph("inductor", str(request.target), operations, time.perf_counter() - started))
    result: Callable[..., Any] = compiled
    return result


def _compile(
    gm: torch.fx.GraphModule, inputs: Sequence[Any], request: Request, kwargs: dict[str, Any], title: str
) -> Any:
    """Run Inductor's compile_fx_inner until all kernels compile.

    Each attempt leaves more operations to aten, and halves the blocks of quarantined kernels.
    """
    original = None if request.fallback == "error" else fallback.Original(gm)
    settings = request.settings()
    if (refused := fallback.needs_inductor(gm.graph, settings.own_memory)) is not None:
        if original is None:
            raise refused
        return _elsewhere(original, inputs, request, kwargs, refused)
    scope = Scope(settings, title)
    for _ in range(ATTEMPTS + STEPS):
        try:
            with active(scope), in_program_order(gm.graph):
                if scope.background is not None:
                    scope.background.start()
                compiled = compile_fx_inner(gm, inputs, **kwargs)
            _capture(compiled, scope)
            return compiled
        except InductorError as error:
            failures = fallback.failures_of(error)
            if not failures:
                raise
            reason = fallback.describe(failures, scope)
            failures = step_down(failures, scope)
            if original is None and failures:
                raise fallback.describe(failures, scope) from error
        if failures and (request.fallback == "eager" or not fallback.mark(gm.graph, failures, scope)):
            break
        scope = _next_attempt(gm, request.settings(), scope)
    if original is None:
        raise reason
    return _elsewhere(original, inputs, request, kwargs, reason)


def _capture(compiled: Any, scope: Scope) -> None:
    """Keep the code of a graph for an open ``capture_kernels``."""
    context = TracingContext.try_get()
    if (captured := capturing()) is None or context is None or context.fw_metadata is None:
        return
    if not hasattr(compiled, "source_code"):
        return  # the graph computes nothing, and Inductor returned it as it is
    about = context.fw_metadata
    written = tuple(place for place, one in enumerate(about.input_info) if one.mutates_data)
    exact = not about.mutated_inp_runtime_indices and not about.num_intermediate_bases
    constants = dict(compiled.constants or {})
    captured.graphs.append(GraphCode(compiled.source_code, scope.sources(), constants, written, exact))


def _next_attempt(gm: torch.fx.GraphModule, settings: Settings, last: Scope) -> Scope:
    """The next attempt on a graph that Inductor's passes have run on. Its marks are part of its cache key."""
    marked = ",".join(node.name for node in gm.graph.nodes if "should_fallback" in node.meta)
    tag = f"{settings.cache_tag} aten={marked} smaller={sorted(last.halvings.items())}"
    options = {**settings.options, "use_post_grad_passes": False}
    return Scope(replace(settings, options=options, cache_tag=tag), last.graph, last.halvings, widened=last.widened)


def _elsewhere(
    original: fallback.Original,
    inputs: Sequence[Any],
    request: Request,
    kwargs: dict[str, Any],
    reason: CompilationError,
) -> Any:
    """The whole graph, compiled by Inductor's own code generator if that works here, otherwise run eagerly."""
    if request.precision is not None:
        noted(asdict(Applied(lost=f"it does not run in kernels of torchport ({reason})")), strict=False)
    eager = fallback.runs_eagerly(original.module())
    # Two code generators draw different numbers from one seed: forward and backward must come from the same one.
    if request.fallback == "auto" and (eager is not None or kwargs.get("is_inference")):
        try:
            with suspended(request.options):
                compiled = compile_fx_inner(original.module(), inputs, **kwargs)
        except InductorError:
            pass  # no C++ compiler, or Inductor cannot do it either: eager can
        else:
            fallback.record(reason, None, "inductor", ())
            return _on_the_host(compiled, request)
    if eager is None:
        raise CompilationError(
            f"{reason}; nor can the graph run eagerly, as it draws Inductor's random numbers. "
            "Compile with options={'fallback_random': True}"
        ) from reason
    fallback.record(reason, None, "eager", ())
    return _on_the_host(eager, request)


def _on_the_host(compiled: Any, request: Request) -> Any:
    """``compiled``, which takes CPU tensors; those that another graph left on the device are brought back first."""
    from torchport.runtime.devices.session import from_device

    return from_device(str(request.target), compiled) if request.settings().own_memory else compiled

"""Compiling one FX graph: forward now, backward when it is first needed, both under torchport's settings."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

import torchport
from torchport import quarantine
from torchport.errors import CompilationError
from torchport.inductor import scope as scopes
from torchport.inductor.options import DEFAULTS
from torchport.plugin import backend_for
from torchport.runtime import events
from torchport.target import Target

if TYPE_CHECKING:
    from torchport.inductor.fallback import Original

__all__ = ["Request", "compile_graph"]

ATTEMPTS = 8
"""How often a graph is compiled with more of its operations in aten, before all of it goes elsewhere."""


@dataclass(frozen=True)
class Request:
    """What the user asked for: ``options`` are Inductor's, checked already; ``fallback`` as in docs/options.md.

    ``arithmetic`` and ``around``: as in ``torchport.inductor.scope.Scope``.
    ``describe``: makes of an FX graph what the graph's code keeps for those who look at its launches; ``watch``: open
    while graphs are compiled or taken out of a cache.
    """

    target: Target
    fallback: str
    options: Mapping[str, Any]
    describe: Callable[[Any], dict[str, Any]] | None = None
    arithmetic: str = ""
    around: tuple[str, str] | None = None
    watch: Callable[[], AbstractContextManager[None]] = nullcontext

    def scope(self) -> scopes.Scope:
        """The settings of one compilation. Raises TargetError when the target's backend is not usable."""
        backend = backend_for(self.target)
        fingerprint = backend.compiler(self.target).fingerprint()
        driver = backend.driver(self.target)
        device, options = driver.device, {**backend.options, **self.options}
        versions = f"torchport-{torchport.__version__}-{scopes.source_hash()}"
        avoided = f" quarantine={found}" if (found := quarantine.digest(self.target)) else ""
        return scopes.Scope(
            target=str(self.target),
            device=device,
            options=options if driver.stock else _with_passes({**DEFAULTS, **options}, device),
            tag=f"{versions} {self.target}={fingerprint} fallback={self.fallback}{avoided}{self._emulation()}",
            own_memory=getattr(driver, "mirrors", None) is not None,
            describe=self.describe,
            arithmetic=self.arithmetic,
            around=self.around,
            stock=driver.stock,
        )

    def _emulation(self) -> str:
        if self.around is None:
            return ""
        return f" arithmetic={hashlib.sha256(repr((self.arithmetic, self.around)).encode()).hexdigest()}"


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's cycle collector out: it walks Inductor's graphs again and again and finds nothing to free."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _with_passes(options: dict[str, Any], device: str) -> dict[str, Any]:
    """Put torchport's graph passes before the user's."""
    import torch._inductor.config

    from torchport.inductor.passes import GraphPasses

    name = "post_grad_custom_post_pass"
    following = options.get(name, getattr(torch._inductor.config, name))
    return {**options, name: GraphPasses(device, following)}


def compile_graph(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], request: Request) -> Callable[..., Any]:
    """Compile Dynamo's graph ``gm`` with Inductor. Returns the compiled callable, differentiable if ``gm`` is.

    Raises CompilationError (inside Inductor's error) for a kernel the target cannot compile, where the request's
    fallback is ``error`` or there is no other way to run the graph.
    """
    from torch._inductor.compile_fx import compile_fx

    if backend_for(request.target).driver(request.target).stock:
        return _compile_stock(gm, example_inputs, request)

    def inner_compile(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any) -> Any:
        started = time.perf_counter()
        operations = sum(node.op == "call_function" for node in gm.graph.nodes)
        kwargs.pop("get_decomp_fn", None)  # a table of functions has no cache key; the scope's tag names the target
        with _no_collection(), request.watch():
            compiled = _compile(gm, example_inputs, request, kwargs)
        training = "backward" if kwargs.get("is_backward") else "forward"
        direction = "inference" if kwargs.get("is_inference") else training
        events.record(events.Graph(direction, str(request.target), operations, time.perf_counter() - started))
        return compiled

    scope = request.scope()
    decompositions = None
    # What the host's library would do in one call is done on the device in several.
    if scope.own_memory:
        from torchport.inductor.attention import decompositions_for_devices

        decompositions = decompositions_for_devices()
    with scopes.active(scope), request.watch():
        compiled: Any = compile_fx(gm, example_inputs, inner_compile=inner_compile, decompositions=decompositions)
    result: Callable[..., Any] = compiled
    return result


def _compile_stock(gm: torch.fx.GraphModule, inputs: Sequence[Any], request: Request) -> Callable[..., Any]:
    """Inductor itself, for devices that it generates code for and launches on; options and records are torchport's."""
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    def inner_compile(gm: torch.fx.GraphModule, inputs: Sequence[Any], **kwargs: Any) -> Any:
        kwargs.pop("get_decomp_fn", None)
        with scopes.active(request.scope()), request.watch():
            return compile_fx_inner(gm, inputs, **kwargs)

    started = time.perf_counter()
    with scopes.active(request.scope()), request.watch():
        compiled: Any = compile_fx(gm, inputs, inner_compile=inner_compile)
    operations = sum(node.op == "call_function" for node in gm.graph.nodes)
    events.record(events.Graph("inductor", str(request.target), operations, time.perf_counter() - started))
    result: Callable[..., Any] = compiled
    return result


def _compile(gm: torch.fx.GraphModule, inputs: Sequence[Any], request: Request, kwargs: dict[str, Any]) -> Any:
    """Inductor's compile_fx_inner, again with more operations in aten for as long as kernels fail, and with smaller
    blocks for those in quarantine."""
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.exc import InductorError

    from torchport.inductor import fallback
    from torchport.inductor.quarantined import STEPS, step_down

    original = None if request.fallback == "error" else fallback.Original(gm)
    scope = request.scope()
    if (refused := fallback.needs_inductor(gm.graph, scope.device, scope.own_memory)) is not None:
        if original is None:
            raise refused
        return _elsewhere(original, inputs, request, kwargs, refused)
    for _ in range(ATTEMPTS + STEPS):
        try:
            with scopes.active(scope):
                return compile_fx_inner(gm, inputs, **kwargs)
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
        # The passes have run: what is compiled now is the graph they left, with marks, and cached as such.
        marked = ",".join(node.name for node in gm.graph.nodes if "should_fallback" in node.meta)
        steps = scope.steps
        scope = request.scope()
        scope = replace(
            scope,
            options={**scope.options, "use_post_grad_passes": False},
            tag=f"{scope.tag} aten={marked} smaller={sorted(steps.items())}",
            steps=steps,
        )
    if original is None:
        raise reason
    return _elsewhere(original, inputs, request, kwargs, reason)


def _elsewhere(
    original: Original, inputs: Sequence[Any], request: Request, kwargs: dict[str, Any], reason: CompilationError
) -> Any:
    """The whole graph with Inductor's own code generator, where that works here, or else eagerly."""
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.exc import InductorError

    from torchport.inductor import fallback

    eager = fallback.runs_eagerly(original.module())
    # Two code generators draw different numbers from one seed: forward and backward must come from the same one.
    if request.fallback == "auto" and (eager is not None or kwargs.get("is_inference")):
        try:
            with scopes.suspended(request.options):
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
    """``compiled``, which takes CPU tensors, with what another graph left on the device brought back first."""
    from torchport.runtime.devices.session import from_device

    return from_device(str(request.target), compiled) if request.scope().own_memory else compiled

"""Compiling one FX graph: forward now, backward when it is first needed, both under torchport's settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import torchport
from torchport.inductor import scope as scopes
from torchport.inductor.options import DEFAULTS
from torchport.plugin import backend_for
from torchport.runtime import events
from torchport.target import Target

__all__ = ["Request", "compile_graph"]


@dataclass(frozen=True)
class Request:
    """What the user asked for: ``options`` are Inductor's, checked already; ``fallback`` as in docs/options.md."""

    target: Target
    fallback: str
    options: Mapping[str, Any]

    def scope(self) -> scopes.Scope:
        """The settings of one compilation. Raises TargetError when the target's backend is not usable."""
        backend = backend_for(self.target)
        tag = (
            f"torchport-{torchport.__version__}-{scopes.source_hash()} {self.target}={backend.fingerprint(self.target)}"
        )
        return scopes.Scope(
            target=str(self.target),
            device=backend.device,
            options={**DEFAULTS, **backend.inductor_options, **self.options},
            tag=f"{tag} fallback={self.fallback}",
        )


def compile_graph(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], request: Request) -> Callable[..., Any]:
    """Compile Dynamo's graph ``gm`` with Inductor. Returns the compiled callable, differentiable if ``gm`` is."""
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    def inner_compile(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any) -> Any:
        started = time.perf_counter()
        with scopes.active(request.scope()):
            compiled = compile_fx_inner(gm, example_inputs, **kwargs)
        events.record(
            events.Graph(
                direction="backward" if kwargs.get("is_backward") else "inference" if kwargs.get("is_inference")
                else "forward",
                target=str(request.target),
                operations=sum(node.op == "call_function" for node in gm.graph.nodes),
                seconds=time.perf_counter() - started,
            )
        )  # fmt: skip
        return compiled

    with scopes.active(request.scope()):
        compiled: Callable[..., Any] = compile_fx(gm, example_inputs, inner_compile=inner_compile)
    return compiled

"""The Dynamo backend: ``torch.compile(model, backend="torchport")``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchport.config import config
from torchport.errors import OptionError
from torchport.inductor import Request, compile_graph, mode_options, validate_options
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["FALLBACKS", "request", "torchport"]

FALLBACKS = ("auto", "eager", "error")
_OWN = ("target", "fallback")


def request(mode: str | None, options: Mapping[str, Any] | None) -> Request:
    """Check ``mode`` and ``options`` of torch.compile. Raises OptionError or TargetError, listing what is valid."""
    given = dict(options or {})
    target = Target.parse(given.pop("target", None) or config().target)
    backend_for(target).fingerprint(target)
    fallback = given.pop("fallback", "auto")
    if fallback not in FALLBACKS:
        raise OptionError(f"option 'fallback' is {fallback!r}; valid: {', '.join(map(repr, FALLBACKS))}")
    return Request(target, fallback, {**mode_options(mode), **validate_options(given, _OWN)})


def torchport(
    gm: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile one graph of Dynamo's; torch.compile calls it through the entry point ``torch_dynamo_backends``.

    ``mode``: as for Inductor. ``options``: torchport's own (docs/options.md) and any of Inductor's.
    """
    return compile_graph(gm, example_inputs, request(mode, options))

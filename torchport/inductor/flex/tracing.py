"""FlexAttention while Dynamo traces: what PyTorch refuses on CPUs and unknown devices, torchport's backend takes.

The refusals are two functions that ``flex_attention`` calls, before any backend sees a graph. Dynamo is told what to
trace in their place. That asks which backend the graph is for, and traces the original for all others; calls that
are not traced reach the original itself.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from torchport.compat import InstructionTranslator, flex_attention

__all__ = ["backend", "is_ours", "register"]

_Backend = TypeVar("_Backend", bound=Callable[..., Any])

_MARK = "_torchport_backend"
_INNER = ("_torchdynamo_orig_backend", "compiler_fn", "func", "backend_compile_fn", "__self__")
"""Attributes of the wrappers that Dynamo and torch.compile put around a backend; DDPOptimizer's is a method of its."""


def backend(function: _Backend) -> _Backend:
    """Mark a Dynamo backend as one of torchport's."""
    setattr(function, _MARK, True)
    return function


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _for_torchport() -> bool:
    """Whether Dynamo traces for a backend of torchport's. Called while it traces."""
    return is_ours(InstructionTranslator.current_tx().output.compiler_fn)


def is_ours(found: Any) -> bool:
    """Whether what Dynamo has for a backend is one of torchport's, within the wrappers that are put around it."""
    while found is not None and not getattr(found, _MARK, False):
        found = next((getattr(found, name) for name in _INNER if hasattr(found, name)), None)
    return found is not None


def _copy(function: types.FunctionType) -> Callable[..., Any]:
    """A function of the same code that is not replaced itself."""
    return types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)


@functools.cache
def register() -> None:
    """Have Dynamo trace torchport's answers where a graph is for torchport."""
    validate = _copy(flex_attention._validate_device)
    options = _copy(flex_attention._apply_kernel_options)

    @torch.compiler.substitute_in_graph(flex_attention._validate_device)
    def _validate_device(query: Any, key: Any, value: Any) -> None:
        """Refuse gradients on CPUs, and devices that PyTorch has no kernels for."""
        if not _for_torchport():
            validate(query, key, value)

    @torch.compiler.substitute_in_graph(flex_attention._apply_kernel_options)
    def _apply_kernel_options(
        query: Any, key: Any, value: Any, return_lse: Any, kernel_options: Any, return_aux: Any = None
    ) -> Any:
        """Refuse the largest scores on CPUs, and have no sums for a backward pass there."""
        if not _for_torchport():
            return options(query, key, value, return_lse, kernel_options, return_aux)
        maxima = return_aux is not None and return_aux.max_scores
        sums = return_lse or (return_aux is not None and return_aux.lse)
        found = options(query, key, value, sums, kernel_options)
        # A graph that falls back goes to Inductor's code for CPUs only if nobody asks for sums: that refuses the first
        # option, and ignores the second.
        found["OUTPUT_LOGSUMEXP"] = sums or maxima or torch.is_grad_enabled()
        found["OUTPUT_MAX"] = maxima
        return found

"""Scoped Inductor configuration: torchport's settings are in force while one graph is compiled, in one thread."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from torchport.inductor import kernels
from torchport.inductor.ahead import BackgroundCompiler
from torchport.inductor.codegen.choices import TorchportChoices
from torchport.inductor.codegen.scheduling import TorchportScheduling
from torchport.inductor.codegen.wrapper import TorchportWrapper
from torchport.inductor.compat import (
    DeviceCodegen,
    InductorChoices,
    V,
    config,
    device_codegens,
    init_backend_registration,
)
from torchport.inductor.device import register
from torchport.inductor.flex.lowering import LOWERINGS as ATTENTION
from torchport.inductor.group_norm import LOWERINGS as GROUP_NORMS
from torchport.inductor.once import AFTER as COSTLY
from torchport.inductor.orders import AFTER as SUMS
from torchport.inductor.products.concatenation import LOWERINGS as CONCATENATIONS
from torchport.inductor.products.convolution import LOWERINGS as CONVOLUTIONS
from torchport.inductor.products.convolution_gradients import LOWERINGS as CONVOLUTION_GRADIENTS
from torchport.inductor.products.grouped import LOWERINGS as GROUPED
from torchport.inductor.products.grouped import registered
from torchport.inductor.products.lowering import LOWERINGS as PRODUCTS
from torchport.inductor.products.quantised import LOWERINGS as QUANTISED
from torchport.inductor.replacing import lowered
from torchport.inductor.savings import saving
from torchport.inductor.scope import Scope, current, enter, leave
from torchport.inductor.upstream.conversions import LOWERINGS as CONVERSIONS
from torchport.inductor.upstream.conversions import kept_conversions
from torchport.inductor.upstream.corrections import applies
from torchport.inductor.upstream.maxima import placed_maxima
from torchport.inductor.upstream.propagation import typed_indices
from torchport.inductor.upstream.results import results_apart
from torchport.inductor.upstream.scales import scales_of_any_kind
from torchport.inductor.upstream.symbols import symbolic_strides
from torchport.inductor.warm import configured

__all__ = ["active", "suspended"]

_outer_options: ContextVar[Mapping[str, Any]] = ContextVar("torchport_outer_options", default=MappingProxyType({}))
"""Inductor's options as they are outside of torchport, as far as the open scopes change them."""

_LOWERINGS = {
    **ATTENTION,
    **CONVOLUTIONS,
    **CONVOLUTION_GRADIENTS,
    **PRODUCTS,
    **GROUPED,
    **QUANTISED,
    **CONCATENATIONS,
    **GROUP_NORMS,
    **CONVERSIONS,
}
_AFTER = {**COSTLY, **SUMS}
_lock = threading.Lock()
_users: dict[str, int] = {}
_saved: dict[str, Any] = {}


@contextmanager
def active(scope: Scope) -> Iterator[Scope]:
    """Compile with torchport's settings while the context is open."""
    settings = scope.settings
    values = config.get_config_copy()
    outer = {**{name: values[name] for name in settings.options}, **_outer_options.get()}
    with ExitStack() as stack:
        stack.enter_context(configured(settings))
        if not settings.stock:
            stack.enter_context(V.set_choices_handler(TorchportChoices(settings.device)))
            stack.enter_context(lowered({**_LOWERINGS, **registered()}, _AFTER))
            stack.enter_context(saving())
            if applies("typed-indices"):
                stack.enter_context(typed_indices())
            if applies("eager-rounding"):
                stack.enter_context(kept_conversions())
            if applies("placed-maxima"):
                stack.enter_context(placed_maxima())
            if applies("scale-nodes"):
                stack.enter_context(scales_of_any_kind())
            stack.enter_context(symbolic_strides())
            if applies("copied-results"):
                stack.enter_context(results_apart())
        stack.enter_context(_code_generation(settings.device))
        options_token, token = _outer_options.set(outer), enter(scope)
        if not settings.stock and BackgroundCompiler.is_available():
            scope.background = BackgroundCompiler(
                functools.partial(kernels.compile_ahead, target=settings.target),
                functools.partial(kernels.import_compiler, settings.target),
            )
        try:
            yield scope
        finally:
            leave(token)
            _outer_options.reset(options_token)
            if scope.background is not None:
                scope.background.stop()


@contextmanager
def suspended(options: Mapping[str, Any]) -> Iterator[None]:
    """Compile with Inductor's own settings and ``options`` while the context is open, inside a scope or not."""
    patches = {**_outer_options.get(), **options}
    with config.patch(patches), V.set_choices_handler(InductorChoices()):
        options_token, token = _outer_options.set({}), enter(None)
        try:
            yield
        finally:
            leave(token)
            _outer_options.reset(options_token)


@contextmanager
def _code_generation(device: str) -> Iterator[None]:
    """Register torchport's code generation for ``device``; threads that are in no scope get Inductor's."""
    if device == "torchport":
        register()
        yield
        return
    init_backend_registration()
    with _lock:
        users = _users.get(device, 0)
        if not users:
            original: Any = device_codegens[device]

            def scheduling(scheduler: Any) -> Any:
                scope = current()
                if scope is None or scope.settings.stock:
                    return original.scheduling(scheduler)
                return TorchportScheduling(scheduler)

            _saved[device] = original
            device_codegens[device] = DeviceCodegen(
                scheduling, TorchportWrapper, original.cpp_wrapper_codegen, original.fx_wrapper_codegen
            )
        _users[device] = users + 1
    try:
        yield
    finally:
        with _lock:
            _users[device] -= 1
            if not _users[device]:
                device_codegens[device] = _saved.pop(device)

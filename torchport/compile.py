"""The Dynamo backend, ``torch.compile(model, backend="torchport")``, and ``explain``, which reports its work."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import FrameType
from typing import Any

import torch

from torchport.arithmetic.profile import Profile
from torchport.compat import ShortenTraceback
from torchport.config import VALIDATE, config
from torchport.errors import OptionError, TargetError
from torchport.inductor import Request, compile_graph, keys, mode_options, validate_options
from torchport.inductor import without_graph_caches as _without_graph_caches
from torchport.inductor.flex import tracing
from torchport.inductor.precision.plan import Plan
from torchport.inductor.savings import tracing as savings_of_dynamo
from torchport.inductor.scope import CallWrapper
from torchport.numerics.graphs import dump as fx_graph
from torchport.plugin import backend_for
from torchport.report import Report
from torchport.runtime import artifacts, collection, events, graph_breaks, progress, torch_phases
from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.runtime.operators import tensors_in
from torchport.runtime.sanitizer import install
from torchport.target import Target
from torchport.torch_device.targets import target_of

__all__ = ["BF16_PRODUCTS", "FALLBACKS", "TAPES", "explain", "request", "torchport"]

if config().debug >= 2:
    torch_phases.report()
install()  # only if TORCHPORT_SANITIZE needs it; torch.compile imports this module before the first graph
events.listen(progress.show)
artifacts.register()
tracing.register()  # torch.compile calls nothing of ours before it traces
savings_of_dynamo.register(tracing.is_ours)
collection.off_while_compiling(tracing.is_ours)
keys.begin()

FALLBACKS = ("auto", "eager", "error")
TAPES = ("auto", "always", "off")
BF16_PRODUCTS = ("auto", "exact", "pairs")
_OWN = ("target", "fallback", "validate", "emulate", "tape", "precision", "bf16_products")


def request(mode: str | None, options: Mapping[str, Any] | None) -> Request:
    """Check ``mode`` and ``options`` of torch.compile. Raises OptionError or TargetError, listing what is valid."""
    remaining = dict(options or {})
    target = Target.parse(remaining.pop("target", None) or config().target)
    backend = backend_for(target)
    backend.driver(target)  # these raise if the target is not available, the first if it cannot run here
    backend.compiler(target)
    fallback = remaining.pop("fallback", FALLBACKS[0])
    if fallback not in FALLBACKS:
        raise OptionError(f"option 'fallback' is {fallback!r}; valid: {', '.join(map(repr, FALLBACKS))}")
    validate = remaining.pop("validate", None) or config().validate
    if validate not in VALIDATE:
        raise OptionError(f"option 'validate' is {validate!r}; valid: {', '.join(map(repr, VALIDATE))}")
    tape = remaining.pop("tape", None) or ("always" if mode == "reduce-overhead" else TAPES[0])
    if tape not in TAPES:
        raise OptionError(f"option 'tape' is {tape!r}; valid: {', '.join(map(repr, TAPES))}")
    products = remaining.pop("bf16_products", BF16_PRODUCTS[0])
    if products not in BF16_PRODUCTS:
        raise OptionError(f"option 'bf16_products' is {products!r}; valid: {', '.join(map(repr, BF16_PRODUCTS))}")
    if products == "pairs" and remaining.get("emulate") is not None:
        raise OptionError("options 'emulate' and 'bf16_products' both say how bf16 is multiplied; leave one out")
    emulated = _emulation(remaining.pop("emulate", None), target)
    precision = remaining.pop("precision", None)
    options = {**mode_options(mode), **validate_options(remaining, _OWN)}
    recording = nullcontext if validate == "off" else functools.partial(_recording, validate)
    plan = None if precision is None else Plan.of(precision)
    return Request(
        target, fallback, options, fx_graph.dump, *emulated, recording, tape=tape, precision=plan,
        bf16_products=products,
    )  # fmt: skip


def _emulation(name: Any, target: Target) -> tuple[str, CallWrapper | None]:
    """``arithmetic`` and ``call_wrapper`` of a Request for the option ``emulate``."""
    if name is None:
        return "", None
    if target.backend != "cpu":
        raise OptionError(
            f"option 'emulate' is {name!r}, and the target {target}; chips are emulated on target cpu only"
        )
    from torchport.numerics.emulation import dispatch as emulation  # 20 ms that few need

    profile = Profile.load(str(name))
    return profile.arithmetic(), emulation.call_wrapper(profile)


@tracing.backend
def torchport(
    gm: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile one of Dynamo's graphs. torch.compile calls it through the entry point ``torch_dynamo_backends``.

    mode: as for Inductor
    options: torchport's (docs/options.md) and any of Inductor's

    Raises as ``request`` does.
    """
    collection.off_while_compiling(tracing.is_ours)  # again: torch._dynamo.reset forgets it
    try:
        checked = _for_device(request(mode, options), options, example_inputs)
    except (OptionError, TargetError) as error:
        raise _for_the_user(error, inspect.currentframe()) from None
    return compile_graph(gm, example_inputs, checked)


def _for_device(request: Request, options: Mapping[str, Any] | None, inputs: Sequence[Any]) -> Request:
    """``request`` for tensors that live on one of torchport's devices: its target is theirs."""
    devices = {x.device for x in inputs if isinstance(x, torch.Tensor) and x.device.type == DEVICE_TYPE}
    if not devices:
        return request
    if len(devices) > 1:
        raise TargetError(f"a graph has tensors on {', '.join(sorted(map(str, devices)))}; move them to one device")
    target = target_of(devices.pop().index)
    if (options or {}).get("target") not in (None, str(target), target):
        raise TargetError(f"option 'target' is {request.target}, and the tensors are on {target}; leave it out")
    return replace(request, target=target, device=DEVICE_TYPE)


def explain(
    model: Callable[..., Any],
    *inputs: Any,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Report:
    """Compile ``model`` anew, run it once as ``model(*inputs, **keywords)``, and report the result.

    Graphs are compiled even if they are cached; cached kernels are not compiled again. The backward graph is not
    compiled, as it does not run.

    model: a module or function, compiled already or not; a compiled one does not change
    mode, options: as for torch.compile
    """
    original = getattr(model, "_orig_mod", None) or getattr(model, "_torchdynamo_orig_callable", model)
    checked = request(mode, options)

    @tracing.backend
    def fresh(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        return compile_graph(gm, example_inputs, checked)

    checked = _for_device(checked, options, [t for t in tensors_in((list(inputs), keywords))])
    with events.capture() as happened, _without_graph_caches(), graph_breaks.noted():
        torch.compile(original, backend=fresh)(*inputs, **keywords)
    return Report.of(happened)


def _recording(level: str) -> AbstractContextManager[None]:
    from torchport.numerics.recording.validate import watching  # imports Inductor

    return watching(level)


def _for_the_user(error: OptionError | TargetError, frame: FrameType | None) -> Exception:
    """``error`` as an exception of its type that Dynamo passes on unchanged, with a short traceback.

    Dynamo wraps others in BackendCompilerFailed. ``frame``: where the traceback begins.
    """
    kind = type(error)
    passed_on = type(kind.__name__, (ShortenTraceback, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    shown: Exception = passed_on(str(error), first_useful_frame=frame)
    return shown

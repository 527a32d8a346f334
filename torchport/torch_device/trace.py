"""One operator as a graph: traced with symbolic sizes, compiled as any graph is, kept as generated code."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from torchport.errors import CompilationError
from torchport.inductor.compat import (
    FakeTensorMode,
    FakeTensorProp,
    InductorError,
    LocalSource,
    ShapeEnv,
    TracingContext,
    V,
    compile_fx_inner,
    decomposition_table,
    fallbacks,
    lowerings,
    replace_random_passes,
    tracing,
)
from torchport.inductor.device_attention import DECOMPOSITIONS as ATTENTION
from torchport.inductor.fallback import failures_of
from torchport.inductor.passes import make_on
from torchport.inductor.request import Request
from torchport.inductor.scope import Scope
from torchport.inductor.session import active
from torchport.inductor.upstream.decompositions import decompositions

__all__ = ["Generated", "NotGenerated", "generate"]

_WRITTEN = frozenset({"mm", "bmm", "addmm", "baddbmm", "randint"})
"""What generated code may call: torchport's own, on the device."""
_EXTERN = re.compile(r"(?:extern_kernels|torch\.ops\.(?:aten|prims)|aten)\.(\w+)[.(]")


class NotGenerated(Exception):
    """Inductor has no kernel for an operator with these arguments; the text says why."""


@dataclass(frozen=True)
class Generated:
    """The code of one operator for a class of arguments.

    ``code``: Inductor's; its ``call`` takes the arguments in a list and returns the results.
    ``guards``: an expression over the arguments, by place in ``L``, that must hold; empty if there is none.
    """

    code: str
    guards: str


def generate(operator: Any, bind: Callable[[Sequence[Any]], Any], leaves: Sequence[Any], request: Request) -> Generated:
    """Trace ``operator`` and compile it for tensors like those among ``leaves``, of any sizes.

    bind: calls the operator with leaves, and returns the results that are new tensors.

    Raises NotGenerated.
    """
    shapes = ShapeEnv(duck_shape=False)  # which sizes must be equal is for the guards to say
    mode = FakeTensorMode(shape_env=shapes)
    fakes = [_symbolic(leaf, mode, shapes, f"t{place}") for place, leaf in enumerate(leaves)]

    def program(*values: Any) -> tuple[Any, ...]:
        return tuple(bind(values))

    function = torch.func.functionalize(program) if operator._schema.is_mutable else program
    table = {**_torch_decompositions(), **decompositions(), **ATTENTION}
    try:
        with mode, torch.no_grad():
            module = make_fx(function, decomposition_table=table, _allow_non_fake_inputs=True)(*fakes)
        with mode, V.set_fake_mode(mode):
            replace_random_passes(module)
            _move_constants(module, fakes)
        with active(Scope(request.settings())), tracing(TracingContext(mode)):
            compiled = compile_fx_inner(module, fakes, is_inference=True)
        tensors = [fake for fake in fakes if isinstance(fake, torch.Tensor)]
        sources = [LocalSource(f"t{place}") for place in range(len(tensors))]
        every = shapes.produce_guards(tensors, sources, ignore_static=False)
        guards = " and ".join(f"({guard})" for guard in every if "storage_offset()" not in guard)
    except InductorError as error:
        failures = failures_of(error)
        reason = next(iter(failures.values())) if failures else error
        raise NotGenerated(f"{type(reason).__name__}: {reason}") from error
    except (RuntimeError, NotImplementedError, CompilationError, TypeError, ValueError, AssertionError) as error:
        raise NotGenerated(f"{type(error).__name__}: {error}") from error
    code = str(compiled.source_code)
    called = set(_EXTERN.findall(code.partition("def call(")[2])) - (_WRITTEN - {str(operator).split(".")[1]})
    if called:  # the host computes one operator, not the pieces of one, which may lead back here
        raise NotGenerated(f"Inductor leaves {', '.join(sorted(called))} in it to the device's library")
    return Generated(code, guards)


@functools.cache
def _torch_decompositions() -> Mapping[Any, Callable[..., Any]]:
    """Torch's decompositions of operators that Inductor has neither a lowering nor a decomposition of its own for."""
    return {
        operator: decomposition
        for operator, decomposition in decomposition_table.items()
        if isinstance(operator, torch._ops.OpOverload)
        and (operator not in lowerings or operator in fallbacks)
        and torch.Tag.nondeterministic_seeded not in operator.tags
    }


def _move_constants(module: torch.fx.GraphModule, inputs: Sequence[Any]) -> None:
    """Make on the device what a decomposition makes on the host. Raises NotGenerated if something else is there."""
    device = next(value.device for value in inputs if isinstance(value, torch.Tensor))
    if make_on(module.graph, device):
        module.recompile()
        FakeTensorProp(module, V.fake_mode).propagate_dont_convert_inputs(*inputs)
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and value.device != device:
            raise NotGenerated(f"{node.target} in it is computed on {value.device}")


def _symbolic(value: Any, mode: Any, shapes: Any, name: str) -> Any:
    """A fake tensor like ``value``, of symbolic sizes and strides; a symbol for a number."""
    if not isinstance(value, torch.Tensor):
        with shapes.ignore_fresh_unbacked_symbols():
            return shapes.create_unbacked_symint() if isinstance(value, int) else shapes.create_unbacked_symfloat()
    example = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    sizes, strides, _ = shapes.create_symbolic_sizes_strides_storage_offset(example, LocalSource(name))
    with mode:
        return torch.empty_strided(sizes, strides, dtype=value.dtype, device=value.device)

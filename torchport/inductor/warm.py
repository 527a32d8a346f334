"""Takes a graph out of AOTAutograd's cache without Inductor's code generators, which a warm start does not need.

Inductor's ``compile_fx`` looks into this cache, too, but importing it takes a quarter of a warm start: lowerings,
templates, the scheduler. Here AOTAutograd is called as ``compile_fx`` calls it, with a compiler that gives up. Where
the cache has nothing, nothing was done, and the graph goes to ``compile_fx``.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from torchport.compat import inductor_cache_dir
from torchport.inductor.compat import (
    BoxedBool,
    BoxedDeviceIndex,
    CompilerBisector,
    OutputCode,
    PyTreeCodeGen,
    SerializableAOTDispatchCompiler,
    TracingContext,
    V,
    aot_module_simplified,
    compiled_autograd,
    compiler_config,
    config,
    detect_fake_mode,
    enable_python_dispatcher,
    functorch_config,
    inductor_debug,
)
from torchport.inductor.generators import without_generators
from torchport.inductor.scope import Settings

__all__ = ["configured", "load"]

_COMPILER = "torch._inductor.compile_fx"
_CALLBACK = "pre_grad_passes"
"""What AOTAutograd calls once its cache has nothing; torch 2.13 has it. Before, the graph was changed first."""


class _Miss(Exception):
    """The cache has no such graph."""


@contextmanager
def configured(settings: Settings) -> Iterator[None]:
    """Inductor's options are those of ``settings`` while the context is open, and its cache keys have their tag."""
    tag = " ".join(filter(None, [compiler_config.cache_key_tag, settings.cache_tag]))
    with config.patch(dict(settings.options)), compiler_config.patch(cache_key_tag=tag):
        yield


def load(gm: torch.fx.GraphModule, inputs: Sequence[Any], settings: Settings) -> Callable[..., Any] | None:
    """The compiled callable for Dynamo's graph ``gm``; None where it is not cached, or not worth the attempt.

    ``configured(settings)`` is open.
    """
    context = TracingContext.try_get()
    if context is None or not (_is_worth_it(settings) and _is_plain(gm, inputs)):
        return None
    compiler = SerializableAOTDispatchCompiler(OutputCode, _give_up)
    about = SimpleNamespace(
        cudagraphs=BoxedBool(config.triton.cudagraphs), forward_device=BoxedDeviceIndex(None), graph_id=None
    )
    try:
        with (
            without_generators(),
            enable_python_dispatcher(),
            V.set_fake_mode(detect_fake_mode(inputs)),
            compiled_autograd._disable(),
            functorch_config.patch(unlift_effect_tokens=True, selective_decompose=config.selective_decompose),
        ):
            found = aot_module_simplified(
                gm,
                inputs,
                fw_compiler=compiler,
                bw_compiler=compiler,
                inference_compiler=compiler,
                decompositions={},
                keep_inference_input_mutations=True,
                compiler_config_extra=about,
                pre_grad_passes=_give_up,
            )
    except _Miss:
        return None
    compiled: Callable[..., Any] = torch.compiler.disable(found, reason="do not trace AOT-compiled graph")
    return compiled


def _give_up(*_: Any) -> Any:
    raise _Miss


def _is_worth_it(settings: Settings) -> bool:
    """Whether the graph may be cached and what makes a difference is set as usual."""
    if _COMPILER in sys.modules or settings.device != "cpu" or settings.own_memory:
        return False
    if _CALLBACK not in inspect.signature(aot_module_simplified).parameters:
        return False
    usual = not (
        config.force_disable_caches
        or config.freezing
        or config.cpp_wrapper
        or config.fx_wrapper
        or config.trace.enabled
        or config.trace.provenance_tracking_level
        or inductor_debug.RECORD_GRAPH_EXECUTION
        or V.aot_compilation
    )
    if not (usual and functorch_config.enable_autograd_cache) or CompilerBisector.get_backend() is not None:
        return False
    return os.path.isdir(os.path.join(inductor_cache_dir(), "aotautograd"))


def _is_plain(gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> bool:
    """Whether ``compile_fx`` would hand the graph to AOTAutograd as it is."""
    (output,) = gm.graph.find_nodes(op="output")[0].args
    return (
        isinstance(output, (list, tuple))
        and not isinstance(gm.graph._codegen, PyTreeCodeGen)
        and "cudagraph_annotation" not in gm.meta
        and all(isinstance(one, (torch.Tensor, torch.SymInt)) for one in inputs)
    )

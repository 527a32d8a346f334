"""Everything of Triton's internals that the core touches, and of Inductor's kernel sources; see ``torchport.compat``.

Compiler backends (``torchport_cpu``, ``torchport_simt``) implement Triton's public backend contract and are not listed.
``PASSES`` are the passes of libtriton that ``torchport_passes.frontend.triton_options`` runs by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torchport.compat import Touch, resolver

__all__ = ["PASSES", "TOUCHES"]

_VERSION = ("triton 3.7",)

TOUCHES: Mapping[str, Touch] = MappingProxyType(
    {
        "ASTSource": Touch(
            "triton.compiler:ASTSource",
            "a kernel with its signature and constants; its TTIR without compiling it",
            parameters=("self", "fn", "signature", "constexprs", "attrs"),
            methods={
                "make_ir": ("self", "target", "options", "codegen_fns", "module_map", "context"),
                "parse_options": ("self",),
            },
            fragility="high",
            checked=_VERSION,
        ),
        "code_generator": Touch(
            "triton.compiler.code_generator",
            "imported while there is no kernel yet",
            fragility="low",
            checked=_VERSION,
        ),
        "make_backend": Touch(
            "triton.compiler.compiler:make_backend",
            "the frontend options of the target that a kernel was made for",
            parameters=("target",),
            checked=_VERSION,
        ),
        "CompiledKernel": Touch(
            "triton.compiler:CompiledKernel",
            "a kernel compiled elsewhere is loaded by Triton's own driver",
            parameters=("self", "src", "metadata_group", "hash"),
            attributes=("__getitem__",),
            fragility="high",
            checked=_VERSION,
        ),
        "GPUTarget": Touch(
            "triton.backends.compiler:GPUTarget",
            "a target as Triton names it",
            parameters=("self", "backend", "arch", "warp_size"),
            fragility="low",
            checked=_VERSION,
        ),
        "backends": Touch(
            "triton.backends:backends",
            "drivers by name",
            fragility="low",
            checked=_VERSION,
        ),
        "driver": Touch(
            "triton.runtime:driver",
            "which driver launches kernels",
            attributes=("set_active",),
            fragility="low",
            checked=_VERSION,
        ),
        "triton_cache": Touch(
            "triton.runtime.cache",
            "Triton is told its key",
            attributes=("triton_key",),
            methods={"get_cache_key": ("src", "backend")},
            text=("{triton_key()}-",),
            checked=_VERSION,
        ),
        "libtriton_ir": Touch(
            "triton._C.libtriton:ir",
            "contexts, dialects and modules of TTIR",
            attributes=("context", "load_dialects", "pass_manager"),
            checked=_VERSION,
        ),
        "knobs": Touch(
            "triton:knobs",
            "the sanitizer is part of Triton's cache keys",
            attributes=("compilation.instrumentation_mode", "runtime.add_stages_inspection_hook"),
            fragility="low",
            checked=_VERSION,
        ),
        "PyCodeCache": Touch(
            "torch._inductor.codecache:PyCodeCache",
            "the source of a kernel is executed as Inductor does it",
            attributes=("load",),
            fragility="high",
        ),
        "dot": Touch(
            "triton.language.core:dot",
            "tl.dot asks for precisions with its own arguments in its frame (CPU and SIMT)",
            parameters=("input", "other", "acc", "input_precision", "allow_tf32"),
            fragility="high",
            checked=_VERSION,
        ),
    }
)
"""Names of Triton by the name they have here."""

PASSES = {
    "common": ("add_canonicalizer", "add_cse", "add_inliner", "add_symbol_dce"),
    "ttir": (
        "add_combine",
        "add_loop_unroll",
        "add_reorder_broadcast",
        "add_rewrite_tensor_descriptor_to_pointer",
        "add_rewrite_tensor_pointer",
        "add_triton_licm",
    ),
}
"""Passes of libtriton by module."""

_find = resolver(__name__, TOUCHES)


def __getattr__(name: str) -> Any:
    return _find(name)

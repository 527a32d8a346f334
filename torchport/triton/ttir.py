"""Runs Triton's frontend on kernels, without compiling them further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchport.errors import TargetError
from torchport.plugin import backend_for
from torchport.target import Target
from torchport.triton.compiler import TritonCompiler
from torchport.triton.source import arithmetic_of, triton_kernel

__all__ = ["ttir_from", "ttir_of"]


def ttir_of(source: str, name: str, target: str = "cpu") -> str:
    """The TTIR of a kernel of generated code, as ``ttir_from`` makes it.

    ``source``: its text (``KernelSource.source``).
    ``name``: of the function in it.

    Raises Triton's own errors.
    """
    kernel = triton_kernel(name, source)
    options = dict(kernel.options)
    if arithmetic := arithmetic_of(source):  # it says what a dot of f32 without a precision is
        options["arithmetic"] = arithmetic
    return ttir_from(kernel.source(kernel.blocks), options, target)


def ttir_from(source: Any, options: Mapping[str, Any] | None = None, target: str = "cpu") -> str:
    """The TTIR of a ``triton.compiler.ASTSource`` as Triton's frontend makes it for ``target``, without locations.

    ``options``: Triton's. The CPU's frontend options are used if no backend here compiles for ``target``.

    Raises Triton's own errors.
    """
    from torchport.triton.compat import libtriton_ir as ir
    from torchport.triton.compat import make_backend

    chip = _triton_target(target)
    backend: Any = make_backend(chip)
    parsed = backend.parse_options({**(options or {}), **source.parse_options()})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    stages: dict[str, Any] = {}
    backend.add_stages(stages, parsed, source.language)
    hooks, modules = backend.get_codegen_implementation(parsed), backend.get_module_map()
    module = source.make_ir(chip, parsed, hooks, modules, context)
    return str(stages["ttir"](module, {}).str_nodebug())


def _triton_target(target: str) -> Any:
    """The ``GPUTarget`` of a target; the CPU's if no backend here compiles for it."""
    from torchport.triton.compat import GPUTarget

    parsed, cpu = Target.parse(target), Target("cpu")
    try:
        compiler = backend_for(parsed).compiler(parsed)
    except TargetError:
        compiler = backend_for(cpu).compiler(cpu)
    if isinstance(compiler, TritonCompiler):
        return GPUTarget(compiler.backend, compiler.architecture, compiler.simd_width)
    return GPUTarget(compiler.triton, str(parsed), 1)

"""Triton's compiler contract for the CPU: Triton's frontend, then TTIR -> LLVM IR -> object."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from triton import knobs
from triton._C.libtriton import ir, passes
from triton.backends.compiler import BaseBackend, GPUTarget, Language

from torchport.errors import UnsupportedOperation
from torchport.runtime.sanitizer import active

__all__ = ["CPUBackend", "CPUOptions"]


@dataclass(frozen=True)
class CPUOptions:
    """Options of one kernel.

    ``debug`` keeps ``tl.device_assert``; ``sanitize_overflow`` (by default what ``debug`` is) adds overflow checks;
    ``enable_fp_fusion`` allows a * b + c in one rounding; ``sanitize`` checks every memory access (torchport's own
    switch, docs/sanitizer.md).
    """

    debug: bool = False
    sanitize_overflow: bool = False
    enable_fp_fusion: bool = True
    sanitize: bool = False
    # What Triton's frontend reads.
    arch: str = ""
    backend_name: str = "cpu"
    supported_fp8_dtypes: tuple[str, ...] = ("fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16", "fp8e4b15")
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    default_dot_input_precision: str = "ieee"
    max_num_imprecise_acc_default: int = 0
    extern_libs: tuple[tuple[str, str], ...] = ()
    ir_override: str | None = None
    instrumentation_mode: str = ""
    # GPU words without meaning here. Callers pass them, so they are taken; they keep these values whatever is passed,
    # so that kernels that differ in nothing else are compiled once.
    num_warps: int = 1
    num_ctas: int = 1
    num_stages: int = 1
    warp_size: int = 1
    maxnreg: int | None = None
    cluster_dims: tuple[int, ...] = (1, 1, 1)
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False

    @property
    def allowed_dot_input_precisions(self) -> tuple[str, ...]:
        """Precisions that ``tl.dot`` may name.

        ``tl.dot`` with neither ``input_precision`` nor ``allow_tf32`` takes tf32 wherever a target allows it. A CPU has
        no reason to: its default is ieee, so tf32 is not among the answers to that question (Triton 3.6 and 3.7,
        ``language/core.py``).
        """
        asking = sys._getframe(1)
        names_none = asking.f_code.co_name == "dot" and asking.f_locals.get("allow_tf32") is None
        return ("ieee",) if names_none else ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")

    def hash(self) -> str:
        """Key of these options in Triton's cache."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


_MEANINGFUL = ("debug", "sanitize_overflow", "enable_fp_fusion", "ir_override", "instrumentation_mode")
_KNOWN = frozenset(f.name for f in fields(CPUOptions))


class CPUBackend(BaseBackend):
    """Compiles Triton kernels to native code of the host."""

    binary_ext = "obj"

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        """Whether ``target`` is the CPU."""
        return bool(target.backend == "cpu")

    def hash(self) -> str:
        """Everything but kernel and options that the object depends on."""
        from torchport_cpu.fingerprint import fingerprint

        return fingerprint()

    def parse_options(self, opts: dict[str, Any]) -> CPUOptions:
        """Options from what a caller passed; names this target does not know are left to Triton to reject.

        Raises AssertionError for a ``num_warps`` that other targets refuse: a kernel that runs here runs there.
        """
        warps = opts.get("num_warps", 1)
        assert warps > 0 and warps & (warps - 1) == 0, f"num_warps must be a power of 2, not {warps}"
        taken = {k: v for k, v in opts.items() if k in _MEANINGFUL and v is not None}
        taken.setdefault("sanitize_overflow", bool(taken.get("debug")))
        taken.setdefault("enable_fp_fusion", knobs.language.default_fp_fusion)
        return CPUOptions(arch=str(self.target.arch), sanitize=bool(active()), **taken)

    def pack_metadata(self, metadata: Any) -> None:
        """What the launcher gets at every launch: nothing, it is made with all it needs."""

    def get_codegen_implementation(self, options: CPUOptions) -> dict[str, Any]:
        """Hooks of the frontend: a dot may have any size; float8e4b15 is ours to convert."""
        from torchport_cpu.float8 import convert_custom_types

        return {"min_dot_size": lambda lhs, rhs: (1, 1, 1), "convert_custom_types": convert_custom_types}

    def get_module_map(self) -> dict[str, ModuleType]:
        """``tl.extra.libdevice`` is ours: Sleef and libm."""
        from torchport_passes import libdevice

        return {"triton.language.extra.libdevice": libdevice}

    def load_dialects(self, ctx: Any) -> None:
        """Triton's own dialects are all that this target needs inside libtriton."""

    def add_stages(self, stages: dict[str, Any], options: CPUOptions, language: Any = None) -> None:
        """Stages: ttir (Triton's own passes), llir (torchport's passes), obj (LLVM).

        Raises UnsupportedOperation for Gluon, whose kernels are written for the layouts and memories of one GPU.
        """
        from torchport_cpu.stages import Compilation

        if language is Language.GLUON:
            raise UnsupportedOperation(
                "gluon", "Gluon programs name a GPU's layouts and memories; write the kernel in triton.language"
            )

        compilation = Compilation(options)
        stages["ttir"] = _ttir
        stages["llir"] = compilation.llir
        stages["obj"] = compilation.obj
        if knobs.runtime.add_stages_inspection_hook is not None:
            knobs.runtime.add_stages_inspection_hook(self, stages, options, language, None)


def _ttir(module: Any, metadata: dict[str, Any]) -> Any:
    """Triton's target-independent clean-up of what its frontend built."""
    manager = ir.pass_manager(module.context)
    manager.enable_debug()
    passes.common.add_inliner(manager)
    passes.ttir.add_rewrite_tensor_pointer(manager)
    passes.ttir.add_rewrite_tensor_descriptor_to_pointer(manager)
    passes.common.add_canonicalizer(manager)
    passes.ttir.add_combine(manager)
    passes.ttir.add_reorder_broadcast(manager)
    passes.common.add_cse(manager)
    passes.ttir.add_triton_licm(manager)
    passes.ttir.add_loop_unroll(manager)
    passes.common.add_symbol_dce(manager)
    manager.run(module, "make_ttir")
    return module

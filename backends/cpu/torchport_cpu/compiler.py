"""Triton's compiler contract for the CPU: Triton's frontend, then TTIR -> LLVM IR -> object."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torchport_passes.frontend.triton_options import FrontendOptions, chosen, make_ttir
from triton import knobs
from triton.backends.compiler import BaseBackend, GPUTarget, Language

from torchport.errors import UnsupportedOperation
from torchport.runtime.sanitizer import active

__all__ = ["CPUBackend", "CPUOptions"]


@dataclass(frozen=True)
class CPUOptions(FrontendOptions):
    """Options of one kernel; ``sanitize`` checks every memory access (torchport's own switch, docs/sanitizer.md).

    ``arithmetic``: JSON text, which arithmetic it runs in instead of its own (docs/numerics.md).
    """

    sanitize: bool = False
    arithmetic: str = ""
    backend_name: str = "cpu"
    supported_fp8_dtypes: tuple[str, ...] = ("fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16", "fp8e4b15")
    dot_precisions: tuple[str, ...] = ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")


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
        """Options from what a caller passed; names this target does not know are left to Triton to reject."""
        taken = chosen(opts)
        sanitize = bool(active()) and not taken.get("arithmetic")  # a replay's accesses are not the launch's
        default = _dot_default(taken.get("arithmetic", ""))
        return CPUOptions(arch=str(self.target.arch), sanitize=sanitize, default_dot_input_precision=default, **taken)

    def pack_metadata(self, metadata: Any) -> None:
        """What the launcher gets at every launch: nothing, it is made with all it needs."""

    def get_codegen_implementation(self, options: CPUOptions) -> dict[str, Any]:
        """Hooks of the frontend: a dot may have any size; float8e4b15 is ours to convert."""
        from torchport_cpu.float8 import convert_custom_types

        return {"min_dot_size": lambda lhs, rhs: (1, 1, 1), "convert_custom_types": convert_custom_types}

    def get_module_map(self) -> dict[str, ModuleType]:
        """``tl.extra.libdevice`` is ours: Sleef and libm."""
        from torchport_passes.frontend import libdevice

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
        stages["ttir"] = make_ttir
        stages["llir"] = compilation.llir
        stages["obj"] = compilation.obj
        if knobs.runtime.add_stages_inspection_hook is not None:
            knobs.runtime.add_stages_inspection_hook(self, stages, options, language, None)


def _dot_default(arithmetic: str) -> str:
    """What ``tl.dot`` of f32 that asks for nothing does on the chip whose arithmetic this is."""
    if '"default"' not in arithmetic:
        return "ieee"
    try:
        return str(json.loads(arithmetic)["rules"]["dot"]["default"])
    except (ValueError, LookupError, TypeError):
        return "ieee"  # what is wrong with it is said where its passes are made

"""Triton's compiler contract for the CPU: Triton's frontend, then TTIR -> LLVM IR -> object."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torchport_passes.frontend.triton_options import accepted_options, make_ttir
from triton import knobs
from triton.backends.compiler import BaseBackend, GPUTarget, Language

from torchport.errors import UnsupportedOperation
from torchport.runtime.sanitizer import active
from torchport.triton.source import PAIRS
from torchport_cpu.options import CPUOptions, default_dot_precision

__all__ = ["CPUBackend"]


class CPUBackend(BaseBackend):
    """Compiles Triton kernels to native code of the host."""

    binary_ext = "obj"

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        """Whether ``target`` is the CPU."""
        return bool(target.backend == "cpu")

    def hash(self) -> str:
        """Hash of everything that the object depends on besides the kernel and its options."""
        from torchport_cpu.fingerprint import fingerprint

        return fingerprint()

    def parse_options(self, opts: dict[str, Any]) -> CPUOptions:
        """Options from a caller's keyword arguments; Triton rejects names that this target does not know.

        An emulated chip's arithmetic comes as the target's architecture: Inductor passes no option for a user's kernel.
        So does the option of pairs of bf16.
        """
        taken = accepted_options(opts)
        if str(self.target.arch).startswith("{"):
            taken.setdefault("arithmetic", str(self.target.arch))
        if self.target.arch == PAIRS:
            taken.setdefault("bf16_pairs", True)
        sanitize = bool(active()) and not taken.get("arithmetic")  # a replay's accesses are not the launch's
        default = default_dot_precision(taken.get("arithmetic", ""))
        return CPUOptions(arch=str(self.target.arch), sanitize=sanitize, default_dot_input_precision=default, **taken)

    def pack_metadata(self, metadata: Any) -> None:
        """Metadata passed to the launcher at every launch: none, the launcher has all it needs."""

    def get_codegen_implementation(self, options: CPUOptions) -> dict[str, Any]:
        """Hooks of the frontend: a dot may have any size, and torchport converts float8e4b15."""
        from torchport_cpu.float8 import convert_custom_types

        return {"min_dot_size": lambda lhs, rhs: (1, 1, 1), "convert_custom_types": convert_custom_types}

    def get_module_map(self) -> dict[str, ModuleType]:
        """Modules that replace Triton's: torchport's ``tl.extra.libdevice``, which calls Sleef and libm."""
        from torchport_passes.frontend import libdevice

        return {"triton.language.extra.libdevice": libdevice}

    def load_dialects(self, ctx: Any) -> None:
        """Load no more dialects: Triton's own are all that this target needs inside libtriton."""

    def add_stages(self, stages: dict[str, Any], options: CPUOptions, language: Any = None) -> None:
        """Add the stages: ttir (Triton's own passes), llir (torchport's passes), obj (LLVM).

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

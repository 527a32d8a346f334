"""Triton's compiler contract for all targets that torchport lowers to a C-like language.

Triton finds it by the entry point ``torchport`` of the group ``triton.backends``; the architecture of a GPUTarget is
the target's text form, ``opencl:0``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torchport_passes.frontend.triton_options import FrontendOptions, accepted_options, make_ttir
from triton.backends.compiler import BaseBackend, GPUTarget, Language

from torchport.errors import UnsupportedOperation
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["SIMTBackend", "SIMTOptions"]


@dataclass(frozen=True)
class SIMTOptions(FrontendOptions):
    """Options of one kernel. Its number of lanes follows from its blocks and the target's capabilities."""

    backend_name: str = "torchport"


class SIMTBackend(BaseBackend):
    """Compiles Triton kernels to source text of the target's language."""

    binary_ext = "simt"  # not "source": Triton keeps the module it starts from under that name

    def __init__(self, target: GPUTarget) -> None:
        super().__init__(target)
        parsed = Target.parse(target.arch)
        self._compiler: Any = backend_for(parsed).compiler(parsed)

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        """Whether torchport lowers for the target."""
        return bool(target.backend == "torchport")

    def hash(self) -> str:
        """A hash of everything that the source depends on except the kernel and its options."""
        fingerprint: str = self._compiler.fingerprint()
        return fingerprint

    def parse_options(self, opts: dict[str, Any]) -> SIMTOptions:
        """Options from a caller's keyword arguments; Triton rejects names that this target does not know."""
        precisions = tuple(sorted(self._compiler.capabilities.dot_precisions))
        return SIMTOptions(arch=str(self.target.arch), dot_precisions=precisions, **accepted_options(opts))

    def pack_metadata(self, metadata: Any) -> None:
        """Metadata passed to the launcher at every launch: none, the launcher has all it needs."""

    def get_codegen_implementation(self, options: SIMTOptions) -> dict[str, Any]:
        """Hooks of the frontend: the smallest size of a dot."""
        shape = self._compiler.capabilities.dot_shapes
        return {"min_dot_size": lambda lhs, rhs: shape}

    def get_module_map(self) -> dict[str, ModuleType]:
        """Modules that replace Triton's: torchport's ``tl.extra.libdevice``."""
        from torchport_passes.frontend import libdevice

        return {"triton.language.extra.libdevice": libdevice}

    def load_dialects(self, ctx: Any) -> None:
        """Load no more dialects: Triton's own are all that this target needs inside libtriton."""

    def add_stages(self, stages: dict[str, Any], options: SIMTOptions, language: Any = None) -> None:
        """Add the stages ttir (Triton's own passes) and simt (torchport's passes and emitter).

        Raises UnsupportedOperation for Gluon.
        """
        if language is Language.GLUON:
            raise UnsupportedOperation(
                "gluon", "Gluon programs name a GPU's layouts and memories; write the kernel in triton.language"
            )
        stages["ttir"] = make_ttir
        stages["simt"] = self._source

    def _source(self, module: Any, metadata: dict[str, Any]) -> bytes:
        from torchport_passes.frontend.locations import with_assertion_lines

        from torchport_simt.compilation import binary_of

        # Without locations: the same kernel from another file is the same kernel.
        text, located = module.str_nodebug(), str(module)
        if "tt.assert" in text:
            text = with_assertion_lines(text, located)
        packed: bytes = self._compiler.lower(text, located)
        metadata["name"] = binary_of(packed).metadata["name"]
        metadata["shared"] = 1  # bytes of shared memory; not 0, because authors of kernels divide by it
        return packed

"""The integration path ``triton``: a Compiler over a vendor's own Triton compiler."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchport.pipeline import Pass
from torchport.plugin import Binary, Resources

__all__ = ["TritonCompiler"]


def _unknown(stages: Mapping[str, Any]) -> Resources:
    return Resources()


def _no_passes() -> Sequence[Pass]:
    return ()


@dataclass(frozen=True)
class TritonCompiler:
    """Satisfies ``torchport.plugin.Compiler`` with ``triton.compile``.

    triton: the compiler's entry point in the group ``triton.backends``.
    backend: first argument of ``triton.backends.compiler.GPUTarget``.
    architecture: second argument of ``GPUTarget``.
    simd_width: third argument of ``GPUTarget``.
    key: returns the fingerprint.
    resources: reads a kernel's resources from the output of Triton's stages (``CompiledKernel.asm``).
    pipeline: returns torchport's passes, if the compiler consists of them.
    """

    triton: str
    backend: str
    architecture: str | int
    simd_width: int
    key: Callable[[], str]
    resources: Callable[[Mapping[str, Any]], Resources] = _unknown
    pipeline: Callable[[], Sequence[Pass]] = _no_passes

    def fingerprint(self) -> str:
        """A string that changes whenever the machine code may."""
        return self.key()

    def compile(self, source: Any, options: Mapping[str, Any]) -> Binary:
        """Compile a ``triton.compiler.ASTSource``. Raises what Triton and the vendor's compiler raise."""
        import triton

        from torchport.triton.compat import GPUTarget

        target = GPUTarget(self.backend, self.architecture, self.simd_width)
        compiled = triton.compile(source, target=target, options=dict(options))
        data = bytes(compiled.kernel)
        kind = next(name for name, image in compiled.asm.items() if image is compiled.kernel)
        metadata = json.loads(json.dumps(compiled.metadata._asdict(), default=vars))
        return Binary(data, kind, compiled.metadata.name, self.resources(compiled.asm), metadata)

    def passes(self) -> Sequence[Pass]:
        """torchport's passes in the target's compiler."""
        return self.pipeline()

"""The integration path ``triton``: a Compiler over a vendor's own Triton compiler."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchport.errors import UnsupportedOperation
from torchport.listing import Listing
from torchport.pipeline import Pass
from torchport.plugin import Binary, Resources

__all__ = ["TritonCompiler", "compile_anywhere"]


def _unknown(stages: Mapping[str, Any]) -> Resources:
    return Resources()


def _no_passes() -> Sequence[Pass]:
    return ()


def compile_anywhere(source: Any, target: Any, options: Mapping[str, Any]) -> Any:
    """``triton.compile`` also where Triton's cache cannot be written, lacks files, or holds another kernel's object."""
    import triton
    from triton import knobs

    compile_ = functools.partial(triton.compile, source, target=target, options=dict(options))
    try:
        if knobs.cache.dir.startswith("~"):  # there is no home folder
            raise OSError("Triton's cache has no place")
        compiled = compile_()
    except (OSError, KeyError):  # KeyError: a file of an entry was removed, as programs that tidy /tmp do
        with tempfile.TemporaryDirectory() as folder, knobs.cache.scope():
            knobs.cache.dir = folder
            return compile_()
    expected = getattr(compiled.metadata, "tp_object", None)  # a digest, from compilers that note one
    if expected is None or expected == hashlib.sha256(compiled.kernel).hexdigest():
        return compiled
    with knobs.compilation.scope():
        knobs.compilation.always_compile = True
        return compile_()


def _no_listing(ttir: str, stage: str, arithmetic: str = "") -> Listing:
    raise UnsupportedOperation("tt.func", "only the CPU target shows what it makes of a kernel")


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
    listing: as of ``torchport.listing.Lists``; raises UnsupportedOperation where torchport has no passes.
    """

    triton: str
    backend: str
    architecture: str | int
    simd_width: int
    key: Callable[[], str]
    resources: Callable[[Mapping[str, Any]], Resources] = _unknown
    pipeline: Callable[[], Sequence[Pass]] = _no_passes
    listing: Callable[..., Listing] = _no_listing

    def fingerprint(self) -> str:
        """A string that changes whenever the machine code may."""
        return self.key()

    def compile(self, source: Any, options: Mapping[str, Any]) -> Binary:
        """Compile a ``triton.compiler.ASTSource``. Raises what Triton and the vendor's compiler raise."""
        from torchport.triton.compat import GPUTarget

        target = GPUTarget(self.backend, self.architecture, self.simd_width)
        compiled = compile_anywhere(source, target, options)
        data = bytes(compiled.kernel)
        kind = next(name for name, image in compiled.asm.items() if image is compiled.kernel)
        metadata = json.loads(json.dumps(compiled.metadata._asdict(), default=vars))
        return Binary(data, kind, compiled.metadata.name, self.resources(compiled.asm), metadata)

    def passes(self) -> Sequence[Pass]:
        """torchport's passes in the target's compiler."""
        return self.pipeline()

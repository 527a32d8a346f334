"""The compiler that a plugin for a C-like kernel language returns."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from torchport.capabilities import Capabilities
from torchport.config import config
from torchport.container import pack, unpack
from torchport.errors import UnsupportedOperation
from torchport.pipeline import Pass, Pipeline
from torchport.plugin import Binary, Resources
from torchport.target import Target
from torchport_simt.spelling import Spelling

__all__ = ["SIMTCompiler", "lower"]

_SHAPE = re.compile(r"tensor<((?:\d+x)+)")
_KERNEL = re.compile(r"tt\.func public @([\w.$]+)")


@dataclass(frozen=True)
class SIMTCompiler:
    """Satisfies ``torchport.plugin.Compiler`` for a target with a C-like kernel language.

    target: the target.
    spelling: its language.
    capabilities: decide how many lanes a kernel gets and what is refused.
    version: changes with anything else that the running code depends on, such as device and driver.
    """

    target: Target
    spelling: Spelling
    capabilities: Capabilities
    version: str = ""

    @property
    def triton(self) -> str:
        """Its name among Triton's backends."""
        return "torchport"

    def fingerprint(self) -> str:
        """A hash of the target, its language and limits, torchport's passes and Triton."""
        return _fingerprint(self)

    def compile(self, source: Any, options: Mapping[str, Any]) -> Binary:
        """Write a kernel in the target's language. docs/plugins.md describes the Binary.

        Raises UnsupportedOperation for what cannot be lowered or what the target cannot compute, and Triton's own
        errors.
        """
        import triton
        from triton.backends.compiler import GPUTarget

        target = GPUTarget("torchport", str(self.target), 1)
        compiled = triton.compile(source, target=target, options=dict(options))
        return binary_of(compiled.kernel)

    def passes(self) -> Sequence[Pass]:
        """The passes for the largest work-group."""
        from torchport_simt.pipeline import passes

        able = self.capabilities
        return passes(able.simd_width * able.simd_groups[-1], able.scratchpad_bytes)


def binary_of(packed: bytes) -> Binary:
    """The Binary that ``lower`` packed."""
    about, data = unpack(packed)
    resources = Resources(scratchpad_bytes=about.pop("scratchpad"))
    return Binary(data, about.pop("format"), about.pop("symbol"), resources, about)


def lower(ttir: str, compiler: SIMTCompiler) -> bytes:
    """Lower TTIR text to a container with the kernel's source and what its launcher needs.

    Raises UnsupportedOperation, naming the kernel.
    """
    from torchport_passes.frontend.importer import import_ttir
    from torchport_passes.ir.dialects.verify import verify

    from torchport_simt.emit import emit
    from torchport_simt.pipeline import passes

    found = _KERNEL.search(ttir)
    name = found[1] if found else "?"
    able = compiler.capabilities
    lanes = able.simd_width * able.groups_for(_largest(ttir))
    try:
        module = import_ttir(ttir, keep_barriers=True)
        chosen = passes(lanes, able.scratchpad_bytes, double="fp64" in able.dtypes)
        pipeline = Pipeline(chosen, check=verify if config().verifies else None)
        pipeline.run(module, kernel=name, source=ttir, folder=config().dumps_to)
        source = emit(module, compiler.spelling)
        _check(source, able, compiler.target)
    except UnsupportedOperation as error:
        if error.kernel is not None:
            raise
        raise UnsupportedOperation(error.operation, error.reason, kernel=name, location=error.location) from error
    about = {
        "format": compiler.spelling.extension, "symbol": source.name, "name": name, "lanes": lanes,
        "access": source.access, "sites": source.sites, "features": sorted(source.features),
        "scratchpad": source.scratchpad,
    }  # fmt: skip
    return pack(about, source.text.encode())


def _largest(ttir: str) -> int:
    """Elements of the largest tensor in a kernel."""
    shapes = {match[1] for match in _SHAPE.finditer(ttir)}
    return max((prod(map(int, shape.rstrip("x").split("x"))) for shape in shapes), default=1)


def _check(source: Any, able: Capabilities, target: Target) -> None:
    """Refuse what the target lacks, before its compiler fails with a less clear message."""
    if source.scratchpad > able.scratchpad_bytes > 0:
        raise UnsupportedOperation(
            "scratchpad", f"it takes {source.scratchpad} bytes, target {target} has {able.scratchpad_bytes}"
        )
    if "fp64" in source.features and "fp64" not in able.dtypes:
        raise UnsupportedOperation("fp64", f"target {target} has no 64-bit floats; compute in fp32")
    if "int64_atomics" in source.features and "int64" not in able.atomics:
        raise UnsupportedOperation("tt.atomic_rmw", f"target {target} has no 64-bit atomics")


@functools.cache
def _sources() -> str:
    """Hash of the code that writes kernels."""
    import torchport_passes

    digest = hashlib.sha256()
    for package in (Path(torchport_passes.__file__).parent, Path(__file__).parent):
        for path in sorted(package.rglob("*.[ph]*")):
            if path.suffix in (".py", ".h"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


_known: dict[int, tuple[SIMTCompiler, str]] = {}


def _fingerprint(compiler: SIMTCompiler) -> str:
    found = _known.get(id(compiler))
    if found is None or found[0] is not compiler:
        import triton

        limits = json.dumps(compiler.capabilities.as_json(), sort_keys=True)
        spelled = f"{compiler.spelling.preamble}\0{sorted(compiler.spelling.functions.items())}"
        parts = (str(compiler.target), spelled, limits, compiler.version, _sources(), triton.__version__)
        found = _known[id(compiler)] = compiler, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    return found[1]

"""The compiler that a plugin for a C-like kernel language returns."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchport.capabilities import Capabilities
from torchport.config import config
from torchport.container import pack, unpack
from torchport.errors import UnsupportedOperation
from torchport.pipeline import Pass, Pipeline
from torchport.plugin import Binary, Resources
from torchport.target import Target
from torchport_simt.spelling import Spelling

if TYPE_CHECKING:
    from torchport.listing import Listing
    from torchport_simt.emitter import Source

__all__ = ["SIMTCompiler", "lower", "lowered"]

_SHAPE = re.compile(r"tensor<((?:\d+x)+)")
_MOST_VECTORS = 64
_MOST_LINES = 2500
"""Lines of a kernel with vectors, beyond which drivers take minutes to compile it; work-items need fewer.

Kernels with products, most of which is in loops, have twice as many vectors and 2.5 times as many lines: PoCL compiles
6,000 of attention's in 7 s."""
_MOST_LINES_OF_FEW = 5500
"""Lines of a kernel whose lanes have more elements each than ``capabilities.lane_elements``, which is faster; with more
lanes it has fewer."""
_MOVING = frozenset({"join-accesses", "order-chains"})
"""Passes that change how memory is accessed, and when, but nothing that is computed."""
_PRODUCT = re.compile(r"\btt\.dot\b.*-> tensor<((?:\d+x)+)")
_APART = re.compile(r"\btt\.(?:scan|assert|print|histogram)\b")
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

    def lower(self, ttir: str, located: str) -> bytes:
        """What the stage of Triton's backend ``torchport`` returns; ``located``: the TTIR with locations."""
        return lower(ttir, self, located)

    def listing(self, ttir: str, stage: str, arithmetic: str = "") -> Listing:
        """As ``torchport.listing.Lists.listing``: ``vectors`` is the code of one lane, as the lowering leaves it."""
        from torchport_simt.listed import listing

        if arithmetic:
            raise UnsupportedOperation("arithmetic", f"target {self.target} emulates no other chip")
        fused = self.capabilities.fma
        if stage == "tensors":
            return listing(ttir, [], fused=fused)
        _, passes, lanes = lowered(ttir, "?", self)
        computing = [one for one in passes if one.name not in _MOVING]
        return listing(ttir, computing, lanes, fused=fused)

    @property
    def joins_lanes(self) -> bool:
        """Whether kernels are written for one lane that computes with vectors, where they allow it."""
        return self.capabilities.vector_lanes and bool(self.spelling.vectors)

    def passes(self) -> Sequence[Pass]:
        """The passes for a lane that computes with vectors, if the target has them, or for the largest work-group."""
        from torchport_simt.pipeline import passes

        limits = self.capabilities
        if self.joins_lanes:
            registers = limits.simd_registers
            return passes(limits.simd_width, limits.scratchpad_bytes, vector=True, registers=registers)
        lanes = limits.simd_width * limits.simd_groups[-1]
        word, unit = self.spelling.word, self.spelling.unit
        return passes(lanes, limits.scratchpad_bytes, word=word, fused=limits.fma, unit=unit)


def binary_of(packed: bytes) -> Binary:
    """The Binary that ``lower`` packed."""
    metadata, data = unpack(packed)
    resources = Resources(scratchpad_bytes=metadata.pop("scratchpad"))
    return Binary(data, metadata.pop("format"), metadata.pop("symbol"), resources, metadata)


def lower(ttir: str, compiler: SIMTCompiler, located: str = "") -> bytes:
    """Lower TTIR text to a container with the kernel's source and what its launcher needs.

    Raises UnsupportedOperation, naming the kernel and, if ``located`` is the TTIR with locations, the user's line.
    """
    from torchport_passes.frontend.refusals import naming_the_line

    match = _KERNEL.search(ttir)
    name = match[1] if match else "?"
    with naming_the_line(ttir, lambda: located, barriers=True):
        source, _, lanes = lowered(ttir, name, compiler)
    metadata = {
        "format": compiler.spelling.extension, "symbol": source.name, "name": name,
        "lanes": 1 if source.width else lanes, "width": source.width, "access": source.access, "sites": source.sites,
        "features": sorted(source.features), "scratchpad": source.scratchpad,
    }  # fmt: skip
    return pack(metadata, source.text.encode())


def lowered(ttir: str, name: str, compiler: SIMTCompiler) -> tuple[Source, list[Pass], int]:
    """A kernel's source, the passes that made it, and for how many lanes.

    With vectors, where the target has them and the kernel allows it, one lane does the work of all of them.
    """
    from torchport_simt.pipeline import passes
    from torchport_simt.vectors.join_lanes import LanesPart

    limits = compiler.capabilities
    scratchpad, double = limits.scratchpad_bytes, "fp64" in limits.dtypes
    if compiler.joins_lanes and _may_join(ttir, limits.simd_width):
        try:
            registers = limits.simd_registers
            chosen = passes(limits.simd_width, scratchpad, double=double, vector=True, registers=registers)
            source = _run(ttir, name, compiler, chosen)
        except LanesPart:
            pass  # a work-group of many lanes is no worse for a kernel that branches
        else:
            if source.text.count("\n") <= _MOST_LINES * (2.5 if _has_products(ttir) else 1):
                return source, chosen, limits.simd_width
    word, unit = compiler.spelling.word, compiler.spelling.unit
    most = limits.groups_for(_largest(ttir))
    groups = min(most, limits.groups_for(_elements(ttir))) if unit > 1 else most
    while True:
        lanes = limits.simd_width * groups
        chosen = passes(lanes, scratchpad, double=double, word=word, fused=limits.fma, unit=unit)
        source = _run(ttir, name, compiler, chosen)
        lines = source.text.count("\n")
        if groups == most or lines <= _MOST_LINES_OF_FEW:
            return source, chosen, lanes
        wanted = groups << (lines // _MOST_LINES_OF_FEW).bit_length()
        groups = max(one for one in limits.simd_groups if one <= min(most, wanted))


def _run(ttir: str, name: str, compiler: SIMTCompiler, chosen: list[Pass]) -> Source:
    from torchport_passes.frontend.importer import import_ttir
    from torchport_passes.ir.dialects.verify import verify

    from torchport_simt.emit import emit

    module = import_ttir(ttir, keep_barriers=True)
    pipeline = Pipeline(chosen, check=verify if config().verifies else None)
    pipeline.run(module, kernel=name, source=ttir, folder=config().dumps_to)
    source: Source = (compiler.spelling.emitter or emit)(module, compiler.spelling)
    _check(source, compiler.capabilities, compiler.target)
    return source


def _may_join(ttir: str, lanes: int) -> bool:
    """Whether one lane may do the work of ``lanes`` of them in a kernel, with vectors.

    Not if a tensor takes very many vectors, and not for operations whose code differs between lanes.
    """
    most = lanes * _MOST_VECTORS * (2 if _has_products(ttir) else 1)
    return _largest(ttir) <= most and not _APART.search(ttir)


def _has_products(ttir: str) -> bool:
    return "tt.dot " in ttir


def _elements(ttir: str) -> int:
    """How many elements a kernel is shared out by, where lanes have neighbours.

    Of a product, each lane has a tile with four times as many elements: the larger it is, the fewer loads it needs. Of
    a reduction it has eight times as many, as lanes wait for each other to combine what they have.
    """
    results = [prod(map(int, match[1].rstrip("x").split("x"))) for match in _PRODUCT.finditer(ttir)]
    if not results:
        return _largest(ttir) // (8 if "tt.reduce" in ttir else 1)
    return max(max(results) // 4, _largest(ttir) // 16)


def _largest(ttir: str) -> int:
    """Elements of the largest tensor in a kernel."""
    shapes = {match[1] for match in _SHAPE.finditer(ttir)}
    return max((prod(map(int, shape.rstrip("x").split("x"))) for shape in shapes), default=1)


def _check(source: Source, limits: Capabilities, target: Target) -> None:
    """Refuse what the target lacks, before its compiler fails with a less clear message."""
    if source.scratchpad > limits.scratchpad_bytes > 0:
        raise UnsupportedOperation(
            "scratchpad", f"it takes {source.scratchpad} bytes, target {target} has {limits.scratchpad_bytes}"
        )
    if "fp64" not in limits.dtypes:
        for function in sorted(one.removesuffix(" in fp64") for one in source.features if one.endswith(" in fp64")):
            raise UnsupportedOperation(function, f"it is computed in 64-bit floats, which target {target} has not")
        if "fp64" in source.features:
            raise UnsupportedOperation("fp64", f"target {target} has no 64-bit floats; compute in fp32")
    if "int64_atomics" in source.features and "int64" not in limits.atomics:
        raise UnsupportedOperation("tt.atomic_rmw", f"target {target} has no 64-bit atomics")


@functools.cache
def _sources() -> str:
    """Hash of the code that writes kernels."""
    import torchport_passes

    digest = hashlib.sha256()
    for package in (Path(torchport_passes.__file__).parent, Path(__file__).parent):
        for path in sorted(package.rglob("*")):
            if path.suffix in (".py", ".h", ".wgsl"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


_fingerprints: dict[int, tuple[SIMTCompiler, str]] = {}  # by id, as a compiler's mappings cannot be hashed


def _fingerprint(compiler: SIMTCompiler) -> str:
    entry = _fingerprints.get(id(compiler))
    if entry is None or entry[0] is not compiler:
        limits = json.dumps(compiler.capabilities.as_json(), sort_keys=True)
        spelling = (
            f"{compiler.spelling.preamble}\0{compiler.spelling.vectors}\0{sorted(compiler.spelling.functions.items())}"
        )
        parts = (str(compiler.target), spelling, limits, compiler.version, _sources(), version("triton"))
        entry = _fingerprints[id(compiler)] = compiler, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    return entry[1]

"""The stages of one compilation that follow Triton's own, with the object cache between them."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchport_passes.frontend.locations import argument_names, memory_locations, with_assertion_lines
from torchport_passes.frontend.refusals import naming_the_line

from torchport.config import DUMP_LEVEL, config
from torchport.container import unpack
from torchport.errors import CompilationError
from torchport.phases import Phase, phase
from torchport.pipeline import StageTime
from torchport.runtime.cache import object_cache
from torchport_cpu.fingerprint import fingerprint
from torchport_cpu.host import host_info
from torchport_cpu.objects import open_object, pack_object
from torchport_cpu.options import CPUOptions

if TYPE_CHECKING:
    from torchport_cpu.lower import Lowered

__all__ = ["Compilation"]

_METADATA = ("name", "tp_signature", "tp_cost", "tp_serial", "tp_written", "tp_sanitizer")


@dataclass
class Compilation:
    """The compilation of one kernel from TTIR to an object. Triton calls the stages in order; they share this state."""

    options: CPUOptions
    _key: str = ""
    _cached: bytes | None = None
    _facts: dict[str, Any] = field(default_factory=dict)
    _produced: str = ""
    _text: str = ""
    _times: Sequence[StageTime] = ()
    _passes: int = 0

    def llir(self, module: Any, metadata: dict[str, Any]) -> str:
        """Lower TTIR to LLVM IR text. If the object is in the cache, nothing is lowered; the text is a comment."""
        # Without locations: the same kernel from another file is the same kernel.
        text = module.str_nodebug()
        if "tt.assert" in text:
            text = with_assertion_lines(text, str(module))
        self._text = text
        located = (
            str(module) if self.options.sanitize and not self.options.confined else ""
        )  # the sanitizer's findings name lines
        key = "\0".join((fingerprint(), self.options.hash(), text, located))
        self._key = hashlib.sha256(key.encode()).hexdigest()
        self._cached = _fitting(object_cache().get(self._key))
        metadata["shared"] = 1  # bytes of shared memory: none, but authors of kernels divide by it
        if self._cached is not None:
            stored, _ = unpack(self._cached)
            self._facts = {name: stored[name] for name in _METADATA}
            metadata.update(self._facts)
            self._produced = f"; kernel {stored['name']} was found in torchport's object cache: {self._key}\n"
            return self._produced

        from torchport_cpu.lower import lower_ttir

        self._dump("ttir", text, DUMP_LEVEL)
        observer = self._dump_pass if config().debug >= 4 else None
        arithmetic = self.options.arithmetic
        options = self.options
        named = naming_the_line(text, lambda: str(module))
        with phase(Phase.PASSES, "import and translation"), named:
            lowered = lower_ttir(
                text,
                host_info(),
                observer,
                sanitize=options.sanitize,
                confined=options.confined,
                arithmetic=arithmetic,
                large=options.large,
                bf16_pairs=options.bf16_pairs,
                fused=options.enable_fp_fusion,
            )
        self._facts = {
            "name": lowered.name,
            "tp_signature": list(lowered.signature),
            "tp_cost": float(lowered.cost),
            "tp_serial": bool(lowered.serial),
            "tp_written": lowered.written,
            "tp_sanitizer": self._sanitizer_info(lowered, located),
        }
        self._times = lowered.times
        metadata.update(self._facts)
        self._produced = lowered.llvm_ir
        return self._produced

    def obj(self, llvm_ir: str, metadata: dict[str, Any]) -> bytes:
        """Compile LLVM IR to an object, packed in a container (``torchport.container``)."""
        own = llvm_ir == self._produced  # false if Triton's IR override replaced the text
        if own and self._cached is not None:
            metadata["tp_object"] = hashlib.sha256(self._cached).hexdigest()
            return self._cached
        from torchport_cpu import codegen

        self._dump("ll", llvm_ir, DUMP_LEVEL)
        if config().debug >= 5:
            self._dump("s", codegen.emit_assembly(llvm_ir, host_info()), 5)
        start = time.perf_counter()
        with phase(Phase.LLVM, str(metadata["name"])):
            image, imports = codegen.emit_object(llvm_ir, host_info())
        if config().debug >= 2:
            stages = (*self._times, StageTime("LLVM", time.perf_counter() - start))
            spent = ", ".join(f"{stage.name} {stage.seconds * 1e3:.1f}" for stage in stages)
            print(f"torchport: kernel {metadata['name']}: stages in ms: {spent}", file=sys.stderr, flush=True)
        packed = pack_object({**self._facts, "name": metadata["name"]}, image, imports)
        metadata["tp_object"] = hashlib.sha256(packed).hexdigest()
        if own and config().debug < DUMP_LEVEL:  # with dumps, keys are valid only in this process (see fingerprint)
            object_cache().put(self._key, packed)
        return packed

    def _sanitizer_info(self, lowered: Lowered, located: str) -> dict[str, Any] | None:
        """Facts for the launcher of a kernel with checks (``torchport.runtime.sanitizer.launch``), for JSON.

        A confined kernel has no lines: its TTIR's are those of the file that it was read from.
        """
        names, frames = argument_names(located), memory_locations(located)
        if self.options.confined:
            names, frames = [f"argument {i}" for i in range(len(lowered.signature))], [[] for _ in lowered.sites]
        elif not self.options.sanitize:
            return None
        return {
            "arguments": names,
            "always": ["address"] if self.options.confined else [],
            "sites": [
                {"access": site.access, "bytes": site.bytes, "roots": site.roots, "frames": lines}
                for site, lines in zip(lowered.sites, frames, strict=True)
            ],
        }

    def _dump_pass(self, name: str, module: Any) -> None:
        self._dump(f"{self._passes:02}-{name}.mlir", str(module), 4)
        self._passes += 1

    def _dump(self, extension: str, text: str, level: int) -> None:
        """Write one stage's text to the dump folder; files of one kernel have the same stem."""
        if config().debug >= level:
            folder = config().dump_dir
            folder.mkdir(parents=True, exist_ok=True)
            name = re.search(r"tt\.func public @(\w+)", self._text)
            (folder / f"{name[1] if name else 'kernel'}.{self._key[:8]}.{extension}").write_text(text)


def _fitting(packed: bytes | None) -> bytes | None:
    """``packed`` if this process can run it: another CPU's object, under this one's key, is none."""
    try:
        return packed if packed is None or open_object(packed) else None
    except CompilationError:
        return None

"""The compiler of targets ``linalg``: what it returns is text."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torchport.capabilities import Capabilities
from torchport.container import pack, unpack
from torchport.pipeline import Pass
from torchport.plugin import Binary, Resources
from torchport.target import Target
from torchport_linalg.profiles import Profile

__all__ = ["LinalgCompiler"]


@dataclass(frozen=True)
class LinalgCompiler:
    """Satisfies ``torchport.plugin.Compiler`` for a compiler that takes linalg.

    target: the target. profile: the convention of its text. capabilities: the limits of its frontend.
    """

    target: Target
    profile: Profile
    capabilities: Capabilities

    @property
    def triton(self) -> str:
        """Its name among Triton's backends."""
        return "torchport"

    def fingerprint(self) -> str:
        """A hash of the target, the code that writes and Triton."""
        return _fingerprint(str(self.target), repr(self.profile))

    def compile(self, source: Any, options: Mapping[str, Any]) -> Binary:
        """Write a kernel as linalg; the Binary's data is the text of a module.

        Raises UnsupportedOperation for what has no form in it, and Triton's own errors.
        """
        import triton
        from triton.backends.compiler import GPUTarget

        compiled = triton.compile(source, target=GPUTarget("torchport", str(self.target), 1), options=dict(options))
        metadata, data = unpack(compiled.kernel)
        metadata.pop("scratchpad")
        return Binary(data, metadata.pop("format"), metadata.pop("symbol"), Resources(), metadata)

    def lower(self, ttir: str, located: str) -> bytes:
        """TTIR as a container of the exported text; ``located``: the TTIR with locations, for messages."""
        from torchport_passes.frontend.refusals import naming_the_line

        from torchport_linalg.export import export

        with naming_the_line(ttir, lambda: located):
            exported = export(ttir, self.profile)
        accesses = [[op, reason, count] for (op, reason), count in sorted(exported.accesses.items())]
        metadata = {
            "format": "mlir", "symbol": exported.name, "name": exported.name, "scratchpad": 0,
            "arguments": [[a.element, a.pointer] for a in exported.arguments], "accesses": accesses,
            "externals": list(exported.externals), "profile": self.profile.name,
        }  # fmt: skip
        return pack(metadata, exported.text.encode())

    def passes(self) -> Sequence[Pass]:
        """None: the text is written at once."""
        return ()


@functools.cache
def _fingerprint(target: str, profile: str) -> str:
    import torchport_passes

    digest = hashlib.sha256("\0".join((target, profile, version("triton"))).encode())
    frontend = Path(torchport_passes.__file__).parent / "frontend"
    for folder in (Path(__file__).parent, frontend):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]

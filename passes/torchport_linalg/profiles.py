"""Conventions of compilers that take linalg, as data ([docs/linalg.md](../../docs/linalg.md))."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torchport.errors import TargetError

__all__ = ["PROFILES", "Profile", "profile"]


@dataclass(frozen=True)
class Profile:
    """What one compiler expects.

    name: the part after ``linalg:`` of its target; empty for upstream MLIR.
    about: whose convention it is, in words.
    llvm: the version of LLVM whose text is written.
    unranked: whether buffers are ``memref<*xT>`` in place of ``memref<?xT>``.
    leading: arguments ``memref<?xi8>`` before the kernel's.
    argument: attributes of buffer arguments; ``{kind}`` is 0 where the kernel reads, 1 where it writes.
    function: attributes of the function; ``{mix}`` is aiv, or mix where the kernel has matrix products.
    cascade: how many floats are added up before the sums are; running sums of f32 are kept in f64 then. 0: neither.
    """

    name: str
    about: str
    llvm: int = 22
    unranked: bool = False
    leading: int = 0
    argument: str = ""
    function: str = ""
    cascade: int = 0

    def buffer(self, element: str) -> str:
        """The type of a buffer of the kernel."""
        return f"memref<{'*' if self.unranked else '?'}x{element}>"

    def to_tensor(self, name: str, buffer: str, tensor: str) -> str:
        """``bufferization.to_tensor`` of a local buffer that nobody else sees or writes."""
        into = f" to {tensor}" if self.llvm >= 21 else ""
        return f"bufferization.to_tensor {name} restrict writable : {buffer}{into}"


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "": Profile("", "upstream MLIR, LLVM 22", cascade=64),
        "ascend": Profile(
            "ascend",
            "triton-ascend 3.2, LLVM 20",
            llvm=20,
            leading=2,
            argument="tt.tensor_kind = {kind} : i32",
            function='WorkspaceArgIdx = 1 : i64, global_kernel = "local", mix_mode = "{mix}", parallel_mode = "simd"',
        ),
        "shared": Profile("shared", "triton-shared and hexagon-mlir, unranked buffers", unranked=True),
    }
)
"""Profiles by the name after ``linalg:``."""


def profile(name: str) -> Profile:
    """A profile by name. Raises TargetError, listing what is valid."""
    if name not in PROFILES:
        known = ", ".join(f"linalg:{name}" if name else "linalg" for name in PROFILES)
        raise TargetError(f"target linalg:{name} is not known; valid: {known}")
    return PROFILES[name]

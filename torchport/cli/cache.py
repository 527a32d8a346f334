"""``torchport cache``: the folder of compiled kernels."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from torchport.runtime.cache import CacheInfo, object_cache

__all__ = ["clear", "export", "import_", "info", "state"]


def state() -> tuple[CacheInfo, str]:
    """The cache's state, and its warning if it cannot use its folder (else empty)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        info = object_cache().info()
    return info, " ".join(str(warning.message) for warning in caught)


def info() -> None:
    """Print the cache's folder, its size and the number of kernels."""
    cache, problem = state()
    print(f"folder    {cache.directory or 'none'}")
    print(f"kernels   {cache.entries}")
    print(f"size      {cache.size / 2**20:.1f} of {cache.limit / 2**20:.0f} MiB")
    print(f"writable  {'yes' if cache.writable else 'no'}")
    if problem:
        print(f"warning: {problem}", file=sys.stderr)


def clear() -> None:
    """Delete every compiled kernel. Inductor's and Triton's own caches stay."""
    cache = object_cache()
    print(f"removed {cache.clear()} files from {cache.directory or 'memory'}")


def export(file: Path) -> None:
    """Write the caches to one file. Raises OSError."""
    from torchport.runtime.cache_archive import export_caches  # imports PyTorch

    moved = export_caches(file, object_cache())
    print(f"wrote {moved.kernels} kernels and {moved.graphs} files of graphs, {moved.bytes / 2**20:.1f} MiB, to {file}")


def import_(file: Path, *, trust: bool) -> None:
    """Store what a file holds in the caches. Raises ArtifactError or OSError."""
    from torchport.runtime.cache_archive import import_caches  # imports PyTorch

    moved = import_caches(file, object_cache(), trust=trust)
    print(f"stored {moved.kernels} kernels and {moved.graphs} files of graphs, {moved.bytes / 2**20:.1f} MiB")
    if moved.left:
        print(f"left out {moved.left} files of graphs: they are pickles, and --trust takes them", file=sys.stderr)

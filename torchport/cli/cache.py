"""``torchport cache``: the folder of compiled kernels."""

from __future__ import annotations

import sys
import warnings

from torchport.runtime.cache import CacheInfo, object_cache

__all__ = ["clear", "info", "state"]


def state() -> tuple[CacheInfo, str]:
    """The cache's state, and its warning if it cannot use its folder (else empty)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = object_cache().info()
    return found, " ".join(str(warning.message) for warning in caught)


def info() -> None:
    """Print where the cache is and what it holds."""
    found, problem = state()
    print(f"folder    {found.directory}")
    print(f"kernels   {found.entries}")
    print(f"size      {found.size / 2**20:.1f} of {found.limit / 2**20:.0f} MiB")
    print(f"writable  {'yes' if found.writable else 'no'}")
    if problem:
        print(f"warning: {problem}", file=sys.stderr)


def clear() -> None:
    """Delete every compiled kernel. Inductor's and Triton's own caches are left alone."""
    cache = object_cache()
    print(f"removed {cache.clear()} files from {cache.directory}")

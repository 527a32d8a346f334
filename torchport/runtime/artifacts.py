"""Kernels among the artifacts of ``torch.compiler.save_cache_artifacts``: a job takes them along with stock tools."""

from __future__ import annotations

import functools

from torchport.compat import CacheArtifact, CacheArtifactFactory, CacheArtifactManager

__all__ = ["TYPE", "record", "register"]

TYPE = "torchport_kernel"


@functools.cache
def register() -> None:
    """Let torch read kernels among artifacts. Without it, a process refuses artifacts that have some."""

    class KernelArtifact(CacheArtifact):  # type: ignore[misc]
        """A compiled kernel, under its key in the object cache."""

        def populate_cache(self) -> None:
            from torchport.runtime.cache import object_cache

            object_cache().put(self.key, self.content)

        @staticmethod
        def type() -> str:
            return TYPE

    CacheArtifactFactory.register(KernelArtifact)


def record(key: str, packed: bytes) -> None:
    """Add a kernel that this process uses to the artifacts. It is kept once."""
    register()
    CacheArtifactManager.record_artifact(TYPE, key, packed)

"""Runs user-defined Triton kernels on a chosen target: ``with torchport.use("opencl"): kernel[grid](...)``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["use"]


@contextmanager
def use(target: str | Target) -> Iterator[Target]:
    """Launch Triton kernels on ``target`` while the context is open, in all threads: Triton has one active driver.

    A kernel is compiled once per target. Its tensors are on the target's torch device; for devices with their own
    memory these are CPU tensors, complete when a launch returns. Raises TargetError for a target that is unknown or
    does not run here.
    """
    parsed = Target.parse(target)
    backend_for(parsed).driver(parsed)  # raises first: a target that cannot run here says so
    compiler = backend_for(parsed).compiler(parsed)

    from torchport.triton.compat import backends, driver

    name = compiler.triton
    kind = backends[name].driver
    before = driver.active
    driver.set_active(kind(parsed) if name == "torchport" else kind())
    try:
        yield parsed
    finally:
        driver.set_active(before)

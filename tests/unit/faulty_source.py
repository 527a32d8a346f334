"""Kernels of Inductor whose source has a fault: the generated text with some of it replaced."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.codegen.triton import TritonKernel

import torchport
from torchport.numerics.runs.reader import Run

__all__ = ["faulty_source", "run_of"]


@contextmanager
def faulty_source(folder: Path, old: str, new: str) -> Iterator[None]:
    """Have Inductor generate kernels in which the regular expression ``old`` is replaced by ``new``.

    What is compiled so is in no cache. Fails if nothing was replaced.
    """
    changed = []
    generate = TritonKernel.codegen_kernel

    def wrong(self: Any, name: str | None = None) -> str:
        text = generate(self, name)
        other = re.sub(old, new, text)
        changed.append(other != text)
        return other

    with pytest.MonkeyPatch.context() as patch, torch._inductor.config.patch(force_disable_caches=True):
        patch.setenv("TORCHPORT_CACHE_DIR", str(folder))
        patch.setattr(TritonKernel, "codegen_kernel", wrong)
        torch._dynamo.reset()
        yield
    torch._dynamo.reset()
    assert any(changed), f"no kernel has {old!r}"


def run_of(
    folder: Path,
    call: Callable[..., Any],
    given: Sequence[torch.Tensor],
    fault: tuple[str, str] | None = None,
    **options: Any,
) -> Run:
    """One call, compiled by torchport and recorded in full; with ``fault``, its kernels' source is changed so."""
    torch._dynamo.reset()
    compiled = torch.compile(call, backend="torchport", dynamic=False, options=options)

    def record() -> Run:
        with torch.no_grad(), torchport.record(folder, "full"):
            compiled(*given)
        return Run.load(folder)

    if fault is None:
        return record()
    with faulty_source(folder.parent / f"{folder.name}-cache", *fault):
        return record()

"""The attention kernels with faults: their source with some text replaced."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import torchport.ops.attention.sdpa  # noqa: F401  it defines an operator
from torchport.ops.attention import gradients, launches, paged_plan, piecewise

MODULES = ("blocks", "forward", "backward", "piecewise_kernels", "paged_kernels", "paged_heads")
Changes = Mapping[str, tuple[str, str]]


@contextmanager
def faulty(folder: Path, changes: Changes) -> Iterator[None]:
    """Have attention run kernels whose source is changed: by module, (text, what is there in its place).

    Compiled kernels are not shared with others: their files, and so their digests, are in ``folder``. Nor are graphs,
    which Inductor's caches find by the names of operators.
    """
    package = f"faulty_{folder.name}"
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text("")
    for name in MODULES:
        source = Path(importlib.import_module(f"torchport.ops.attention.{name}").__file__ or "").read_text()
        old, new = changes.get(name, ("", ""))
        assert old in source, f"{name} has no {old!r}"
        if old:
            source = source.replace(old, new)
        for other in MODULES:
            source = source.replace(f"torchport.ops.attention.{other} ", f"{package}.{other} ")
        (folder / package / f"{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch, torch._inductor.config.patch(force_disable_caches=True):
        patch.syspath_prepend(folder)
        patch.setenv("TORCHPORT_CACHE_DIR", str(folder / "cache"))
        made = {name: importlib.import_module(f"{package}.{name}") for name in MODULES}
        patch.setattr(launches, "forward", made["forward"])
        patch.setattr(launches, "backward", made["backward"])
        patch.setattr(gradients, "delta", made["backward"].delta)
        for name in ("piecewise_forward", "piecewise_columns", "piecewise_rows"):
            patch.setattr(piecewise, name, getattr(made["piecewise_kernels"], name))
        patch.setattr(paged_plan, "split", made["paged_kernels"].split)
        patch.setattr(paged_plan, "combine", made["paged_kernels"].combine)
        patch.setattr(paged_plan, "split_heads", made["paged_heads"].split_heads)
        torch._dynamo.reset()
        yield
    torch._dynamo.reset()
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]

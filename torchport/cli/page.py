"""``torchport build --web``: a page that runs a model in a browser."""

from __future__ import annotations

from pathlib import Path

from torchport.cli.model import load_model
from torchport.errors import OptionError
from torchport.offline.report import size
from torchport.plugin import page_writer
from torchport.target import Target

__all__ = ["page"]


def page(model: str, targets: str, output: Path) -> None:
    """Write a page for ``model`` (``FILE.py:FUNCTION``) to the folder ``output``, and say how to look at it.

    ``targets``: the one target whose browser kernels it gets. Raises OptionError, TargetError, and CompilationError
    for what cannot run in a browser.
    """
    from torchport.cli.working import working

    if "," in targets:
        raise OptionError(f"--web writes one page for one target, not for {targets}: --targets webgpu")
    writer = page_writer(Target.parse(targets))
    module, inputs = load_model(model)
    with working("compiling for browsers"):
        made = writer.write_page(module, inputs, output, model.rpartition("/")[2])
    print(f"{made.path}: {made.kernels} kernels, {made.launches} launches a run, {size(made.bytes)}")
    print(f"look at it: python3 -m http.server -d {output} 8000, then http://localhost:8000/")

"""``torchport batch``: whether an example's results depend on its batch."""

from __future__ import annotations

import json
from typing import Any

from torchport.cli.model import load_model

__all__ = ["batch"]


def batch(model: str, target: str, emulated: str | None, *, as_json: bool) -> int:
    """Run ``model`` (``FILE.py:FUNCTION``) with its batch and with single examples; 1 where a bit differs."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress
    from rich.table import Table

    from torchport.precision.batch import batch_invariance

    module, inputs = load_model(model)
    options: dict[str, Any] = {"target": target} | ({"emulate": emulated} if emulated else {})
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("examples alone", total=None)
        found = batch_invariance(
            module, inputs, options, lambda done, all_: progress.update(task, completed=done, total=all_)
        )
    if as_json:
        print(json.dumps({"model": model, "options": options, "outputs": [one.as_json() for one in found]}, indent=1))
    else:
        table = Table(title=f"{escape(model)}: examples alone against the same in their batch")
        for title in ("output", "dtype", "examples", "different", "relative L2", "ULP"):
            table.add_column(title, justify="right")
        for one in found:
            size = (f"{one.relative_l2:.2e}", f"{one.ulp:.3g}") if one.different else ("0", "0")
            table.add_row(str(one.output), one.dtype, str(one.examples), str(one.different), *size)
        Console().print(table)
    return int(any(one.different for one in found))

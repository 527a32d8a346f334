"""``torchport batch``: checks whether an example's results depend on the rest of its batch."""

from __future__ import annotations

import json
from typing import Any

from torchport.cli.model import load_model

__all__ = ["batch"]


def batch(model: str, target: str, emulated: str | None, *, as_json: bool) -> int:
    """Run ``model`` (``FILE.py:FUNCTION``) on its batch and on single examples. Returns 1 if a bit differs."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from torchport.cli.working import working
    from torchport.precision.batch import batch_invariance

    module, inputs = load_model(model)
    options: dict[str, Any] = {"target": target} | ({"emulate": emulated} if emulated else {})
    with working("examples alone") as work:
        results = batch_invariance(module, inputs, options, work.at)
    if as_json:
        print(
            json.dumps(
                {"model": model, "options": options, "outputs": [result.as_json() for result in results]}, indent=1
            )
        )
    else:
        table = Table(title=f"{escape(model)}: examples alone against the same in their batch")
        for title in ("output", "dtype", "examples", "different", "relative L2", "ULP"):
            table.add_column(title, justify="right")
        for result in results:
            size = (f"{result.relative_l2:.2e}", f"{result.ulp:.3g}") if result.different else ("0", "0")
            table.add_row(str(result.output), result.dtype, str(result.examples), str(result.different), *size)
        Console().print(table)
    return int(any(result.different for result in results))

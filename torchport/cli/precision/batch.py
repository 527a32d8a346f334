"""``torchport batch``: checks whether an example's results depend on the rest of its batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torchport.cli.console import standard_output
from torchport.cli.model import load_model

if TYPE_CHECKING:
    from torchport.precision.batch_orders import KernelOrder

__all__ = ["batch"]


def batch(model: str, target: str, emulated: str | None, *, as_json: bool, orders: bool) -> int:
    """Run ``model`` (``FILE.py:FUNCTION``) on its batch and on single examples. Returns 1 if a bit differs.

    ``orders``: also compare the order of each kernel's operations.
    """
    from rich.markup import escape
    from rich.table import Table

    from torchport.cli.working import working
    from torchport.precision.batch import batch_invariance, batch_size, example_of
    from torchport.precision.batch_orders import kernel_orders

    module, inputs = load_model(model)
    options: dict[str, Any] = {"target": target} | ({"emulate": emulated} if emulated else {})
    with working("examples alone") as work:
        results = batch_invariance(module, inputs, options, work.at)
    kernels = []
    if orders and emulated is None:
        kernels = kernel_orders(module, example_of(inputs, 0), inputs, batch_size(inputs), options)
    if as_json:
        outputs = [result.as_json() for result in results]
        found = {"model": model, "options": options, "outputs": outputs, "kernels": [one.as_json() for one in kernels]}
        print(json.dumps(found, indent=1))
    else:
        table = Table(title=f"{escape(model)}: examples alone against the same in their batch")
        for title in ("output", "dtype", "examples", "different", "relative L2", "ULP"):
            table.add_column(title, justify="right")
        for result in results:
            size = (f"{result.relative_l2:.2e}", f"{result.ulp:.3g}") if result.different else ("0", "0")
            table.add_row(str(result.output), result.dtype, str(result.examples), str(result.different), *size)
        console = standard_output()
        console.print(table)
        for line in _order_lines(kernels):
            console.print(escape(line), highlight=False)
    return int(any(result.different for result in results))


def _order_lines(kernels: Sequence[KernelOrder]) -> Iterator[str]:
    """What the order of operations says of each kernel, an example alone and in its batch: for all numbers."""
    groups: dict[tuple[str, str], list[KernelOrder]] = {}
    for one in kernels:
        key = (one.verdict, "" if one.verdict == "CERTIFIED" else f"{one.reason}: ")
        groups.setdefault(key, []).append(one)
    if groups:
        yield "order of operations, an example alone and in its batch:"
    for (verdict, reason), group in groups.items():
        counts = Counter(one.name for one in group)
        names = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items())
        yield f"  {verdict:<11} {reason}{names}"

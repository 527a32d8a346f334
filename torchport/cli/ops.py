"""``torchport ops``: the operator library."""

from __future__ import annotations

import torch

from torchport.ops.registry import Operator, operators
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["list_operators", "markdown_table"]

_TITLES = ("operator", "schema", "dtypes", "gradients", "source")
_TRITON = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def list_operators(target: str = "", *, markdown: bool = False) -> None:
    """Print the operators as a table, in Markdown if asked for.

    target: show the dtypes that it has; all if empty. Raises TargetError if there is no such target.
    """
    from rich.console import Console
    from rich.table import Table

    if markdown:
        print(markdown_table())
        return
    known = None
    if target:
        parsed = Target.parse(target)
        known = backend_for(parsed).capabilities(parsed).dtypes
    table = Table(*_TITLES)
    for operator in operators():
        table.add_row(*_row(operator, known))
    Console().print(table)


def markdown_table() -> str:
    """The table of docs/operators.md."""
    lines = ["| operator | what it computes | dtypes | gradients | source |", "|---|---|---|---|---|"]
    for operator in operators():
        name, schema, dtypes, gradients, source = _row(operator, None)
        lines.append(f"| `{name}` | {operator.doc}<br>`{schema}` | {dtypes} | {gradients} | {source} |")
    return "\n".join(lines)


def _row(operator: Operator, known: frozenset[str] | None) -> tuple[str, str, str, str, str]:
    """``known``: types of the target, as Triton names them; None for any."""
    dtypes = [dtype for dtype in operator.dtypes if known is None or _TRITON[dtype] in known]
    names = " ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    gradients = ", ".join(operator.differentiable) or "none"
    return operator.name, operator.schema, names or "none", gradients, operator.source

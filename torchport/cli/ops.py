"""``torchport ops``: the operator library."""

from __future__ import annotations

from pathlib import Path

from torchport.cli.console import standard_output
from torchport.errors import OptionError
from torchport.ops.launch import ELEMENTS
from torchport.ops.registry import Operator, operators
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["list_operators", "markdown_table"]

_TITLES = ("operator", "schema", "dtypes", "gradients", "source")


def list_operators(target: str = "", certificate: Path | None = None, *, markdown: bool = False) -> None:
    """Print the operators as a table, in Markdown if asked for.

    target: show the dtypes that it has; all if empty. Raises TargetError if there is no such target.
    certificate: show each operator's grade in this file of ``torchport conformance``. Raises ArtifactError if it is
        damaged, OptionError if it is another target's.
    """
    from rich.table import Table

    if markdown:
        print(markdown_table())
        return
    known = None
    if target:
        parsed = Target.parse(target)
        known = backend_for(parsed).capabilities(parsed).dtypes
    grades = _grades(certificate, target) if certificate is not None else None
    table = Table(*_TITLES, *(("grade",) if grades is not None else ()))
    for operator in operators():
        table.add_row(*_row(operator, known), *([grades.get(operator.name, "UNTESTED")] if grades is not None else []))
    standard_output().print(table)


def _grades(path: Path, target: str) -> dict[str, str]:
    """What a certificate says of each operator: PASS, FAIL or refused, with the dtypes."""
    from torchport.conformance import verify

    content, _ = verify(path)
    if target and content["target"] != str(Target.parse(target)):
        raise OptionError(f"{path} is the certificate of {content['target']}, not of {target}")
    found: dict[str, dict[str, list[str]]] = {}
    failed = [failure["case"] for failure in content["failures"]]
    for verdict, cases in (("FAIL", failed), ("refused", content["refused"]), ("PASS", content["worst"])):
        for case in cases:
            area, name, dtype, *_ = case.split("/")
            if area == "library" and not (verdict == "PASS" and case in failed):
                found.setdefault(name, {}).setdefault(verdict, []).append(dtype)
    return {
        name: "; ".join(f"{verdict} {' '.join(dtypes)}" for verdict, dtypes in verdicts.items())
        for name, verdicts in found.items()
    }


def markdown_table() -> str:
    """The table of docs/operators.md."""
    lines = ["| operator | what it computes | dtypes | gradients | source |", "|---|---|---|---|---|"]
    for operator in operators():
        name, schema, dtypes, gradients, source = _row(operator, None)
        lines.append(f"| `{name}` | {operator.doc}<br>`{schema}` | {dtypes} | {gradients} | {source} |")
    return "\n".join(lines)


def _row(operator: Operator, known: frozenset[str] | None) -> tuple[str, str, str, str, str]:
    """``known``: types of the target, as Triton names them; None for any."""
    dtypes = [dtype for dtype in operator.dtypes if known is None or ELEMENTS[dtype] in known]
    names = " ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    gradients = ", ".join(operator.differentiable) or "none"
    return operator.name, operator.schema, names or "none", gradients, operator.source

"""Numbers that follow from sizes, inside a kernel: quotients and functions of them are computed in float64.

Inductor's printer divides integers as Triton does, in float32, and computes square roots and functions in float32. That
stays so for targets without float64.
"""

from __future__ import annotations

from typing import Any

from torchport.inductor.codegen.scans import has_float64
from torchport.inductor.compat import TritonPrinter
from torchport.inductor.upstream.corrections import applies

__all__ = ["SizePrinter"]

_NARROW, _WIDE = ".to(tl.float32))", ".to(tl.float64))"


class SizePrinter(TritonPrinter):
    """Inductor's printer of expressions of sizes, with float64 where it has float32."""

    def _print_IntTrueDiv(self, expr: Any) -> str:
        """A quotient of integers. Python's is rounded once beyond 2^53, too; this one is not."""
        if not _is_wide():
            narrow: str = super()._print_IntTrueDiv(expr)
            return narrow
        return f"({' / '.join(self._wide(part) for part in expr.args)})"

    def _wide(self, expr: Any) -> str:
        if expr.is_Integer:
            return f"tl.full([], {int(expr)}, tl.int64).to(tl.float64)"
        return f"({self._print(expr)}).to(tl.float64)"

    def _helper_sqrt(self, expr: Any) -> str:
        return _widened(super()._helper_sqrt(expr))


def _widened(text: str) -> str:
    """A call of a function of one number, printed for float32, for float64."""
    return text.removesuffix(_NARROW) + _WIDE if text.endswith(_NARROW) and _is_wide() else text


def _is_wide() -> bool:
    return applies("sizes-in-float64") and has_float64()


def _add_functions() -> None:
    """Print every function of one number that Inductor prints."""
    for name in dir(TritonPrinter):
        if name.startswith("_print_OpaqueUnaryFn_"):
            stock = getattr(TritonPrinter, name)
            setattr(SizePrinter, name, lambda self, expr, stock=stock: _widened(stock(self, expr)))


_add_functions()

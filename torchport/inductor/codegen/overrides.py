"""Triton spellings of operations where Inductor's are made for GPUs and differ from eager on a CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import sympy
import torch

from torchport.inductor.compat import CSEVariable, TritonKernelOverrides, V, ops, triton_type
from torchport.inductor.upstream.corrections import applies

__all__ = ["TorchportOverrides"]


class TorchportOverrides(TritonKernelOverrides):
    """Inductor's spellings inside a kernel, with torchport's for those that are wrong in some values."""

    _masks: ClassVar[Iterable[str]] = ()  # of the last index

    @classmethod
    def constant(cls, value: Any, dtype: torch.dtype) -> Any:
        """A number. One that is not known yet is an argument of the kernel, where Inductor's would write its name."""
        if not isinstance(value, sympy.Symbol):
            return super().constant(value, dtype)
        wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
        return f"({V.kernel.args.size(value)}).to({triton_type(wide)})"

    @classmethod
    def index_expr(cls, expr: Any, dtype: torch.dtype) -> Any:
        """A value computed from indices, whose masks are noted for ``value_expr``."""
        found = super().index_expr(expr, dtype)
        TorchportOverrides._masks = found.mask_vars
        return found

    @classmethod
    def value_expr(cls, expr: Any, dtype: torch.dtype) -> Any:
        """``index_expr`` in a type. Inductor's loses the masks where it converts the value.

        What such a value addresses is then read, and checked to be in bounds, in lanes that do not exist.
        """
        found = super().value_expr(expr, dtype)
        if applies("masks-of-values"):
            found.mask_vars.update(TorchportOverrides._masks)
        return found

    @staticmethod
    def neg(x: Any) -> str:
        """Minus ``x``. Triton's is ``0 - x``, which gives 0.0 for 0.0."""
        return f"{x} * -1.0" if _is_float(x) else f"-{x}"

    @staticmethod
    def signbit(x: Any) -> str:
        """Whether the sign bit is set. Inductor's is ``x < 0`` for all floats but float32: wrong for -0.0 and -NaN."""
        if not _is_float(x):
            return f"({x} < 0)"
        wide = x if x.dtype == torch.float64 else f"{x}.to(tl.float32)"
        return f"(libdevice.signbit({wide}) != 0)"

    @staticmethod
    def floordiv(a: Any, b: Any) -> Any:
        """Quotient of integers, rounded down. Inductor's negates its operands, which the lowest integer does not bear.

        The target's division does not trap: by zero the result is some integer, where eager raises.
        """
        quotient = ops.truncdiv(a, b)
        rest = ops.sub(a, ops.mul(quotient, b))
        zero = ops.constant(0, torch.int32)
        above = ops.logical_and(ops.ne(rest, zero), ops.ne(ops.lt(rest, zero), ops.lt(b, zero)))
        return ops.where(above, ops.sub(quotient, ops.constant(1, a.dtype)), quotient)

    @staticmethod
    def logical_or(a: Any, b: Any) -> str:
        """Whether ``a`` or ``b`` is true. Inductor's ors their bits, also of integers (bools times ``alpha``)."""
        if not applies("scaled-bools"):
            return f"{a} | {b}"
        return " | ".join(f"({x} != 0)" if _is_integer(x) else str(x) for x in (a, b))

    @staticmethod
    def masked(mask: Any, body: Any, other: Any) -> Any:
        """What ``body`` gives where ``mask`` is true, else ``other``.

        Inductor's leaves a body that only loads to that load's mask. A load of what the kernel has stored is none: it
        gives the stored value, as it is.
        """
        stored = V.kernel.cse.store_cache
        (output,) = body.graph.find_nodes(op="output")
        loads = [node for node in output.args if node.target == "load"]
        result = TritonKernelOverrides.masked(mask, body, other)
        if not any(node.args[1] in stored for node in loads) or not applies("masked-stores"):
            return result
        filler = bool(other) if result.dtype == torch.bool else other
        return ops.where(mask, result, ops.constant(filler, result.dtype)).value

    @staticmethod
    def bitwise_left_shift(x: Any, n: Any) -> str:
        """``x << n``: 0 for negative ``n`` and from the type's width on, as in aten. Triton's is undefined there."""
        width = _width(x)
        if not applies("shifts") or _within(n, width - 1):
            return f"{x} << {n}"
        return f"tl.where(({n} < 0) | ({n} >= {width}), {x} * 0, {x} << ({n} & {width - 1}))"

    @staticmethod
    def bitwise_right_shift(x: Any, n: Any) -> str:
        """``x >> n``: nothing but the sign is left for negative ``n`` and from the width of the type on, as in aten."""
        width = _width(x)
        if not applies("shifts") or _within(n, width - 1):
            return f"{x} >> {n}"
        if not x.dtype.is_signed:
            return f"tl.where({n} >= {width}, {x} * 0, {x} >> ({n} & {width - 1}))"
        return f"{x} >> tl.where(({n} < 0) | ({n} >= {width}), {width - 1}, {n})"


def _is_float(x: Any) -> bool:
    return isinstance(x, CSEVariable) and x.dtype is not None and x.dtype.is_floating_point


def _is_integer(x: Any) -> bool:
    return isinstance(x, CSEVariable) and x.dtype not in (None, torch.bool) and not x.dtype.is_floating_point


def _width(x: Any) -> int:
    return int(x.dtype.itemsize) * 8


def _within(n: Any, highest: int) -> bool:
    """Whether a value is known to be from 0 to ``highest``."""
    return isinstance(n, CSEVariable) and bool(n.bounds.lower >= 0 and n.bounds.upper <= highest)

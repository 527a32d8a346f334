"""What a graph calls besides its kernels, in another chip's arithmetic: products and convolutions of libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from torchport.numerics.products import TYPES, product
from torchport.numerics.profile import Profile
from torchport.runtime import events, observation

__all__ = ["Emulation", "around", "emulated"]

Call = Callable[[list[Any]], Sequence[Any]]

_aten = torch.ops.aten
_PRODUCTS = frozenset(
    getattr(getattr(_aten, name), overload)
    for name in ("mm", "bmm", "addmm", "baddbmm")
    for overload in ("default", "out")
)
_MOVES = frozenset(
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided copy_ clone _to_copy cat stack index "
    "index_select gather embedding slice select fill_ zero_ zeros full ones zeros_like arange lift_fresh sort topk "
    "_unsafe_view resize_ set_ constant_pad_nd scatter index_put index_put_ masked_fill where repeat_interleave "
    "max_pool2d_with_indices max_pool2d_with_indices_backward embedding_dense_backward randperm randint rand randn "
    "inductor_seeds inductor_random nonzero unique _local_scalar_dense item resize nan_to_num".split()
)
"""Operations that move or compare numbers and compute none, or draw them."""


def around(profile: Profile) -> tuple[str, str]:
    """What goes around a graph's code for ``profile``: an import and a call (``torchport.inductor.scope.Scope``)."""
    precision = "tf32" if profile.tf32 else "ieee"
    return (
        "from torchport.numerics.emulation import emulated as torchport_emulated",
        f"torchport_emulated(call, {profile.name!r}, {profile.arithmetic()!r}, {precision!r})",
    )


def emulated(call: Call, name: str, arithmetic: str, precision: str) -> Call:
    """``call``, a graph's generated code, with its products and convolutions in ``arithmetic``.

    ``name``: the profile's, for events; ``precision``: of products of f32, ``ieee`` or ``tf32``.
    """
    noted: set[str] = set()

    def run(args: list[Any]) -> Sequence[Any]:
        with Emulation(name, arithmetic, precision, noted), observation.operations():
            return call(args)

    return run


class Emulation(TorchDispatchMode):
    """Active while a graph runs; what it does not emulate is recorded as a fallback, once a graph."""

    supports_higher_order_operators = True

    def __init__(self, name: str, arithmetic: str, precision: str, noted: set[str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name, self.arithmetic, self.precision = name, arithmetic, precision
        self.noted: set[str] = set() if noted is None else noted

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile works under this mode."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with _disable_current_modes():  # who looks at operations has seen this one: observation.operations() is on top
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not isinstance(func, torch._ops.OpOverload):
            self._note(str(func))
            return func(*args, **kwargs)
        if func in _PRODUCTS:
            result = self._product(func, args, kwargs)
        elif func is _aten.convolution.default:
            result = self._convolution(*args, **kwargs)
            # The code that follows knows how the library lays its result out in memory.
            result = None if result is None else func(*args, **kwargs).copy_(result)
        else:
            name = func._schema.name.removeprefix("aten::")
            if not func.is_view and name not in _MOVES and _is_narrow(args):
                self._note(str(func))
            return func(*args, **kwargs)
        if result is None:
            self._note(str(func))
            return func(*args, **kwargs)
        return result

    def _note(self, operation: str) -> None:
        if operation not in self.noted:
            self.noted.add(operation)
            reason = f"emulation of {self.name}: {operation} runs in the CPU's own arithmetic"
            events.record(events.Fallback(None, operation, reason, "host", (operation,)))

    def _product(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor | None:
        added = "add" in func._schema.name
        bias, a, b = args[:3] if added else (None, *args[:2])
        if a.dtype not in TYPES or a.dtype != b.dtype or (bias is not None and bias.dtype not in TYPES):
            return None
        alpha, beta, out = kwargs.get("alpha", 1), kwargs.get("beta", 1), kwargs.get("out")
        dtype = a.dtype if out is None else out.dtype
        bias = None if beta == 0 else bias
        found = self._multiplied(a, b, bias, float(alpha), float(beta), dtype)
        return found if out is None else out.copy_(found)

    def _multiplied(
        self, a: Any, b: Any, bias: Any, alpha: float = 1.0, beta: float = 1.0, dtype: Any = None
    ) -> torch.Tensor:
        return product(
            self.arithmetic, a, b, bias, alpha=alpha, beta=beta, precision=self.precision, dtype=dtype or a.dtype
        )

    def _convolution(
        self, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
        output_padding: Any, groups: int,
    ) -> torch.Tensor | None:  # fmt: skip
        """One or two dimensions, as products with the columns of the image (im2col)."""
        dimensions = weight.dim() - 2
        if transposed or dimensions not in (1, 2) or x.dtype not in TYPES or weight.dtype != x.dtype:
            return None
        if dimensions == 1:
            whole = self._convolution(
                x.unsqueeze(2), weight.unsqueeze(2), bias, [1, *stride], [0, *padding], [1, *dilation], False, [0, 0],
                groups,
            )  # fmt: skip
            return None if whole is None else whole.squeeze(2)
        n, outputs = x.shape[0], weight.shape[0]
        kernel = tuple(weight.shape[2:])
        size = [(x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
        columns = torch.nn.functional.unfold(x, kernel, tuple(dilation), tuple(padding), tuple(stride))
        terms = columns.shape[1] // groups
        left = weight.reshape(groups, outputs // groups, terms).repeat(n, 1, 1)
        right = columns.reshape(n * groups, terms, -1)
        found = self._multiplied(left, right, None).reshape(n, outputs, *size)
        return found if bias is None else found + bias.reshape(1, -1, 1, 1)


def _is_narrow(args: Any) -> bool:
    """Whether an operand is of a type whose arithmetic differs between chips."""
    return any(isinstance(one, torch.Tensor) and one.dtype in TYPES for one in args)

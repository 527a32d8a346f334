"""Runs a graph's operator calls in another chip's arithmetic: products, convolutions, attention."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from torchport.arithmetic.profile import Profile
from torchport.compat import DispatchKey, DispatchKeySet, disable_current_modes
from torchport.inductor.scope import CallWrapper
from torchport.numerics.emulation.attention import EmulatedAttention
from torchport.numerics.emulation.convolution import convolution, convolution_backward
from torchport.numerics.emulation.products import TYPES, product
from torchport.runtime import events, observation

__all__ = ["Emulation", "call_wrapper", "emulated", "only_moves"]

Call = Callable[[list[Any]], Sequence[Any]]

_aten = torch.ops.aten
_PRODUCTS = frozenset(
    getattr(getattr(_aten, name), overload)
    for name in ("mm", "bmm", "addmm", "baddbmm")
    for overload in ("default", "out")
)
_CONVOLUTIONS = (_aten.convolution.default, _aten.convolution_backward.default)
_ATTENTION = (
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
)
_SCALED = (_aten._scaled_mm.default, _aten._scaled_mm.out)
_COMPOSITES = frozenset(
    "matmul linear einsum tensordot inner conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
    "scaled_dot_product_attention _grouped_mm _transformer_encoder_layer_fwd _native_multi_head_attention".split()
)
"""Operators made of others, which are emulated, or noted, one by one; operators of torch.library are treated alike."""
_CPU = DispatchKeySet(DispatchKey.CPU)
_MOVES = frozenset(
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided copy_ clone _to_copy cat stack index "
    "index_select gather embedding slice select fill_ zero_ zeros full ones zeros_like arange lift_fresh sort topk "
    "ones_like full_like new_zeros new_ones new_full _unsafe_view resize_ set_ constant_pad_nd scatter index_put "
    "index_put_ masked_fill where repeat_interleave "
    "max_pool2d_with_indices max_pool2d_with_indices_backward embedding_dense_backward randperm randint rand randn "
    "inductor_seeds inductor_random nonzero unique _local_scalar_dense item resize nan_to_num".split()
)
"""Operations that only move, compare or draw numbers."""


def only_moves(operation: str) -> bool:
    """Whether an operator (``aten.clone.default``) only moves, compares or draws numbers."""
    return operation.partition(".")[2].partition(".")[0] in _MOVES


def call_wrapper(profile: Profile) -> CallWrapper:
    """Puts the emulation of ``profile`` around a graph's code."""
    precision = "tf32" if profile.tf32 else "ieee"
    return CallWrapper(
        "from torchport.numerics.emulation.dispatch import emulated as torchport_emulated",
        f"torchport_emulated(call, {profile.name!r}, {profile.arithmetic()!r}, {precision!r})",
        {"emulate": profile.name, "profile": hashlib.sha256(profile.arithmetic().encode()).hexdigest()[:16]},
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
    """Active while a graph runs. Operators that it does not emulate are recorded as fallbacks, once for each graph."""

    supports_higher_order_operators = True

    def __init__(self, name: str, arithmetic: str, precision: str, noted: set[str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name, self.arithmetic, self.precision = name, arithmetic, precision
        self.noted: set[str] = set() if noted is None else noted
        self._emulated = 0  # operators, so far

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile works under this mode."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with disable_current_modes():  # who looks at operations has seen this one: observation.operations() is on top
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not isinstance(func, torch._ops.OpOverload):
            self._note(str(func))
            return func(*args, **kwargs)
        result = self._computed(func, args, kwargs)
        if result is not None:
            self._emulated += 1
            return result
        name = func._schema.name.removeprefix("aten::")
        if func.is_view or name in _MOVES or not _is_narrow(args):
            return func(*args, **kwargs)
        before = self._emulated
        if "::" in name or name in _COMPOSITES:
            with self:
                result = func.redispatch(_CPU, *args, **kwargs)
        else:
            result = func(*args, **kwargs)
        if self._emulated == before:
            self._note(str(func))
        return result

    def _computed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The operator's result in the chip's arithmetic; None if the operator is not emulated."""
        if func in _PRODUCTS:
            return self._product(func, args, kwargs)
        if func in _SCALED:
            return self._scaled_product(*args, **kwargs)
        if func in _CONVOLUTIONS and _is_narrow(args[:1]):
            convolve = convolution if func is _aten.convolution.default else convolution_backward
            found = convolve(lambda a, b: self._multiplied(a, b, None), *args, **kwargs)
            # The code that follows relies on the library's layout of its results in memory.
            return None if found is None else _copied(found, func(*args, **kwargs))
        if func in _ATTENTION:
            attention = EmulatedAttention(self.arithmetic, self.precision)
            run = attention.forward if func is _ATTENTION[0] else attention.backward
            found = run(*args, **kwargs)
            return None if found is None else _copied(found, _empty_results(func, args, kwargs))
        return None

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

    def _scaled_product(
        self, a: Any, b: Any, scale_a: Any, scale_b: Any, bias: Any = None, scale_result: Any = None,
        out_dtype: Any = None, use_fast_accum: bool = False, *, out: Any = None,
    ) -> torch.Tensor | None:  # fmt: skip
        """A product of 8-bit floats; scales of tensors, or of rows and columns, multiply the f32 sum."""
        if a.dtype not in TYPES or b.dtype not in TYPES or scale_result is not None or scale_a.dtype != torch.float32:
            return None
        if not all(one.numel() == 1 or 1 in one.shape for one in (scale_a, scale_b)):
            return None  # of blocks
        found: torch.Tensor = self._multiplied(a, b, None, dtype=torch.float32) * scale_a * scale_b
        found = found if bias is None else found + bias
        return found.to(out_dtype or a.dtype) if out is None else out.copy_(found)

    def _multiplied(
        self, a: Any, b: Any, bias: Any, alpha: float = 1.0, beta: float = 1.0, dtype: Any = None
    ) -> torch.Tensor:
        return product(
            self.arithmetic, a, b, bias, alpha=alpha, beta=beta, precision=self.precision, dtype=dtype or a.dtype
        )


def _copied(found: Any, results: Any) -> Any:
    """``results``, of the operator, with ``found`` in them."""
    if isinstance(results, torch.Tensor):
        return results.copy_(found)
    return tuple(None if one is None else result.copy_(one) for one, result in zip(found, results, strict=True))


def _empty_results(func: Any, args: Any, kwargs: Any) -> Any:
    """Uninitialized results of the operator, laid out in memory as its caller expects."""
    given = tree_map_only(torch.Tensor, lambda one: one.to("meta"), (args, kwargs))
    return tree_map_only(torch.Tensor, lambda one: torch.empty_like(one, device="cpu"), func(*given[0], **given[1]))


def _is_narrow(args: Any) -> bool:
    """Whether an operand is of a type whose arithmetic differs between chips."""
    return any(isinstance(one, torch.Tensor) and one.dtype in TYPES for one in args)

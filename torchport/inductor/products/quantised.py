"""Products of quantised models: of weights that are computed from narrow ones, and of 8-bit integers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import sympy
import torch

from torchport.inductor.compat import V, flex, ir, lowerings, pointwise_cat, triton_type, unset_fake_temporarily
from torchport.inductor.products.lowering import LOWERINGS as WIDE
from torchport.inductor.products.lowering import by_row_or_column, facts_of, is_one, limits, product, run, template
from torchport.inductor.products.rules import FEW, WIDENED, choose_computed, choose_integer, choose_unpacked
from torchport.inductor.products.weights import PARTS, Weight, is_computed, weight_of
from torchport.inductor.upstream.fx import is_view

__all__ = ["LOWERINGS", "saturates"]

_aten = torch.ops.aten
_BYTES = (torch.int8, torch.uint8)


def _mm(a: Any, b: Any, out_dtype: Any = None, **kwargs: Any) -> Any:
    plain = out_dtype is None and not kwargs and a.get_dtype() == b.get_dtype()
    found = _computed(a, b, None, 1, 1, a.get_dtype()) if plain else None
    if found is not None:
        return found
    wide = _unpacked(b) if plain else None
    if wide is not None:
        return lowerings[_aten.mm.default](a, wide)
    return WIDE[_aten.mm.default](a, b, out_dtype, **kwargs)


def _addmm(bias: Any, a: Any, b: Any, *, alpha: Any = 1, beta: Any = 1, **kwargs: Any) -> Any:
    plain = not kwargs and beta != 0 and all(type(factor) in (int, float) for factor in (alpha, beta))
    same = len({one.get_dtype() for one in (bias, a, b)}) == 1
    found = _computed(a, b, bias, alpha, beta, a.get_dtype()) if plain and same else None
    if found is not None:
        return found
    wide = _unpacked(b) if plain and same else None
    if wide is not None:
        return lowerings[_aten.addmm.default](bias, a, wide, alpha=alpha, beta=beta)
    return WIDE[_aten.addmm.default](bias, a, b, alpha=alpha, beta=beta, **kwargs)


def _unpacked(b: Any) -> Any:
    """The right operand of a product, stored by a kernel for neighbours that are unpacked from one word; or None."""
    weight = None if limits() is None else weight_of(b)
    if weight is None or weight.parts == 1 or not (weight.packed and weight.by_term):
        return None
    block = choose_unpacked(weight.length, weight.parts)
    constants = {
        "XBLOCK": 1,
        "BLOCK": block,
        "READS": tuple(f"W{number}" for number in range(len(weight.reads))),
        "PARTS": weight.parts,
        "GROUPS": weight.groups,
        "LENGTH": weight.length,
        "TERMS": weight.terms,
        "REST": bool(weight.length % block or weight.terms % weight.length),
        "TYPE": triton_type(weight.dtype),
        "JOINS": _joins(weight.parts),
    }
    k, n = weight.size
    layout = ir.FixedLayout(b.get_device(), weight.dtype, [n, k])
    inputs = [V.graph.get_buffer(name) for name in weight.reads]
    wide = template("UNPACKED").append(inputs, layout, [n, 1, 1], [weight], [], constants)
    return lowerings[_aten.permute.default](wide, [1, 0])


def _joins(parts: int) -> tuple[tuple[str, str, str], ...]:
    """(result, its even, its odd elements) that interleave ``part0`` ... to ``whole``."""
    names, found = [f"part{part}" for part in range(parts)], list[tuple[str, str, str]]()
    while len(names) > 1:
        half = len(names) // 2
        made = [f"{left}{right}" for left, right in zip(names[:half], names[half:], strict=True)]
        made = ["whole"] if half == 1 else made
        found += zip(made, names[:half], names[half:], strict=True)
        names = made
    return tuple(found)


def _computed(a: Any, b: Any, bias: Any, alpha: float, beta: float, dtype: torch.dtype) -> Any:
    """The product with a weight that is computed from a narrower one, by a kernel that computes it; or None."""
    cpu, m = limits(), V.graph.sizevars.simplify(a.get_size()[0])
    if (
        cpu is None
        or len(a.get_size()) != 2
        or not isinstance(m, sympy.Integer)
        or m == 0
        or a.get_dtype() == torch.float64
    ):
        return None
    weight = weight_of(b) if int(m) <= FEW else None
    choice = None if weight is None else choose_computed(int(m), cpu.simd_width, weight.length)
    if weight is None or choice is None or not weight.by_term:
        return None
    k, n = weight.size
    if a.get_dtype() != torch.float32 and (weight.parts > 1 or int(m) * n * k >= WIDENED):
        a.realize()  # for others, that read it as it is
        a = _cast(a, torch.float32)
    inputs = flex.maybe_realize([_in_parts(a, weight)])
    if bias is not None:
        inputs += flex.maybe_realize([lowerings[_aten.expand.default](bias, [m, n])])
    inputs += [V.graph.get_buffer(name) for name in weight.reads]
    constants = {
        "XBLOCK": choice.columns,
        "M_BLOCK": choice.rows,
        "BLOCK": choice.terms,
        "BIASED": bias is not None,
        "ALPHA": alpha,
        "BETA": beta,
        "READS": tuple(f"W{number}" for number in range(len(weight.reads))),
        "PARTS": weight.parts,
        "GROUPS": weight.groups,
        "LENGTH": weight.length,
        "WHOLE": weight.terms % weight.length == 0,
        "REST": bool(weight.length % choice.terms or weight.terms % choice.terms),
    }
    layout = ir.FixedLayout(a.get_device(), dtype, [m, n])
    return template("COMPUTED").append(inputs, layout, [n, 1, 1], [weight], [], constants)


def _int8pack_mm(x: Any, weight: Any, scales: Any) -> Any:
    """x @ weight.T * scales of an int8 weight [N, K], rounded once."""
    dtype = x.get_dtype()
    if limits() is None or weight.get_dtype() != torch.int8 or len(x.get_size()) != 2:
        return NotImplemented
    wide = lowerings[_aten.permute.default](_cast(weight, torch.float32), [1, 0])
    found = _computed(x, wide, None, 1, 1, torch.float32)
    if found is None:
        if V.graph.current_node.target is _aten._weight_int8pack_mm.default:
            for one in (x, weight, scales):
                one.realize()  # Inductor's lowering fails for scales that are computed
            return NotImplemented
        # Inductor puts aten's operator, which is slow for many rows, for a product that is rounded and then scaled.
        narrow = lowerings[_aten.permute.default](_cast(weight, dtype), [1, 0])
        found = product(x, narrow, None, 1, 1, torch.float32)  # not rounded before it is scaled
        if found is NotImplemented:
            found = lowerings[_aten.mm.default](x, narrow)
    return _cast(lowerings[_aten.mul.Tensor](found, scales), dtype)


def _cat(tensors: Any, dim: int = 0) -> Any:
    """Of 8-bit integers that are computed, computed where they are read: unpacked halves of bytes."""
    if not all(map(is_computed, tensors)) or len(tensors) > 8 or any(one.get_dtype() not in _BYTES for one in tensors):
        return NotImplemented
    if len({one.get_dtype() for one in tensors}) > 1 or limits() is None:
        return NotImplemented
    dim %= len(tensors[0].get_size())
    sizes = [[V.graph.sizevars.simplify(size) for size in one.get_size()] for one in tensors]
    known = all(isinstance(size, sympy.Integer) for size in sizes[0])
    neighbours = known and dim == len(sizes[0]) - 1 and all(size[dim] == 1 for size in sizes)
    neighbours = neighbours and len(tensors) in PARTS
    node = V.graph.current_node
    if not _read_by_few_rows(node) and not (neighbours and _read_by_one_product(node)):
        return NotImplemented
    return pointwise_cat(tensors, dim)


def _read_by_few_rows(node: torch.fx.Node, steps: int = 12) -> bool:
    """Whether what follows from a node ends in a product of few rows with it."""
    for user in node.users:
        if user.target in (_aten.mm.default, _aten.addmm.default):
            left = user.args[-2]
            value = left.meta.get("val") if isinstance(left, torch.fx.Node) else None
            rows = value.shape[0] if isinstance(value, torch.Tensor) else None
            if isinstance(rows, int) and rows <= FEW:
                return True
        elif steps and user.op == "call_function" and _read_by_few_rows(user, steps - 1):
            return True
    return False


def _read_by_one_product(node: torch.fx.Node, steps: int = 12) -> bool:
    """Whether all that follows from a node, element by element, is the right operand of one product."""
    if len(node.users) != 1 or not steps:
        return False
    (user,) = node.users
    if user.target in (_aten.mm.default, _aten.addmm.default):
        return user.args[-1] is node
    each = is_view(user) or user.target is torch.ops.prims.convert_element_type.default
    each = each or torch.Tag.pointwise in getattr(user.target, "tags", ())
    return each and _read_by_one_product(user, steps - 1)


def _in_parts(a: Any, weight: Weight) -> Any:
    """The left operand [M, K] of a product with ``weight``, as [parts, M, terms of a part]."""
    m = a.get_size()[0]
    if not weight.packed:
        x = lowerings[_aten.view.default](a, [m, weight.parts, weight.terms])
        return lowerings[_aten.permute.default](x, [1, 0, 2])
    x = lowerings[_aten.view.default](a, [m, weight.terms, weight.parts])
    x = lowerings[_aten.permute.default](x, [2, 0, 1])
    return x if weight.parts == 1 else ir.ExternKernel.require_contiguous(lowerings[_aten.clone.default](x))


def _int_mm(a: Any, b: Any, **kwargs: Any) -> Any:
    """The product of 8-bit integers in int32, exact, where the library's sums of pairs saturate at 16 bits."""
    cpu, sizes = limits(), V.graph.sizevars
    if cpu is None or kwargs or not saturates() or any(one.get_dtype() not in _BYTES for one in (a, b)):
        return NotImplemented
    (m, k), n = a.get_size(), b.get_size()[-1]
    if any(sizes.statically_known_equals(size, 0) for size in (m, n, k)):
        return NotImplemented
    a, b = (by_row_or_column(one) for one in flex.maybe_realize([a, b]))
    known = all(isinstance(sizes.simplify(size), sympy.Integer) for size in (m, n, k))
    rows, terms = (max(1, int(sizes.optimization_hint(size))) for size in (m, k))
    choice = choose_integer(rows, terms, known and is_one(b.get_stride()[0]), facts_of(a.get_dtype(), cpu))
    return run(choice, a, b, None, torch.int32, 1, 1, [], known)


@functools.cache
def saturates() -> bool:
    """Whether the library's products of 8-bit integers are wrong here, as they are on CPUs without VNNI.

    oneDNN adds two products of a byte and a signed byte in 16 bits there, which hold 32,767: 255 * 127 * 2 is more.
    """
    with unset_fake_temporarily():
        right = torch.full((32, 32), 127, dtype=torch.int8)
        lefts = torch.full((32, 32), 255, dtype=torch.uint8), torch.full((32, 32), 127, dtype=torch.int8)
        return any((torch._int_mm(left, right.t()) != int(left[0, 0]) * 127 * 32).any().item() for left in lefts)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return lowerings[torch.ops.prims.convert_element_type.default](value, dtype)


LOWERINGS: dict[Any, Callable[..., Any]] = {
    _aten.mm.default: _mm,
    _aten.addmm.default: _addmm,
    _aten._int_mm.default: _int_mm,
    _aten._weight_int8pack_mm.default: _int8pack_mm,
    _aten.cat.default: _cat,
}

"""Rotary position embedding (Su et al., arXiv 2104.09864) in both layouts of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import block_for
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "rope"]


@Kernel
def _rotate(x, cos, sin, out, x_batch, x_head, x_token, cos_batch, cos_token, sin_batch, sin_token,  # type: ignore[no-untyped-def]
            out_batch, out_head, out_token, heads, pairs, size, sign,
            STEP: tl.constexpr, BLOCK: tl.constexpr, REST: tl.constexpr):  # fmt: skip
    """One token of all heads: each pair is turned by its angle, times ``sign``; what lies behind the pairs is copied.

    A pair's first element is at STEP * i, its second one at 1 or ``pairs`` behind.
    """
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    i = tl.arange(0, BLOCK)
    inside = i < pairs
    cosine = tl.load(cos + batch * cos_batch + token * cos_token + i, inside, 0.0).to(tl.float32)
    sine = tl.load(sin + batch * sin_batch + token * sin_token + i, inside, 0.0).to(tl.float32) * sign
    x += batch * x_batch + token * x_token
    out += batch * out_batch + token * out_token
    at = i * STEP
    other = at + (1 if STEP == 2 else pairs)
    for head in range(0, heads):
        here, there = x + tl.cast(head, tl.int64) * x_head, out + tl.cast(head, tl.int64) * out_head
        first = tl.load(here + at, inside, 0.0).to(tl.float32)
        second = tl.load(here + other, inside, 0.0).to(tl.float32)
        tl.store(there + at, (first * cosine - second * sine).to(out.dtype.element_ty), inside)
        tl.store(there + other, (second * cosine + first * sine).to(out.dtype.element_ty), inside)
        if REST:
            j = tl.arange(0, REST) + 2 * pairs
            tl.store(there + j, tl.load(here + j, j < size), j < size)


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool, back: bool) -> torch.Tensor:
    if not 2 <= x.dim() <= 4 or not 2 <= cos.dim() <= 3 or cos.shape != sin.shape:
        raise ValueError(
            f"rope: x has {x.dim()} dimensions (2 to 4: batch, heads, tokens, size), cos and sin have shapes "
            f"{tuple(cos.shape)} and {tuple(sin.shape)} (both [tokens, pairs] or [batch, tokens, pairs])"
        )
    tokens, size, pairs = x.shape[-2], x.shape[-1], cos.shape[-1]
    batch = x.shape[0] if x.dim() == 4 else 1
    if cos.shape[-2] != tokens or 2 * pairs > size or (cos.dim() == 3 and cos.shape[0] not in (1, batch)):
        raise ValueError(f"rope: cos of shape {tuple(cos.shape)} does not fit x of shape {tuple(x.shape)}")
    source = x if x.stride(-1) == 1 else x.contiguous()
    out = torch.empty_like(source)
    whole, result = (tensor[(None,) * (4 - x.dim())] for tensor in (source, out))
    angles = [one if one.stride(-1) == 1 else one.contiguous() for one in (cos, sin)]
    strides = [
        stride
        for one in angles
        for stride in (one.stride(0) if one.dim() == 3 and one.shape[0] != 1 else 0, one.stride(-2))
    ]
    rest = block_for(size - 2 * pairs) if 2 * pairs < size else 0
    args = (
        whole, *angles, result, *whole.stride()[:3], *strides, *result.stride()[:3], whole.shape[1], pairs, size,
        -1.0 if back else 1.0,
    )  # fmt: skip
    constants = {"STEP": 2 if interleaved else 1, "BLOCK": block_for(pairs, 1 << 20), "REST": rest}
    launch(_rotate, (tokens, whole.shape[0], 1), args, constants)
    return out


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, cos, sin, ctx.interleaved = inputs
    if cos.requires_grad or sin.requires_grad:
        raise ValueError("rope: cos and sin have no gradient; detach them, or compute with torch's own operators")
    ctx.save_for_backward(cos, sin)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    return _back(grad, *ctx.saved_tensors, ctx.interleaved), None, None, None


_SCHEMA = "(Tensor x, Tensor cos, Tensor sin, bool interleaved) -> Tensor"
_back = define("rope_backward", _SCHEMA, lambda x, cos, sin, interleaved: _turn(x, cos, sin, interleaved, True))
_call = define(
    "rope",
    _SCHEMA,
    lambda x, cos, sin, interleaved: _turn(x, cos, sin, interleaved, False),
    backward=_backward,
    setup=_setup,
)


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool = False) -> torch.Tensor:
    """``x`` with each pair of elements turned by the angle of its token, computed in float32 and rounded once.

    x: [..., heads, tokens, size], with or without a batch in front.
    cos, sin: of the angles, [tokens, pairs] or [batch, tokens, pairs]; elements behind 2 * pairs are copied.
    interleaved: pairs are (0, 1), (2, 3) ..., as in GPT-J; otherwise element i and i + pairs, as in Llama.
    The result has the order of x's dimensions in memory.
    """
    result: torch.Tensor = _call(x, cos, sin, interleaved)
    return result


def _parts(x: torch.Tensor, pairs: int, interleaved: bool) -> tuple[torch.Tensor, ...]:
    turned, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
    if interleaved:
        return turned[..., ::2], turned[..., 1::2], rest
    return turned[..., :pairs], turned[..., pairs:], rest


def _joined(first: torch.Tensor, second: torch.Tensor, rest: torch.Tensor, interleaved: bool) -> torch.Tensor:
    turned = torch.stack((first, second), -1).flatten(-2) if interleaved else torch.cat((first, second), -1)
    return torch.cat((turned, rest), -1)


def _reference(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> torch.Tensor:
    first, second, rest = _parts(x, cos.shape[-1], interleaved)
    if cos.dim() == 3 and x.dim() == 4:
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return _joined(first * cos - second * sin, second * cos + first * sin, rest, interleaved)


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    x, cos, sin, interleaved = args
    if cos.dim() == 3 and x.dim() == 4:
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)

    def units(value: torch.Tensor) -> torch.Tensor:
        first, second, rest = (part.abs() for part in _parts(value, cos.shape[-1], interleaved))
        turned = first * cos.abs() + second * sin.abs(), second * cos.abs() + first * sin.abs()
        return _joined(turned[0] * 2, turned[1] * 2, rest * 0, interleaved)

    return units(x), units(grads[0])


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def angles(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        angle = torch.rand(shape) * 100
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    for interleaved in (False, True):
        name = "interleaved" if interleaved else "halves"
        yield Sample(f"{name}, a batch", (normal(2, 3, 7, 16), *angles(7, 8), interleaved))
        yield Sample(f"{name}, angles of each batch", (normal(2, 3, 5, 32), *angles(2, 5, 16), interleaved))
        yield Sample(f"{name}, not all turned", (normal(3, 5, 29), *angles(5, 7), interleaved))
        yield Sample(f"{name}, one head", (normal(5, 10), *angles(5, 5), interleaved))
        yield Sample(f"{name}, transposed", (normal(2, 7, 3, 16).transpose(1, 2), *angles(7, 8), interleaved))
        yield Sample(f"{name}, columns", (normal(2, 16, 7).mT, *angles(7, 8), interleaved))
        yield Sample(f"{name}, expanded", (normal(1, 1, 7, 16).expand(2, 3, 7, 16), *angles(1, 7, 8), interleaved))
        yield Sample(f"{name}, no tokens", (normal(2, 3, 0, 16), *angles(0, 8), interleaved))


OPERATORS = (
    Operator(
        name="rope",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x",),
        source="written",
        call=rope,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Rotary position embedding, pairs of halves or interleaved",
    ),
)

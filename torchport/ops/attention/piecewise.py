"""Piecewise attention: ``piecewise_attention``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from torchport.ops import kinds
from torchport.ops.attention.call import Options, call_of, whole_scale
from torchport.ops.attention.checks import check_tensors
from torchport.ops.attention.configurations import Blocks
from torchport.ops.attention.gradients import added_up, copies_for, copies_of, deltas_of, side_by_side
from torchport.ops.attention.piecewise_kernels import piecewise_columns, piecewise_forward, piecewise_rows
from torchport.ops.attention.reference import dense, of_products, of_scores
from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, define

__all__ = ["OPERATORS", "piecewise_attention"]


class _Pieces:
    """Both calls: the near one has the values."""

    def __init__(self, q1: torch.Tensor, k1: torch.Tensor, q2: torch.Tensor, k2: torch.Tensor, v: torch.Tensor,
                 threshold: int, causal: bool, scale: float) -> None:  # fmt: skip
        options = Options(scale, 0.0, -1, 0 if causal else -1, False, 0.0)
        self.near = call_of(q1, k1, v, None, None, None, None, None, 0, 0, options)
        far = self.far = call_of(q2, k2, v, None, None, None, None, None, 0, 0, options)
        near = self.near
        self.tensors = near.query, far.query, near.key, far.key, near.value
        self.strides = tuple(stride for tensor in self.tensors for stride in near.strides(tensor))
        self.sizes = near.heads, near.heads // near.owners, near.length, near.keys
        self.threshold = min(max(threshold, -0x3FFFFFFF), 0x3FFFFFFF)
        self.scale, _ = near.scaling()
        shape = near.shape()
        self.constants = {name: shape[name] for name in ("SIZE", "VSIZE")} | {"CAUSAL": causal}
        self.constants |= {name: shape[name] for name in ("BLOCK_D", "BLOCK_V")}

    def launch(self, kernel: Kernel, blocks: Blocks, grid: tuple[int, int, int], args: Sequence[Any]) -> None:
        launch(kernel, grid, args, self.constants | blocks.constants(), blocks.tuning())


def _forward(
    q1: torch.Tensor, k1: torch.Tensor, q2: torch.Tensor, k2: torch.Tensor, v: torch.Tensor, dist_threshold: int,
    causal: bool, scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    pieces = _Pieces(q1, k1, q2, k2, v, dist_threshold, causal, scale)
    near = pieces.near
    out = near.new(v.shape[-1], v.dtype)
    sums = torch.empty((near.tokens, near.heads), dtype=torch.float32, device=v.device)
    blocks = near.blocks("piecewise_forward")
    grid = -(-near.length // blocks.rows), near.heads, near.batch
    args = *pieces.tensors, out, sums, *pieces.strides, *pieces.sizes, pieces.threshold, pieces.scale
    pieces.launch(piecewise_forward, blocks, grid, args)
    return near.arranged(out), near.arranged(sums)


def _backward(
    grad: torch.Tensor, grad_sums: torch.Tensor | None, out: torch.Tensor, sums: torch.Tensor, q1: torch.Tensor,
    k1: torch.Tensor, q2: torch.Tensor, k2: torch.Tensor, v: torch.Tensor, dist_threshold: int, causal: bool,
    scale: float,
) -> Tensors:  # fmt: skip
    pieces = _Pieces(q1, k1, q2, k2, v, dist_threshold, causal, scale)
    call = pieces.near
    size, width = q1.shape[-1], v.shape[-1]
    given, lse = call.flat(grad), call.flat(sums)
    deltas = deltas_of(call, given, call.flat(out), call.flat(grad_sums) if grad_sums is not None else None)
    copies = copies_of(call)
    tensors = *pieces.tensors, given, *side_by_side(lse, deltas)
    before = copies_for(call, copies), copies_for(call, copies)
    keys = [torch.empty((call.key_tokens, call.owners, n), dtype=v.dtype, device=v.device) for n in (size, size, width)]
    numbers = pieces.threshold, pieces.scale, scale
    blocks = call.blocks("piecewise_columns")
    grid = copies or -(-call.keys // blocks.keys), call.owners, call.batch
    args = *tensors, *before, *keys, *pieces.strides, *pieces.sizes, call.tokens, *numbers
    pieces.launch(piecewise_columns, blocks, grid, args)
    if copies:
        queries = [added_up(copy, scale, v.dtype) for copy in before if copy is not None]
    else:
        queries = [call.new(size, v.dtype) for _ in range(2)]
        blocks = call.blocks("piecewise_rows")
        grid = -(-call.length // blocks.rows), call.heads, call.batch
        args = *tensors, *queries, *pieces.strides, *pieces.sizes, *numbers
        pieces.launch(piecewise_rows, blocks, grid, args)
    near, far = (call.arranged(one) for one in queries)
    near_key, far_key, value = (call.arranged(one, True) for one in keys)
    return near, near_key, far, far_key, value


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.numbers = inputs[5:]
    ctx.save_for_backward(*output, *inputs[:5])


def _gradients(ctx: Any, grad: torch.Tensor, grad_sums: torch.Tensor | None) -> tuple[Any, ...]:
    return *_backward_op(grad, grad_sums, *ctx.saved_tensors, *ctx.numbers), None, None, None


_ARGUMENTS = "Tensor q1, Tensor k1, Tensor q2, Tensor k2, Tensor v, int dist_threshold, bool causal, float scale"
_backward_op = define(
    "piecewise_attention_backward",
    f"(Tensor grad, Tensor? grad_sums, Tensor out, Tensor sums, {_ARGUMENTS}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
)
_SCHEMA = f"({_ARGUMENTS}) -> (Tensor, Tensor)"
_call = define("piecewise_attention", _SCHEMA, _forward, backward=_gradients, setup=_setup)


def _attend(
    q1: torch.Tensor, k1: torch.Tensor, q2: torch.Tensor, k2: torch.Tensor, v: torch.Tensor, dist_threshold: int,
    causal: bool, scale: float,
) -> Any:  # fmt: skip
    """``piecewise_attention`` with all arguments in the schema's order."""
    return _call(q1, k1, q2, k2, v, dist_threshold, causal, scale)


def piecewise_attention(
    q1: torch.Tensor,
    k1: torch.Tensor,
    q2: torch.Tensor,
    k2: torch.Tensor,
    v: torch.Tensor,
    dist_threshold: int,
    *,
    causal: bool = False,
    scale: float | None = None,
    return_lse: bool = False,
) -> Any:
    """Attention whose scores come from q1 and k1 for near keys, from q2 and k2 for far ones.

    score = scale * (q2 k2^T where m + shift - n >= dist_threshold, else q1 k1^T), for row m and key n, shift = keys -
    length: as FlagAttention's operator of that name. It serves position embeddings that differ with distance, as for
    texts longer than those of the training.

    q1, q2: [batch, heads, length, size]; k1, k2: [batch, heads of keys, keys, size]; v: [batch, heads of keys, keys,
    size of values]; one dtype: float32, bfloat16 or float16. Gradients for all five. causal, scale, return_lse: as in
    ``flash_attention``; memory is linear in the lengths.

    Raises ValueError if shapes or dtypes do not fit together, TypeError if an argument is of another kind.
    """
    kinds.tensors("piecewise_attention", q1=q1, k1=k1, q2=q2, k2=k2, v=v)
    kinds.integers("piecewise_attention", dist_threshold=dist_threshold)
    kinds.flags("piecewise_attention", causal=causal, return_lse=return_lse)
    kinds.numbers("piecewise_attention", scale=0.0 if scale is None else scale)
    check_tensors("piecewise_attention", q1, k1, v, packed=False)
    if q1.dtype not in FLOATS:
        raise ValueError(f"piecewise_attention: q1 is {q1.dtype}; it must be float32, bfloat16 or float16")
    for name, one, two in (("q", q1, q2), ("k", k1, k2)):
        if one.shape != two.shape or one.dtype != two.dtype or one.device != two.device:
            shapes = f"{one.dtype} {tuple(one.shape)} and {two.dtype} {tuple(two.shape)}"
            raise ValueError(f"piecewise_attention: {name}1 and {name}2 are {shapes}; they must be alike")
    out, lse = _call(q1, k1, q2, k2, v, dist_threshold, causal, whole_scale(q1, scale))
    return (out, lse) if return_lse else out


def _scores(
    q1: torch.Tensor, k1: torch.Tensor, q2: torch.Tensor, k2: torch.Tensor, threshold: int, causal: bool, scale: float
) -> torch.Tensor:
    group = q1.shape[1] // k1.shape[1]
    rows = torch.arange(q1.shape[2])[:, None] + k1.shape[2] - q1.shape[2]
    columns = torch.arange(k1.shape[2])
    near, far = (q @ k.repeat_interleave(group, 1).mT * scale for q, k in ((q1, k1), (q2, k2)))
    scores = torch.where(rows - columns >= threshold, far, near)
    return scores.masked_fill(columns > rows, -math.inf) if causal else scores


def _reference(q1: torch.Tensor, k1: torch.Tensor, q2: torch.Tensor, k2: torch.Tensor, v: torch.Tensor,
               threshold: int, causal: bool, scale: float) -> Tensors:  # fmt: skip
    return dense(q1, k1, v, _scores(q1, k1, q2, k2, threshold, causal, scale))[:2]


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    q1, k1, q2, k2, v, threshold, causal, scale = args
    scores = _scores(q1, k1, q2, k2, threshold, causal, scale)
    size = _scores(q1.abs(), k1.abs(), q2.abs(), k2.abs(), threshold, causal, abs(scale))
    off = torch.where(torch.isinf(size), 0.0, size) * (added(q1.shape[-1]) + 12)
    errors = of_scores(q1, k1, v, scores, off, None, grads, rounded)
    if not grads:
        return errors
    out, sums, step, off_step, value = errors
    rows = torch.arange(q1.shape[2])[:, None] + k1.shape[2] - q1.shape[2]
    distant = rows - torch.arange(k1.shape[2]) >= threshold
    found: list[torch.Tensor] = []
    for query, key, part in ((q1, k1, ~distant), (q2, k2, distant)):
        found += of_products(query, key, torch.where(part, step, 0.0), torch.where(part, off_step, 0.0), scale, rounded)
    return out, sums, *found, value


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def sample(about: str, q: tuple[int, ...], k: tuple[int, ...], threshold: int, causal: bool = True) -> Sample:
        one, two, three, four, value = (torch.randn(shape).to(dtype) for shape in (q, k, q, k, k))
        return Sample(about, (one, two, three, four, value, threshold, causal, 1 / math.sqrt(q[-1])))

    yield sample("prime lengths", (1, 2, 71, 64), (1, 2, 71, 64), 20)
    yield sample("shared heads", (2, 4, 131, 16), (2, 2, 331, 16), 100)
    yield sample("more rows than keys", (1, 2, 150, 16), (1, 2, 40, 16), 7)
    yield sample("not causal", (1, 2, 150, 16), (1, 1, 190, 16), -30, causal=False)
    yield sample("all near", (1, 1, 40, 16), (1, 1, 40, 16), 1000)
    yield sample("all far", (1, 1, 40, 16), (1, 1, 40, 16), -1000)
    yield sample("one row", (1, 2, 1, 16), (1, 2, 90, 16), 33)
    yield sample("no keys", (1, 2, 5, 16), (1, 2, 0, 16), 3)


OPERATORS = (
    Operator(
        name="piecewise_attention",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("q1", "k1", "q2", "k2", "v"),
        source="written",
        call=_attend,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Attention with other queries and keys for far keys",
    ),
)

"""Single operations of PyTorch in three sizes, which tools/bench_single.py --all measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = ["SIZES", "Case", "Function", "operations"]

F = torch.nn.functional
Function = Callable[..., Any]
Case = tuple[str, Function, tuple[torch.Tensor, ...]]
SIZES = {"16 KiB": 2**14, "512 KiB": 2**19, "32 MiB": 2**25}
"""Bytes of the first argument, about."""


def operations(size: int) -> Iterator[Case]:
    """Name, function and arguments; the largest argument has about ``size`` bytes."""
    yield from _elementwise(size)
    yield from _reductions(size)
    yield from _norms(size)
    yield from _orders(size)
    yield from _indexing(size)
    yield from _layouts(size)
    yield from _images(size)
    yield from _conversions(size)


def _square(size: int, width: int = 4) -> tuple[int, int]:
    """Rows and columns, both powers of two, of ``size`` bytes of elements of ``width`` bytes."""
    bits = (size // width).bit_length() - 1
    return 2 ** (bits // 2), 2 ** (bits - bits // 2)


def _elementwise(size: int) -> Iterator[Case]:
    x = torch.randn(size // 4)
    positive = x.abs() + 0.01
    for name in (
        "exp exp2 log log1p expm1 tanh erf sigmoid sin cos tan atan rsqrt sqrt reciprocal abs round floor sign"
    ).split():
        function = getattr(torch, name)
        yield name, function, (positive if name in ("log", "log1p", "rsqrt", "sqrt") else x,)
    for name in "gelu silu softplus elu mish hardswish leaky_relu relu logsigmoid".split():
        yield name, getattr(F, name), (x,)
    yield "gelu tanh", lambda a: F.gelu(a, approximate="tanh"), (x,)
    y = torch.randn(size // 4)
    yield "pow of tensors", torch.pow, (positive, y)
    yield "pow 1.5", lambda a: a**1.5, (positive,)
    yield "pow 3", lambda a: a**3, (x,)
    yield "atan2", torch.atan2, (x, y)
    yield "add", torch.add, (x, y)
    yield "div", torch.div, (x, positive)
    yield "fmod", torch.fmod, (x, positive)
    yield "remainder", torch.remainder, (x, positive)
    whole = x[: size // 8].mul(1000).long(), positive[: size // 8].mul(9).long() + 1
    yield "floor_divide of int64", torch.floor_divide, whole
    yield "maximum", torch.maximum, (x, y)
    yield "clamp", lambda a: a.clamp(-1, 1), (x,)
    yield "lerp", lambda a, b: torch.lerp(a, b, 0.3), (x, y)
    yield "where", lambda c, a, b: torch.where(c, a, b), (x > 0, x, y)
    yield "masked_fill", lambda a, c: a.masked_fill(c, 0.0), (x, y > 0)
    yield "bitwise of int32", lambda a, b: (a & b) ^ (a << 3), (x.mul(1e6).int(), y.mul(1e6).int())
    yield "isnan", torch.isnan, (x,)


def _reductions(size: int) -> Iterator[Case]:
    rows, columns = _square(size)
    x = torch.randn(rows, columns)
    kinds: dict[str, Function] = {
        "sum": torch.sum,
        "mean": torch.mean,
        "amax": torch.amax,
        "argmax": torch.argmax,
        "var": torch.var,
        "std": torch.std,
        "norm": lambda a, dim: torch.linalg.vector_norm(a, dim=dim),
        "any": lambda a, dim: (a > 3).any(dim),
        "logsumexp": torch.logsumexp,
        "count_nonzero": torch.count_nonzero,
    }
    for name, function in kinds.items():
        for where, dim in (("rows", -1), ("columns", 0)):
            yield f"{name} of {where}", lambda a, f=function, d=dim: f(a, dim=d), (x,)
    for name in "sum mean amax argmax var std".split():
        yield f"{name} of all", getattr(torch, name), (x,)
    yield "norm of all", torch.linalg.vector_norm, (x,)
    yield "any of all", lambda a: (a > 9).any(), (x,)
    yield "prod of rows", lambda a: a.prod(-1), (torch.rand(rows, columns) + 0.5,)
    yield "min with indices", lambda a: torch.min(a, -1), (x,)
    yield "var over 256", lambda a: a.var(-1), (torch.randn(size // 1024, 256),)
    yield "sum over 32", lambda a: a.sum(-1), (torch.randn(size // 128, 32),)
    yield "mean of bfloat16", lambda a: a.mean(-1), (x.bfloat16(),)
    yield "sum of int64", lambda a: a.sum(-1), (torch.randint(0, 99, (rows, columns // 2)),)


def _norms(size: int) -> Iterator[Case]:
    rows, columns = size // 4 // 256, 256
    x, w, b = torch.randn(rows, columns), torch.randn(columns), torch.randn(columns)
    yield "softmax", lambda a: torch.softmax(a, -1), (x,)
    yield "softmax of columns", lambda a: torch.softmax(a, 0), (x,)
    yield "log_softmax", lambda a: torch.log_softmax(a, -1), (x,)
    yield "layer norm", lambda a, w, b: F.layer_norm(a, (columns,), w, b), (x, w, b)
    yield "RMS norm", lambda a, w: F.rms_norm(a, (columns,), w), (x, w)
    yield "normalize", lambda a: F.normalize(a, dim=-1), (x,)
    image = torch.randn(max(1, size // 4 // (32 * 16 * 8)), 32, 16, 8)
    weight, bias = torch.randn(32), torch.randn(32)
    yield "group norm", lambda a, w, b: F.group_norm(a, 8, w, b), (image, weight, bias)
    yield "instance norm", F.instance_norm, (image,)
    mean, variance = torch.randn(32), torch.rand(32) + 0.1
    yield "batch norm", lambda a, m, v, w, b: F.batch_norm(a, m, v, w, b), (image, mean, variance, weight, bias)
    yield "batch norm, training", lambda a, w, b: F.batch_norm(a, None, None, w, b, True), (image, weight, bias)
    target = torch.randint(0, columns, (rows,))
    yield "cross entropy", F.cross_entropy, (x, target)
    yield "mse loss", F.mse_loss, (x, torch.randn(rows, columns))
    yield "cosine similarity", F.cosine_similarity, (x, torch.randn(rows, columns))


def _orders(size: int) -> Iterator[Case]:
    rows, columns = size // 4 // 512, 512
    x = torch.randn(rows, columns)
    yield "cumsum", lambda a: a.cumsum(-1), (x,)
    yield "cumsum of columns", lambda a: a.cumsum(0), (x,)
    yield "cumprod", lambda a: a.cumprod(-1), (torch.rand(rows, columns) + 0.5,)
    yield "sort", lambda a: a.sort(-1), (x,)
    yield "topk 8", lambda a: a.topk(8), (x,)
    yield "argsort", lambda a: a.argsort(-1), (x,)
    yield "median", lambda a: a.median(-1), (x,)


def _indexing(size: int) -> Iterator[Case]:
    rows, columns = size // 4 // 128, 128
    x = torch.randn(rows, columns)
    index = torch.randint(0, rows, (rows,))
    yield "index_select", lambda a, i: a.index_select(0, i), (x, index)
    yield "gather", lambda a, i: a.gather(-1, i), (x, torch.randint(0, columns, (rows, columns)))
    yield "scatter", lambda a, i, b: a.scatter(-1, i, b), (x, torch.rand(rows, columns).argsort(-1), x + 1)
    yield "scatter_add", lambda a, i, b: a.scatter_add(0, i, b), (x, torch.randint(0, rows, (rows, columns)), x + 1)
    yield "index_put", lambda a, i, b: a.index_put((i,), b), (x, torch.randperm(rows), x + 1)
    yield "index_put accumulate", lambda a, i, b: a.index_put((i,), b, True), (x, index, x + 1)
    yield "index_add", lambda a, i, b: a.index_add(0, i, b), (x, index, x + 1)
    yield "embedding", lambda w, i: F.embedding(i, w), (x, index)
    yield "embedding_bag", lambda w, i: F.embedding_bag(i, w), (x, index.view(-1, 4))
    yield "one_hot", lambda i: F.one_hot(i, 128), (index % 128,)
    yield "bincount", lambda i: torch.bincount(i, minlength=256), (torch.randint(0, 256, (size // 8,)),)
    yield "take_along_dim", lambda a, i: a.take_along_dim(i, 1), (x, torch.randint(0, columns, (rows, 8)))
    yield "searchsorted", torch.searchsorted, (torch.randn(1024).sort()[0], torch.randn(size // 4))


def _layouts(size: int) -> Iterator[Case]:
    rows, columns = _square(size)
    x, y = torch.randn(rows, columns), torch.randn(rows, columns)
    yield "transpose", lambda a: a.t().contiguous(), (x,)
    yield "flip", lambda a: a.flip(-1), (x,)
    yield "flip of rows", lambda a: a.flip(0), (x,)
    yield "roll", lambda a: a.roll(3, -1), (x,)
    yield "pad", lambda a: F.pad(a, (1, 2, 3, 1)), (x,)
    yield "tril", torch.tril, (x,)
    yield "cat, last", lambda a, b: torch.cat((a, b), -1), (x, y)
    yield "cat, first", lambda a, b: torch.cat((a, b)), (x, y)
    yield "stack, last", lambda a, b: torch.stack((a, b), -1), (x, y)
    yield "chunk, halves multiplied", lambda a: torch.mul(*a.chunk(2, -1)), (x,)
    yield "every second", lambda a: a[:, ::2].contiguous(), (x,)
    yield "repeat_interleave", lambda a: a.repeat_interleave(2, -1), (x,)
    yield "expanded rows", lambda a, b: a + b, (x, torch.randn(columns))
    yield "expanded columns", lambda a, b: a + b, (x, torch.randn(rows, 1))
    yield "diff", lambda a: a.diff(dim=-1), (x,)
    yield "unfold", lambda a: a.unfold(-1, 8, 4).contiguous(), (x,)
    yield "arange", lambda a: torch.arange(a.numel(), dtype=torch.float32), (x,)


def _images(size: int) -> Iterator[Case]:
    count = max(1, size // 4 // (16 * 16 * 16))
    image = torch.randn(count, 16, 16, 16)
    yield "max_pool2d", lambda a: F.max_pool2d(a, 2), (image,)
    yield "max_pool2d 3x3", lambda a: F.max_pool2d(a, 3, 2, 1), (image,)
    yield "avg_pool2d", lambda a: F.avg_pool2d(a, 2), (image,)
    yield "adaptive_avg_pool2d", lambda a: F.adaptive_avg_pool2d(a, 1), (image,)
    yield "interpolate nearest", lambda a: F.interpolate(a, scale_factor=2.0), (image,)
    yield "interpolate bilinear", lambda a: F.interpolate(a, scale_factor=2.0, mode="bilinear"), (image,)
    yield "pixel_shuffle", lambda a: F.pixel_shuffle(a, 2), (image,)
    yield "pixel_unshuffle", lambda a: F.pixel_unshuffle(a, 2), (image,)
    yield "reflection pad", lambda a: F.pad(a, (1, 1, 1, 1), mode="reflect"), (image,)
    yield "channels last", lambda a: a.contiguous(memory_format=torch.channels_last), (image,)
    yield "channels first", lambda a: a.permute(0, 3, 1, 2).contiguous(), (image,)
    pixels = torch.randint(0, 256, (max(1, size // (64 * 64 * 3)), 64, 64, 3), dtype=torch.uint8)
    yield "uint8 image normalised", lambda a: (a.permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.225, (pixels,)
    yield "uint8 image normalised, in place", lambda a: (a.float() / 255 - 0.45) / 0.225, (pixels,)


def _conversions(size: int) -> Iterator[Case]:
    x = (torch.randn(size // 4) * 30).clamp(-120, 120)
    kinds = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "int64": torch.int64,
        "int32": torch.int32,
        "int8": torch.int8,
        "uint8": torch.uint8,
        "bool": torch.bool,
        "float64": torch.float64,
    }
    for source, first in kinds.items():
        for target, second in kinds.items():
            if source != target and ("float32" in (source, target) or (source, target) in _OTHER):
                given = (x.abs() if "u" in source else x).to(first)
                yield f"{source} to {target}", lambda a, t=second: a.to(t), (given,)
    for name in ("bfloat16", "float16"):
        a = x.to(kinds[name])
        yield f"add of {name}", torch.add, (a, a.flip(0))
        yield f"gelu of {name}", F.gelu, (a,)
        yield f"softmax of {name}", lambda a: torch.softmax(a, -1), (a.view(-1, 256),)


_OTHER = {("bfloat16", "float16"), ("int64", "int32"), ("int32", "int64"), ("bool", "int64"), ("uint8", "bfloat16")}

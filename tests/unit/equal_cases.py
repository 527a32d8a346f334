"""Kernels that compute the same, or nearly: what ``torchport equal`` is asked about."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

ROWS, COLUMNS = 5, 100
Case = tuple[Any, tuple[int, ...], dict[str, Any]]


@triton.jit
def online_softmax(x, y, n, BLOCK: tl.constexpr, RESCALE: tl.constexpr = True):
    row = tl.program_id(0)
    most, total = float("-inf"), 0.0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * n + at, mask=at < n, other=float("-inf"))
        larger = tl.maximum(most, tl.max(value, 0))
        if RESCALE:
            total = total * tl.exp(most - larger)
        total += tl.sum(tl.exp(value - larger), 0)
        most = larger
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * n + at, mask=at < n)
        tl.store(y + row * n + at, tl.exp(value - most) / total, mask=at < n)


@triton.jit
def whole_softmax(x, y, n, BLOCK: tl.constexpr, SHORT: tl.constexpr = 0):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + at, mask=at < n - SHORT, other=float("-inf"))
    power = tl.exp2((value - tl.max(value, 0)) * 1.4426950408889634)
    tl.store(y + row * n + at, power * (1 / tl.sum(power, 0)), mask=at < n)


@triton.jit
def product(a, b, c, M, N, K, BLOCK: tl.constexpr, DEEP: tl.constexpr):
    rows, columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, K, DEEP):
        at = start + tl.arange(0, DEEP)
        left = tl.load(a + rows[:, None] * K + at, mask=(rows[:, None] < M) & (at < K), other=0.0)
        right = tl.load(b + at[:, None] * N + columns, mask=(at[:, None] < K) & (columns < N), other=0.0)
        total = tl.dot(left, right, total)
    tl.store(c + rows[:, None] * N + columns, total, mask=(rows[:, None] < M) & (columns < N))


@triton.jit
def two_pass(x, y, n, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + at, mask=at < n, other=0.0)
    mean = tl.sum(value, 0) / n
    centred = tl.where(at < n, value - mean, 0.0)
    tl.store(y + row * n + at, centred * tl.rsqrt(tl.sum(centred * centred, 0) / n + 1e-5), mask=at < n)


@triton.jit
def welford(x, y, n, EPS: tl.constexpr):
    row = tl.program_id(0)
    mean, squares = 0.0, 0.0
    for i in range(0, n):
        value = tl.load(x + row * n + i)
        delta = value - mean
        mean += delta / (i + 1)
        squares += delta * (value - mean)
    for i in range(0, n):
        value = tl.load(x + row * n + i)
        tl.store(y + row * n + i, (value - mean) / tl.sqrt(squares * (1.0 / n) + EPS))


@triton.jit
def sorted_row(x, y, n, BLOCK: tl.constexpr, RANKS: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + at, mask=at < n, other=float("inf"))
    if RANKS:
        before = (value[None, :] < value[:, None]).to(tl.int32)
        tl.store(y + row * n + tl.sum(before, 1), value, mask=at < n)
    else:
        tl.store(y + row * n + at, tl.sort(value), mask=at < n)


@triton.jit
def total_of(idx, x, y, n, BLOCK: tl.constexpr):
    """Sums of rows' elements by an index, in any order."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n, other=0.0)
    tl.atomic_add(y + tl.load(idx + at, mask=at < n, other=0), value, mask=at < n)


@triton.jit
def bits(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * n + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < n
    value = tl.load(x + at, mask=inside).to(tl.int32, bitcast=True)
    tl.store(y + at, (value + 1).to(tl.float32, bitcast=True), mask=inside)


@triton.jit
def outside(x, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    place = tl.load(x + at, mask=at < n, other=0.0).to(tl.int64)
    tl.store(y + place, 1.0)


def _rows(kernel: Any, dtype: torch.dtype = torch.float32, **constants: Any) -> Case:
    x = torch.linspace(-2.0, 3.0, ROWS * COLUMNS).reshape(ROWS, COLUMNS).to(dtype)
    return kernel, (ROWS,), {"x": x, "y": torch.zeros_like(x), "n": COLUMNS, **constants}


def _product(block: int, deep: int, k: int = 40) -> Case:
    m, n = 33, 20
    tensors = {"a": torch.randn(m, 40), "b": torch.randn(40, n), "c": torch.zeros(m, n)}
    grid = (triton.cdiv(m, block), triton.cdiv(n, block))
    return product, grid, {**tensors, "M": m, "N": n, "K": k, "BLOCK": block, "DEEP": deep}


def online_16() -> Case:
    return _rows(online_softmax, BLOCK=16)


def online_64() -> Case:
    return _rows(online_softmax, BLOCK=64)


def online_half() -> Case:
    return _rows(online_softmax, torch.bfloat16, BLOCK=64)


def whole() -> Case:
    return _rows(whole_softmax, BLOCK=128)


def without_rescaling() -> Case:
    return _rows(online_softmax, BLOCK=16, RESCALE=False)


def one_short() -> Case:
    return _rows(whole_softmax, BLOCK=128, SHORT=1)


def product_16() -> Case:
    return _product(16, 16)


def product_32() -> Case:
    return _product(32, 16)


def product_deep() -> Case:
    return _product(16, 32)


def layer_norm() -> Case:
    return _rows(two_pass, BLOCK=128)


def layer_norm_welford() -> Case:
    return _rows(welford, EPS=1e-5)


def layer_norm_epsilon() -> Case:
    return _rows(welford, EPS=1e-6)


def sort() -> Case:
    return _rows(sorted_row, BLOCK=128, RANKS=False)


def ranks() -> Case:
    return _rows(sorted_row, BLOCK=128, RANKS=True)


def _atomics(block: int) -> Case:
    count = 70
    tensors = {"idx": torch.arange(count) % 3, "x": torch.randn(count), "y": torch.zeros(3)}
    return total_of, (triton.cdiv(count, block),), {**tensors, "n": count, "BLOCK": block}


def atomics_16() -> Case:
    return _atomics(16)


def atomics_64() -> Case:
    return _atomics(64)


def of_bits() -> Case:
    return _rows(bits, BLOCK=128)


def by_address() -> Case:
    return _rows(outside, BLOCK=128)


def short_product() -> Case:
    return _product(16, 16, k=39)

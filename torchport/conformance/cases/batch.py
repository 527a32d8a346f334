"""Cases of batch invariance: a kernel's results for a row are the same whatever else is in the batch.

Bits are measured on the target. Where the target shows the order of its operations, they are certified from it as well
(docs/numerics/trees.md): for all numbers, and for batches of every size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from torchport.conformance.case import Bench, Case, Measured, Wrong
from torchport.conformance.kernels import kernel_from, launch
from torchport.conformance.values import draw
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.algebra.user_launch import launch_of
from torchport.numerics.trees.invariance import CERTIFIED, DEPENDS, Invariance, invariance

__all__ = ["MEASURED_ONLY", "cases"]

MEASURED_ONLY = "measured only: the target does not show the order of its sums"
_ROWS = 19
_COLUMNS, _BLOCK = 173, 64
_HEAD = "@triton.jit\ndef kernel(x, y, n, m):\n    row = tl.program_id(0)\n"
_WHOLE = _HEAD + (
    "    c = tl.arange(0, 256)\n"
    "    v = tl.load(x + row * m + c, c < m, OTHER).to(tl.float32)\n"
    "BODY"
    "    tl.store(y + row * m + c, r, c < m)\n"
)  # fmt: skip
_BLOCKS = """@triton.jit
def kernel(x, y, n, m):
    row = tl.program_id(0) * 4 + tl.arange(0, 4)[:, None]
    total = tl.zeros([4, 64], tl.float32)
    for k in range(0, m, 64):
        c = k + tl.arange(0, 64)[None, :]
        v = tl.load(x + row * m + c, (row < n) & (c < m), 0.0).to(tl.float32)
        total += TERM
    tl.store(y + row, tl.sum(total, 1)[:, None] / m, row < n)
"""
_PRODUCT = """@triton.jit
def kernel(x, w, y, n, m):
    row = tl.program_id(0) * 16 + tl.arange(0, 16)[:, None]
    column = tl.arange(0, 16)[None, :]
    total = tl.zeros([16, 16], tl.float32)
    for k in range(0, m, 32):
        c = k + tl.arange(0, 32)
        a = tl.load(x + row * m + c[None, :], (row < n) & (c[None, :] < m), 0.0)
        b = tl.load(w + c[:, None] * 16 + column, c[:, None] < m, 0.0)
        total = tl.dot(a, b, total)
    tl.store(y + row * 16 + column, total, row < n)
"""


def _whole(body: str, other: str = "0.0") -> str:
    return _WHOLE.replace("BODY", "".join(f"    {line}\n" for line in body.split("; "))).replace("OTHER", other)


_KERNELS: dict[str, tuple[str, int, int | None]] = {
    "softmax": (_whole("e = tl.exp(v - tl.max(v, 0)); r = e / tl.sum(e, 0)", '-float("inf")'), 1, _COLUMNS),
    "layer_norm": (
        _whole("d = tl.where(c < m, v - tl.sum(v, 0) / m, 0.0); r = d / tl.sqrt(tl.sum(d * d, 0) / m + 1e-5)"),
        1,
        _COLUMNS,
    ),
    "mean": (_BLOCKS.replace("TERM", "v"), 4, None),
    "mean_square": (_BLOCKS.replace("TERM", "v * v"), 4, None),
}
"""Source, rows of a program, and columns of the result; None for one number a row."""


def cases() -> Iterator[Case]:
    """All cases of this file."""
    for op, (source, rows, columns) in _KERNELS.items():
        for dtype in ("fp32", "bf16"):
            run = _rows(source, rows, columns, dtype)
            level = "quick" if dtype == "fp32" or op == "mean_square" else "full"
            yield Case("batch", op, dtype, (_ROWS, _COLUMNS), "randn", run, (dtype, "fp32"), level)
    run = _rows(_PRODUCT, 16, 16, "fp32", weights=True)
    yield Case("batch", "dot", "fp32", (_ROWS, 40, 16), "randn", run, ("fp32",), "full")


def _rows(
    source: str, rows: int, columns: int | None, dtype: str, *, weights: bool = False
) -> Callable[[Bench], Measured]:
    length = 40 if weights else _COLUMNS

    def arguments(count: int) -> tuple[tuple[int, int, int], dict[str, Any]]:
        x = draw(dtype, (_ROWS, length), "randn", "x")[:1].expand(count, length) if count > _ROWS else (
            draw(dtype, (_ROWS, length), "randn", "x")[:count]
        )  # fmt: skip
        given: dict[str, Any] = {"x": x.clone()}
        if weights:
            given["w"] = draw(dtype, (length, 16), "randn", "w")
        given["y"] = torch.zeros((count, columns) if columns else (count,), dtype=x.dtype)
        return (-(-count // rows), 1, 1), {**given, "n": count, "m": length}

    def run(bench: Bench) -> Measured:
        whole = _launched(bench, source, arguments(_ROWS))
        for count in (1, 2, 5, 17):
            some = _launched(bench, source, arguments(count))
            for row in range(count):
                if not torch.equal(_bits(some[row]), _bits(whole[row])):
                    raise Wrong(f"row {row} has other bits in a batch of {count} than in one of {_ROWS}")
        kernel = kernel_from(source)

        def made(count: int) -> AlgebraLaunch:
            return launch_of(kernel, *arguments(count), target=bench.target)

        return Measured(notes=_notes(invariance(made, bench.target)))

    return run


def _launched(bench: Bench, source: str, case: tuple[tuple[int, int, int], dict[str, Any]]) -> torch.Tensor:
    grid, given = case
    launch(bench, source, given, grid, elements=1024)
    result: torch.Tensor = given["y"]
    return result


def _bits(row: torch.Tensor) -> torch.Tensor:
    return row.reshape(-1).contiguous().view(torch.uint8)


def _notes(found: Invariance) -> tuple[str, ...]:
    """What is stated beside the measured bits. Raises Wrong if the order shows that rows depend on the batch."""
    if found.verdict == DEPENDS:
        raise Wrong(f"the order of the kernel's operations: {found.reason}")
    if found.verdict != CERTIFIED:
        return (MEASURED_ONLY,)
    sizes = ", ".join(map(str, found.sizes))
    return () if found.every_size else (f"certified for batches of {sizes} rows only: {found.reason}",)

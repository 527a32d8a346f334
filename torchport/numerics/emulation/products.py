"""Matrix products of CPU tensors in another chip's arithmetic: ``torchport.kernels.dot`` on the CPU target."""

from __future__ import annotations

import torch

from torchport.kernels.products import STRIDES, block_rows, grid, strides
from torchport.numerics.emulation.kernels import TYPES, EmulatedKernel

__all__ = ["TYPES", "product"]

_ROWS, _COLUMNS, _TERMS = (16, 64), 64, 64
_NUMBERS = (
    *((name, "i32") for name in ("m", "n", "k")),
    *((name, "i64") for name in STRIDES),
    ("alpha", "fp32"),
    ("beta", "fp32"),
)


def product(
    arithmetic: str,
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    precision: str = "ieee",
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """beta * bias + alpha * (a @ b), computed as ``tl.dot`` would on the chip.

    ``a``: [(batch,) m, k], ``b``: [(batch,) k, n], of one of TYPES; ``bias``: what the result's shape takes;
    ``arithmetic``: the option of CPU kernels, JSON; ``precision``: ``input_precision`` of f32; ``dtype``: the result's,
    by default the operands'. Blocks of 64 terms follow each other in one accumulator.
    """
    shape = (*a.shape[:-1], b.shape[-1])
    out = torch.empty(shape, dtype=dtype or a.dtype)
    if bias is not None:
        bias = bias.expand(shape)
    if a.shape[-1] == 0 or 0 in shape:
        return out.zero_() if bias is None else out.copy_(beta * bias)
    rows = block_rows(_ROWS, shape[-2])
    pointers = {"a": a, "b": b, "bias": out if bias is None else bias, "out": out}
    constants = {
        "PRECISION": precision, "SCALED": alpha != 1, "BIASED": bias is not None,
        "BLOCK_M": rows, "BLOCK_N": _COLUMNS, "BLOCK_K": _TERMS,
    }  # fmt: skip
    types = (*((name, f"*{TYPES[one.dtype]}") for name, one in pointers.items()), *_NUMBERS)
    kernel = EmulatedKernel("dot", "dot_product", arithmetic, types, tuple(constants.items()))
    sizes = (*shape[-2:], a.shape[-1])
    matrices = (a, b, bias, out)
    kernel.launch(grid(shape, rows, _COLUMNS), *matrices, *sizes, *strides(matrices), float(alpha), float(beta))
    return out

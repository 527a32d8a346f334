"""Triton kernels written for the benchmark, in the idiom of a kernel library, and the cases that are made of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

from kernel_bench.case import Case, Sizes

MODULES = {
    "pointwise": ("add", "gelu", "dropout", "rotary"),
    "rows": ("softmax", "softmax_backward", "cross_entropy", "cross_entropy_backward"),
    "norms": ("layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward"),
    "movement": ("transpose", "swap_heads", "gather", "scatter", "scatter_add"),
    "scans": ("cumsum", "sort"),
    "matmul": ("matmul_fp32", "matmul_bf16", "matmul_int8"),
    "attention": ("attention", "attention_backward"),
}
KERNELS = tuple(name for names in MODULES.values() for name in names)


def cases(kernel: str, sizes: Sizes) -> Iterator[Case]:
    """The cases of a kernel, one at a time: each makes its tensors when it is asked for."""
    module = next(module for module, names in MODULES.items() if kernel in names)
    make: Callable[[Sizes], Iterator[Case]] = getattr(importlib.import_module(f"{__name__}.{module}"), kernel)
    return make(sizes)

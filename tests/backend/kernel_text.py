"""Runs a few lines of Triton on tensors: the kernel around them is written here.

    z, = evaluate("z = x + tl.sum(y, 0)", {"x": x, "y": y}, {"z": (x.shape, torch.float32)})

becomes a kernel of one program instance that loads ``x`` and ``y`` whole, runs the text and stores ``z`` whole.
"""

from __future__ import annotations

import functools
import itertools
import linecache
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

__all__ = ["call", "evaluate", "kernel_from", "offsets"]

_numbers = itertools.count()


def offsets(shape: Sequence[int]) -> str:
    """The text of row-major element offsets of a block of ``shape``; a scalar has none."""
    terms, stride = [], 1
    for axis in reversed(range(len(shape))):
        index = ", ".join(":" if other == axis else "None" for other in range(len(shape)))
        terms.append(f"tl.arange(0, {shape[axis]})[{index}] * {stride}")
        stride *= shape[axis]
    return " + ".join(terms) or "0"


@functools.cache
def kernel_from(source: str, **names: Any) -> Any:
    """A ``triton.jit`` kernel from its text; the function is called ``kernel``. ``names`` are its globals.

    Triton reads a function's source again, through ``linecache``, so the text is put there.
    """
    filename = f"<kernel {next(_numbers)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope: dict[str, Any] = {"tl": tl, "triton": triton, "libdevice": libdevice, **names}
    exec(compile(source, filename, "exec"), scope)
    return triton.jit(scope["kernel"])


def evaluate(
    body: str,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, tuple[Sequence[int], torch.dtype]],
    **names: Any,
) -> list[torch.Tensor]:
    """Run ``body`` on whole tensors in one program instance.

    ``inputs``: contiguous tensors, sizes powers of two; each is a block of its name in the body (a 0-d tensor is a
    scalar). ``outputs``: shape and dtype of the values stored. ``names``: globals of the kernel, such as combine
    functions. Returns the outputs in order.
    """
    results = {name: torch.empty(tuple(shape), dtype=dtype) for name, (shape, dtype) in outputs.items()}
    lines = [f"{name} = tl.load({name}_ptr + {offsets(x.shape)})" for name, x in inputs.items()]
    lines += textwrap.dedent(body).strip().splitlines()
    lines += [f"tl.store({name}_ptr + {offsets(z.shape)}, {name})" for name, z in results.items()]
    arguments = ", ".join(f"{name}_ptr" for name in (*inputs, *results))
    source = f"def kernel({arguments}):\n" + textwrap.indent("\n".join(lines), "    ") + "\n"
    kernel_from(source, **names)[(1,)](*inputs.values(), *results.values())
    return list(results.values())


def call(cases: Mapping[str, tuple[str, Sequence[torch.Tensor], torch.dtype]]) -> list[tuple[str, torch.Tensor]]:
    """One kernel that calls several functions: name -> (text of the function, arguments, dtype of the result).

    Returns the names with the results, in order. All arguments of one call have one shape.
    """
    inputs = {f"{name}_{i}": x for name, (_, xs, _) in cases.items() for i, x in enumerate(xs)}
    arguments = {name: ", ".join(f"{name}_{i}" for i in range(len(xs))) for name, (_, xs, _) in cases.items()}
    lines = [f"{name} = {function}({arguments[name]})" for name, (function, _, _) in cases.items()]
    outputs = {name: (xs[0].shape, dtype) for name, (_, xs, dtype) in cases.items()}
    return list(zip(cases, evaluate("\n".join(lines), inputs, outputs), strict=True))

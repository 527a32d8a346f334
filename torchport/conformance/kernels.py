"""Builds Triton kernels from a few lines of text and launches them on a target through its plugin."""

from __future__ import annotations

import functools
import itertools
import linecache
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torchport.conformance.case import Bench, Wrong
from torchport.conformance.values import pointer
from torchport.errors import CompilationError
from torchport.plugin import backend_for

__all__ = ["GUARD", "Guarded", "check", "evaluate", "kernel_from", "launch", "offsets"]

GUARD = 64
"""Elements before and after an output that a kernel must not write."""

_numbers = itertools.count()


class Guarded:
    """An output tensor inside a larger one, whose other elements are checked afterwards.

    ``initial``: the byte that fills it, or a tensor to copy.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, initial: torch.Tensor | int = 0x5A) -> None:
        count = int(torch.Size(shape).numel())
        size = torch.empty(0, dtype=dtype).element_size()
        self._bytes = torch.full(((count + 2 * GUARD) * size,), 0x5A, dtype=torch.uint8)
        self._ends = GUARD * size
        inner = self._bytes[self._ends : self._bytes.numel() - self._ends]
        self.tensor = inner.view(dtype).reshape(tuple(shape))
        if isinstance(initial, torch.Tensor):
            self.tensor.copy_(initial)
        elif initial != 0x5A:
            inner.fill_(initial)
        if dtype == torch.bool:
            self.tensor.fill_(False)

    def check(self, name: str) -> None:
        """Raise Wrong if anything around the tensor was written."""
        ends = self._ends
        for where, part in (("before", self._bytes[:ends]), ("behind", self._bytes[self._bytes.numel() - ends :])):
            changed = int((part != 0x5A).sum())
            if changed:
                raise Wrong(f"{changed} bytes {where} output {name} were written")


@functools.cache
def kernel_from(source: str) -> Any:
    """Build a ``triton.jit`` function from text, whose last function is called ``kernel``.

    Triton reads a function's source again through ``linecache``, so the text is stored there.
    """
    import triton
    import triton.language as tl
    from triton.language.extra import libdevice

    filename = f"<conformance {next(_numbers)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope: dict[str, Any] = {"__name__": __name__, "tl": tl, "triton": triton, "libdevice": libdevice}
    exec(compile(source, filename, "exec"), scope)
    return scope["kernel"]


def launch(
    bench: Bench,
    source: str,
    arguments: Mapping[str, torch.Tensor | int | float],
    grid: tuple[int, int, int] = (1, 1, 1),
    elements: int = 256,
    scalars: Mapping[str, str] | None = None,
) -> None:
    """Compile a kernel for the target and launch it over ``grid`` on tensors of the driver's device.

    arguments: by the kernel's names, in order.
    elements: of its blocks, which determines the SIMD groups.
    scalars: Triton types of numbers; by default ``i32`` for an int and ``fp32`` for a float.

    Raises what compiling and loading raise; an error of the vendor's becomes a CompilationError.
    """
    from triton.errors import TritonError

    from torchport.triton.compat import ASTSource

    scalar_types = scalars or {}
    signature = {
        name: pointer(value)
        if isinstance(value, torch.Tensor)
        else scalar_types.get(name, "fp32" if isinstance(value, float) else "i32")
        for name, value in arguments.items()
    }
    backend = backend_for(bench.target)
    options = {"num_warps": bench.able.groups_for(elements), "debug": True, "sanitize_overflow": False}
    if bench.bf16_products == "pairs" and bench.able.bf16_pairs:
        options["bf16_pairs"] = True
    try:
        binary = backend.compiler(bench.target).compile(ASTSource(kernel_from(source), signature, {}), options)
    except TritonError as error:
        raise CompilationError(f"Triton's frontend refuses the kernel: {_innermost(error)}", stage="ttir") from error
    driver = backend.driver(bench.target)
    launcher, function = driver.load(binary, list(signature.values()))
    bound = launcher.bind(*grid, function)
    if driver.device == "cpu":
        bound(*arguments.values())
        return
    moved = {k: v.to(driver.device) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    bound(*moved.values())
    for name, value in moved.items():
        host = arguments[name]
        if isinstance(value, torch.Tensor) and isinstance(host, torch.Tensor):
            host.copy_(value)


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__


def offsets(shape: Sequence[int], sizes: Sequence[int] | None = None) -> str:
    """The text of the row-major offsets of a block of ``shape`` in a tensor of ``sizes``."""
    sizes = shape if sizes is None else sizes
    terms, stride = [], 1
    for axis in reversed(range(len(shape))):
        index = ", ".join(":" if other == axis else "None" for other in range(len(shape)))
        terms.append(f"tl.arange(0, {shape[axis]})[{index}] * {stride}")
        stride *= sizes[axis]
    return " + ".join(terms) or "0"


def evaluate(
    bench: Bench,
    body: str,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, tuple[Sequence[int], torch.dtype]],
    helpers: str = "",
) -> list[torch.Tensor]:
    """Run ``body`` on whole blocks in one program instance.

    Inputs (sizes powers of 2) are loaded under their names, outputs are stored from theirs. ``helpers``: text of
    functions that the body calls. Returns the outputs. Raises Wrong if the kernel wrote around an output or to an
    input.
    """
    guarded = {name: Guarded(shape, dtype) for name, (shape, dtype) in outputs.items()}
    lines = [f"{name} = tl.load({name}_ptr + {offsets(x.shape)})" for name, x in inputs.items()]
    lines += textwrap.dedent(body).strip().splitlines()
    lines += [f"tl.store({name}_ptr + {offsets(output.tensor.shape)}, {name})" for name, output in guarded.items()]
    names = ", ".join(f"{name}_ptr" for name in (*inputs, *outputs))
    source = f"@triton.jit\ndef kernel({names}):\n{textwrap.indent(chr(10).join(lines), '    ')}\n"
    before = {name: x.clone() for name, x in inputs.items()}
    arguments = {f"{name}_ptr": x for name, x in inputs.items()}
    arguments |= {f"{name}_ptr": output.tensor for name, output in guarded.items()}
    elements = max([x.numel() for x in arguments.values()])
    launch(bench, f"{textwrap.dedent(helpers)}\n{source}", arguments, elements=elements)
    check(guarded, inputs, before)
    return [output.tensor for output in guarded.values()]


def check(
    guarded: Mapping[str, Guarded], inputs: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor]
) -> None:
    """Raise Wrong if anything around an output, or an input, was written."""
    for name, one in guarded.items():
        one.check(name)
    for name, x in inputs.items():
        if not torch.equal(x.reshape(-1).view(torch.uint8), before[name].reshape(-1).view(torch.uint8)):
            raise Wrong(f"input {name} was changed")

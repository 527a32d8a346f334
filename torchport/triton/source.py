"""Triton kernels as source text: executing it, and what comments at its start say about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchport.errors import CompilationError

__all__ = ["TritonKernel", "arithmetic_of", "in_arithmetic", "in_configuration", "last_line", "triton_kernel"]


@dataclass(frozen=True)
class TritonKernel:
    """A kernel's source, executed: the Triton function and what it is compiled with.

    ``signature``: Triton's type of each argument; ``constants``: values of those that are compiled in; ``blocks``: the
    block sizes chosen for it, the rest of these; ``options``: Triton's, for any target.
    """

    function: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    blocks: Mapping[str, int]
    attributes: Any
    options: Mapping[str, Any]

    def source(self, blocks: Mapping[str, int]) -> Any:
        """What ``triton.compile`` takes, for these block sizes."""
        from torchport.triton.compat import ASTSource

        return ASTSource(self.function, dict(self.signature), {**self.constants, **blocks}, self.attributes)


def triton_kernel(name: str, source: str) -> TritonKernel:
    """Execute a kernel's source. Triton's active driver is what it was afterwards.

    Raises CompilationError for a source with several configurations where it is not known which one is meant.
    """
    from torchport.triton.compat import PyCodeCache, driver

    before = driver.active
    try:
        # Sources set a driver; those of a GPU are read where there is none, too.
        kernel = getattr(PyCodeCache.load(source.replace("triton_helpers.set_driver_to_gpu()\n", "")), name)
    finally:
        driver.set_active(before)
    meta, options = kernel.triton_meta, {}
    candidates = [dict(one.kwargs) for one in kernel.configs]
    if (chosen := _configuration_of(source)) is not None:
        candidates = [{one: value for one, value in chosen.items() if one in kernel.fn.arg_names}] if chosen else []
        options = {one: value for one, value in chosen.items() if one not in kernel.fn.arg_names}
    if len(candidates) != 1:
        raise CompilationError(f"kernel {name}: which of its configurations is meant is not known", kernel=name)
    (blocks,) = candidates
    options |= {
        "debug": kernel.inductor_meta.get("assert_indirect_indexing", True),
        "sanitize_overflow": False,
        "enable_fp_fusion": meta.get("enable_fp_fusion", True),
    }
    return TritonKernel(kernel.fn, meta["signature"], meta["constants"], blocks, meta["configs"][0], options)


_CONFIGURATION = "# torchport configuration: "


def in_configuration(source: str, configuration: str) -> str:
    """A kernel's source with the one of its configurations that is meant in a comment before it: JSON of block sizes
    and other arguments that are compiled in, and of Triton's options; null where it is not known."""
    return f"{_CONFIGURATION}{configuration}\n{source}"


def _configuration_of(source: str) -> dict[str, Any] | None:
    """The configuration a source says, empty where that is not known; None where the source does not say one."""
    first = source.partition("\n")[0]
    return dict(json.loads(first.removeprefix(_CONFIGURATION)) or {}) if first.startswith(_CONFIGURATION) else None


_ARITHMETIC = "# torchport arithmetic: "


def in_arithmetic(source: str, arithmetic: str) -> str:
    """A kernel's source with the option ``arithmetic`` it is to be compiled with, in a comment before it."""
    return f"{_ARITHMETIC}{arithmetic}\n{source}" if arithmetic else source


def arithmetic_of(source: str) -> str:
    """The option ``arithmetic`` that a kernel's source says, empty where it says none.

    Generated code holds the source behind a line break, and compiles it from there where no cache has the kernel.
    """
    first = source.lstrip("\n").partition("\n")[0]
    return first.removeprefix(_ARITHMETIC) if first.startswith(_ARITHMETIC) else ""


def last_line(error: BaseException) -> str:
    """The line of Triton's innermost error that says what is wrong; the kernel's source stands before it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__

"""Executes the source of Triton kernels, and reads and writes the comments at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchport.arithmetic.rules import check
from torchport.errors import CompilationError, OptionError
from torchport.files import parse_json

__all__ = [
    "PAIRS",
    "PAIRS_LINE",
    "TritonKernel",
    "arithmetic_of",
    "has_pairs",
    "in_arithmetic",
    "in_configuration",
    "last_line",
    "rules_of",
    "triton_kernel",
    "with_elements",
    "with_pairs",
]


@dataclass(frozen=True)
class TritonKernel:
    """A kernel's source, executed: the Triton function and what it is compiled with.

    ``function``: the Triton function.
    ``signature``: Triton's type of each argument.
    ``constants``: values of arguments that are compiled in, except for block sizes.
    ``blocks``: the block sizes chosen for it.
    ``attributes``: what Triton knows about arguments (divisibility).
    ``options``: Triton's, for any target.
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
    """Execute a kernel's source. Triton's active driver does not change.

    Raises CompilationError for a source with several configurations that does not say which one applies.
    """
    from torchport.triton.compat import PyCodeCache, driver

    before = driver.active
    try:
        # A GPU kernel's source sets Triton's driver, which fails on a machine without that GPU. Inductor loads kernels
        # of subgraphs itself, through the same cache, and uses their configurations up: the comment makes another file.
        text = source.replace("triton_helpers.set_driver_to_gpu()\n", "") + "\n# executed by torchport\n"
        kernel = getattr(PyCodeCache.load(text), name)
    finally:
        driver.set_active(before)
    meta, options = kernel.triton_meta, {}
    candidates = [dict(config.kwargs) for config in kernel.configs]
    if (configuration := _configuration_of(source)) is not None:
        arguments = {key: value for key, value in configuration.items() if key in kernel.fn.arg_names}
        candidates = [arguments] if configuration else []
        options = {key: value for key, value in configuration.items() if key not in arguments}
    if len(candidates) != 1:
        raise CompilationError(f"kernel {name}: which of its configurations applies is not known", kernel=name)
    (blocks,) = candidates
    options |= {
        "debug": kernel.inductor_meta.get("assert_indirect_indexing", True),
        "sanitize_overflow": False,
        "enable_fp_fusion": meta.get("enable_fp_fusion", True),
        "bf16_pairs": has_pairs(source),
        "large": _is_large(source),
    }
    return TritonKernel(kernel.fn, meta["signature"], meta["constants"], blocks, meta["configs"][0], options)


_CACHED = 2**22
"""Elements of 8 bytes that the last cache of a core holds, at least in part."""
_ELEMENTS = "# torchport elements: "


def with_elements(source: str, count: int) -> str:
    """A kernel's source with the number of elements that all its programs work on, which no tensor has more of."""
    return f"{source}{_ELEMENTS}{count}\n"


def _is_large(source: str) -> bool:
    """Whether a kernel may write more than caches hold: it does not say how much, or says that it is as much."""
    _, said, rest = source.rpartition(_ELEMENTS)
    return not said or int(rest.partition("\n")[0]) > _CACHED


PAIRS = "bf16 pairs"
"""The architecture of a CPU's target under which a user-defined kernel of a graph has the option ``bf16_pairs``."""
PAIRS_LINE = f"# torchport {PAIRS}\n"
"""A line of a kernel's source that has the option ``bf16_pairs``."""


def with_pairs(source: str) -> str:
    """A kernel's source with the option ``bf16_pairs``: its products of bf16 may take denormals for zeros."""
    return source if PAIRS_LINE in source else f"{source}{PAIRS_LINE}"


def has_pairs(source: str) -> bool:
    """Whether a kernel's source has the option ``bf16_pairs``."""
    return PAIRS_LINE in source


_CONFIGURATION = "# torchport configuration: "


def in_configuration(source: str, configuration: str) -> str:
    """A kernel's source under a comment with the configuration that applies.

    ``configuration``: JSON of the arguments that are compiled in and of Triton's options; null if not known.
    """
    return f"{_CONFIGURATION}{configuration}\n{source}"


def _configuration_of(source: str) -> dict[str, Any] | None:
    """The configuration in a source's comment, empty if not known; None without such a comment."""
    first = source.partition("\n")[0]
    if not first.startswith(_CONFIGURATION):
        return None
    configuration: Any = dict[str, Any] | None
    return dict(
        parse_json(first.removeprefix(_CONFIGURATION), configuration, "a kernel's configuration", CompilationError)
        or {}
    )


_ARITHMETIC = "# torchport arithmetic: "


def in_arithmetic(source: str, arithmetic: str) -> str:
    """A kernel's source under a comment with its option ``arithmetic``; unchanged if that is empty."""
    return f"{_ARITHMETIC}{arithmetic}\n{source}" if arithmetic else source


def arithmetic_of(source: str) -> str:
    """The option ``arithmetic`` in the comment of a kernel's source; empty without one.

    In generated code the source starts with a line break. A comment with the configuration may stand before it.
    """
    lines = source.lstrip("\n").split("\n", 2)
    first = lines[1] if lines[0].startswith(_CONFIGURATION) and len(lines) > 1 else lines[0]
    return first.removeprefix(_ARITHMETIC) if first.startswith(_ARITHMETIC) else ""


def rules_of(source: str) -> dict[str, Any]:
    """The arithmetic rules in the comment of a kernel's source; empty without one. Raises OptionError if not valid."""
    text = arithmetic_of(source)
    arithmetic = parse_json(text, dict[str, Any], "a kernel's arithmetic", OptionError) if text else {}
    return check(arithmetic.get("rules", {}))


def last_line(error: BaseException) -> str:
    """The last line of Triton's innermost error, which says what is wrong; the kernel's source precedes it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__

"""Inductor's own options and modes: what is valid, and the values torchport sets by default."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from typing import Any

from torchport.errors import OptionError

__all__ = ["DEFAULTS", "mode_options", "validate_options"]

DEFAULTS: Mapping[str, Any] = {
    # Kernels are compiled in this process: starting Inductor's worker pool takes longer than compiling does.
    "compile_threads": 1,
    # Nothing is benchmarked: each kernel has the one configuration chosen by torchport.inductor.codegen.choices.
    "triton.autotune_at_compile_time": False,
    "triton.multi_kernel": 0,
    "max_autotune_gemm_backends": "ATEN",
    "max_autotune_conv_backends": "ATEN",
    # CUDA graphs' parts of a graph, one function each. Without a GPU there is one part.
    "graph_partition": False,
    # A cooperative or mixed-order reduction trades arithmetic for occupancy of a GPU.
    "triton.cooperative_reductions": False,
    "triton.mix_order_reduction": False,
    # 16-bit values have the rounding that eager gives them, in every place where they are used.
    "emulate_precision_casts": True,
    # Iterate over the tensors' own dimensions: flattened, every index would be a division and a remainder.
    "triton.prefer_nd_tiling": True,
    "triton.max_tiles": 3,
}
"""Options torchport sets unless the user sets them."""


def mode_options(mode: str | None) -> dict[str, Any]:
    """The Inductor options that ``mode`` of torch.compile stands for. Raises OptionError for an unknown mode."""
    from torchport.inductor.compat import list_mode_options

    modes: dict[str, dict[str, Any]] = list_mode_options()
    if mode is None or mode == "default":
        return {}
    if mode not in modes:
        raise OptionError(f"mode {mode!r} is not valid; modes: {', '.join(sorted({'default', *modes}))}")
    return dict(modes[mode])


def validate_options(options: Mapping[str, Any], own: tuple[str, ...]) -> dict[str, Any]:
    """Check Inductor options by name and type; returns them by Inductor's spelling (``-`` reads as ``_``).

    ``own`` are the names of torchport's options, offered too when a name is misspelt. Raises OptionError.
    """
    from torchport.inductor.compat import config as module

    config: Any = module  # its functions are installed when it is imported
    known = config.get_config_copy()
    checked: dict[str, Any] = {}
    for key, value in options.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, [*own, *known], n=3)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"torchport's are {', '.join(own)}"
            raise OptionError(
                f"option {key!r} is neither torchport's nor Inductor's; {hint} "
                "(Inductor's: torch._inductor.list_options())"
            )
        if name == "freezing" and value:
            raise OptionError(
                f"option {key!r} comes too late here, as Dynamo reads it while it traces: "
                "set torch._inductor.config.freezing = True before the first call"
            )
        expected = config.get_type(name)
        if typing.get_origin(expected) is None and isinstance(expected, type) and not isinstance(value, expected):
            raise OptionError(
                f"option {key!r} takes a value of type {expected.__name__}, not {type(value).__name__} ({value!r})"
            )
        checked[name] = value
    return checked

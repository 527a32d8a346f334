"""What Triton's frontend and its TTIR passes need of a target that torchport lowers itself.

Checked against Triton 3.6 and 3.7.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from triton import knobs
from triton._C.libtriton import ir, passes

__all__ = ["SIMTOptions", "make_ttir", "module_map", "parse_options"]


@dataclass(frozen=True)
class SIMTOptions:
    """Options of one kernel. ``debug`` keeps ``tl.device_assert``; ``sanitize_overflow`` adds overflow checks;
    ``enable_fp_fusion`` allows a * b + c in one rounding.
    """

    debug: bool = False
    sanitize_overflow: bool = False
    enable_fp_fusion: bool = True
    # What Triton's frontend reads.
    arch: str = ""
    backend_name: str = "torchport"
    supported_fp8_dtypes: tuple[str, ...] = ("fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16")
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    default_dot_input_precision: str = "ieee"
    allowed_dot_input_precisions: tuple[str, ...] = ("ieee",)
    max_num_imprecise_acc_default: int = 0
    extern_libs: tuple[tuple[str, str], ...] = ()
    ir_override: str | None = None
    instrumentation_mode: str = ""
    # Words of Triton's own GPU targets. How many lanes a kernel gets follows from its blocks and the target's
    # capabilities, so that these keep their values whatever is passed.
    num_warps: int = 1
    num_ctas: int = 1
    num_stages: int = 1
    warp_size: int = 1
    maxnreg: int | None = None
    cluster_dims: tuple[int, ...] = (1, 1, 1)
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False

    def hash(self) -> str:
        """Key of these options in Triton's cache."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


_MEANINGFUL = ("debug", "sanitize_overflow", "enable_fp_fusion", "ir_override", "instrumentation_mode")
KNOWN = frozenset(f.name for f in fields(SIMTOptions))


def parse_options(opts: dict[str, Any], architecture: str, precisions: frozenset[str]) -> SIMTOptions:
    """Options from what a caller passed. Raises AssertionError for a ``num_warps`` that other targets refuse."""
    warps = opts.get("num_warps", 1)
    assert warps > 0 and warps & (warps - 1) == 0, f"num_warps must be a power of 2, not {warps}"
    taken = {k: v for k, v in opts.items() if k in _MEANINGFUL and v is not None}
    taken.setdefault("sanitize_overflow", bool(taken.get("debug")))
    taken.setdefault("enable_fp_fusion", knobs.language.default_fp_fusion)
    return SIMTOptions(arch=architecture, allowed_dot_input_precisions=tuple(sorted(precisions)), **taken)


def module_map() -> dict[str, ModuleType]:
    """``tl.extra.libdevice`` is torchport's own."""
    from torchport_passes import libdevice

    return {"triton.language.extra.libdevice": libdevice}


def make_ttir(module: Any) -> Any:
    """Triton's target-independent clean-up of what its frontend built."""
    manager = ir.pass_manager(module.context)
    manager.enable_debug()
    passes.common.add_inliner(manager)
    passes.ttir.add_rewrite_tensor_pointer(manager)
    passes.ttir.add_rewrite_tensor_descriptor_to_pointer(manager)
    passes.common.add_canonicalizer(manager)
    passes.ttir.add_combine(manager)
    passes.ttir.add_reorder_broadcast(manager)
    passes.common.add_cse(manager)
    passes.ttir.add_triton_licm(manager)
    passes.ttir.add_loop_unroll(manager)
    passes.common.add_symbol_dce(manager)
    manager.run(module, "make_ttir")
    return module

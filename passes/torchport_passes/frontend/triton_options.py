"""Options of Triton's frontend, and its passes on TTIR, for targets that torchport lowers itself.

Checked against Triton 3.6 and 3.7.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from typing import Any

from triton import knobs
from triton._C.libtriton import ir, passes

__all__ = ["FrontendOptions", "accepted_options", "make_ttir"]


@dataclass(frozen=True)
class FrontendOptions:
    """Options of one kernel.

    ``debug``: keep ``tl.device_assert``.
    ``sanitize_overflow``: add overflow checks; by default the value of ``debug``.
    ``enable_fp_fusion``: round a * b + c only once.
    ``bf16_pairs``: ``tl.dot`` of bf16 may use an instruction that adds up pairs of products and takes denormals for
    zeros, where the target has one; without it the products are exact in f32.
    ``large``: a launch may write more than the caches hold. Where that is known not to be, no code provides for it.
    """

    debug: bool = False
    sanitize_overflow: bool = False
    enable_fp_fusion: bool = True
    bf16_pairs: bool = False
    large: bool = True
    # Read by Triton's frontend.
    arch: str = ""
    backend_name: str = ""
    supported_fp8_dtypes: tuple[str, ...] = ("fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16")
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    default_dot_input_precision: str = "ieee"
    dot_precisions: tuple[str, ...] = ("ieee",)
    max_num_imprecise_acc_default: int = 0
    extern_libs: tuple[tuple[str, str], ...] = ()
    ir_override: str | None = None
    instrumentation_mode: str = ""
    # Options of GPUs, which have no meaning here. Callers pass them, so they are accepted, but keep these values:
    # kernels that differ in nothing else are compiled once.
    num_warps: int = 1
    num_ctas: int = 1
    num_stages: int = 1
    warp_size: int = 1
    maxnreg: int | None = None
    cluster_dims: tuple[int, ...] = (1, 1, 1)
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False

    @property
    def allowed_dot_input_precisions(self) -> tuple[str, ...]:
        """Precisions that ``tl.dot`` may name.

        ``tl.dot`` with neither ``input_precision`` nor ``allow_tf32`` takes tf32 if a target allows it. The default of
        these targets is ieee, so tf32 is left out if ``tl.dot`` asks without them (Triton 3.6 and 3.7,
        ``language/core.py``).
        """
        asking = sys._getframe(1)
        names_none = asking.f_code.co_name == "dot" and asking.f_locals.get("allow_tf32") is None
        return ("ieee", self.default_dot_input_precision) if names_none else self.dot_precisions

    def hash(self) -> str:
        """Key of these options in Triton's cache."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


_MEANINGFUL = (
    "debug",
    "sanitize_overflow",
    "enable_fp_fusion",
    "bf16_pairs",
    "large",
    "ir_override",
    "instrumentation_mode",
    "arithmetic",
    "confined",
)


def accepted_options(opts: dict[str, Any]) -> dict[str, Any]:
    """The options of a caller that have a meaning here, with defaults. Unknown names are left to Triton.

    Raises AssertionError for a ``num_warps`` that other targets refuse, so that kernels that run here run there.
    """
    warps = opts.get("num_warps", 1)
    assert warps > 0 and warps & (warps - 1) == 0, f"num_warps must be a power of 2, not {warps}"
    accepted = {k: v for k, v in opts.items() if k in _MEANINGFUL and v is not None}
    accepted.setdefault("sanitize_overflow", bool(accepted.get("debug")))
    accepted.setdefault("enable_fp_fusion", knobs.language.default_fp_fusion)
    return accepted


def make_ttir(module: Any, metadata: dict[str, Any]) -> Any:
    """The first stage: Triton's target-independent clean-up of what its frontend built."""
    manager = ir.pass_manager(module.context)
    manager.enable_debug()
    passes.common.add_inliner(manager)
    passes.ttir.add_rewrite_tensor_pointer(manager)
    passes.ttir.add_rewrite_tensor_descriptor_to_pointer(manager)
    passes.common.add_canonicalizer(manager)
    if not _reduces_to_several_results(module):
        passes.ttir.add_combine(manager)
    passes.ttir.add_reorder_broadcast(manager)
    passes.common.add_cse(manager)
    passes.ttir.add_triton_licm(manager)
    passes.ttir.add_loop_unroll(manager)
    passes.common.add_symbol_dce(manager)
    manager.run(module, "make_ttir")
    return module


def _reduces_to_several_results(module: Any) -> bool:
    """Whether a reduction has more than one result: Triton's combine pass then takes a product for a matrix product.

    It fails there (triton-lang/triton#11662), and a single one of its patterns cannot be left out.
    """
    found = False

    def visit(operation: Any) -> None:
        nonlocal found
        found = found or (operation.get_name() == "tt.reduce" and operation.get_num_results() > 1)

    module.walk(visit)
    return found

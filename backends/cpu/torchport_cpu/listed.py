"""What the CPU target makes of a kernel, as plain data."""

from __future__ import annotations

from torchport.listing import Listing
from torchport.pipeline import Pipeline

__all__ = ["listing"]


def listing(ttir: str, stage: str, arithmetic: str = "") -> Listing:
    """As ``torchport.listing.Lists.listing``, for this machine or the level that is compiled for."""
    from torchport_passes.arithmetic.passes_for import passes_for
    from torchport_passes.frontend.importer import LOOP_HINTS, NARROW_FLOATS, import_ttir
    from torchport_passes.ir.listing import listing_of

    from torchport_cpu.host import host_info
    from torchport_cpu.lower import context, has_doubles, operations_of, signature_of
    from torchport_cpu.pipeline import passes

    host = host_info()
    name, _ = signature_of(ttir)
    module = import_ttir(ttir, context(), keep_pointees=False)
    if stage == "vectors":
        seen = module.operation.attributes
        every = passes(
            host,
            narrow=NARROW_FLOATS in seen,
            loop_hints=LOOP_HINTS in seen,
            arithmetic=passes_for(arithmetic),
            fused_sums=has_doubles(ttir),
            large=False,  # stores around the caches or into them: the same values
            present=operations_of(ttir),
        )
        last = next(i for i, one in enumerate(every) if one.name == "lower-kernel")
        Pipeline(every[:last]).run(module, kernel=name, source=ttir)
    return listing_of(module, fused=host.has("fma") or host.arch.startswith("aarch64"))

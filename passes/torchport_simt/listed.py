"""A kernel's lane code as plain data, for what reads it without a compiler."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torchport.listing import Listing
from torchport.pipeline import Pass, Pipeline

__all__ = ["listing"]

_AFTER = "lower-math"
"""The first pass that only writes single operations otherwise: it and those behind it change no order.

``join-lanes`` does for all lanes at once what they do one beside the other.
"""


def listing(ttir: str, passes: Sequence[Pass], lanes: int = 0, *, fused: bool) -> Listing:
    """A kernel as ``passes``, which the target's compiler chose for it, leave it behind the last that orders anything.

    lanes: of the code of a lane. fused: whether the target has a fused multiply-add. Raises UnsupportedOperation.
    """
    from torchport_passes.frontend.importer import import_ttir
    from torchport_passes.ir.listing import listing_of

    module = import_ttir(ttir, keep_barriers=True)
    Pipeline(list(itertools.takewhile(lambda one: one.name != _AFTER, passes))).run(module, source=ttir)
    return listing_of(module, fused=fused, lanes=lanes)

"""Sizes of blocks that divide what they are of, within what the target allows."""

from __future__ import annotations

from typing import Any

from torchport.capabilities import Capabilities
from torchport.inductor.compat import V, next_power_of_2
from torchport.inductor.scope import current
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["block", "capabilities"]


def capabilities() -> Capabilities | None:
    """Those of the target; None where no graph is compiled for one."""
    scope = current()
    if scope is None:
        return None
    target = Target.parse(scope.settings.target)
    return backend_for(target).capabilities(target)


def block(numel: Any, limit: int, least: int) -> int:
    """A power of two up to ``limit`` for a dimension of ``numel``.

    The largest in [least, limit] that divides it, so that no mask is needed; otherwise one that covers it, or
    ``limit``: the target peels the masked end off, which costs less than short loops do.
    """
    sizes = V.graph.sizevars
    size = limit
    while size >= least:
        if sizes.statically_known_multiple_of(numel, size):
            return size
        size //= 2
    hint = int(sizes.optimization_hint(numel))
    return min(limit, max(1, int(next_power_of_2(hint))))

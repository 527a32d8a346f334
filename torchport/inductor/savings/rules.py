"""The rules by which types of values follow from operands': Inductor fills its one object with them for each value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torchport.inductor.compat import DtypePropagationOpsHandler, dtype_rules, pointwise_overrides_data
from torchport.inductor.savings.state import saves

__all__ = ["install"]


@functools.cache
def install() -> None:
    """Fill it once; again where rules have been added since."""
    stock: Callable[[Any], None] = DtypePropagationOpsHandler.__init__
    filled: dict[Any, tuple[dict[str, Any], dict[str, Any]]] = {}

    @functools.wraps(stock)
    def fill(self: Any) -> None:
        if not saves() or filled.get(self) != (dtype_rules, pointwise_overrides_data):
            stock(self)
            filled[self] = dict(dtype_rules), dict(pointwise_overrides_data)

    DtypePropagationOpsHandler.__init__ = fill

"""The parts of a graph's cache key: Inductor hashes each again, for the log."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from torchport.inductor.compat import FxGraphCachePickler, trace_log
from torchport.inductor.savings.state import saves

__all__ = ["install"]


@functools.cache
def install() -> None:
    """Leave them out where neither the log nor a trace is written."""
    stock: Callable[[Any, Any], list[str]] = FxGraphCachePickler.debug_lines
    log = logging.getLogger(FxGraphCachePickler.__module__)

    @functools.wraps(stock)
    def debug_lines(self: Any, inp: Any) -> list[str]:
        read = trace_log.handlers or log.isEnabledFor(logging.DEBUG)
        return stock(self, inp) if read or not saves() else []

    FxGraphCachePickler.debug_lines = debug_lines

"""What Dynamo does for nobody while it traces.

For each call in a graph it makes the header of a log line, and for that reads and tokenizes the file around the call:
a tenth of a second of a first call. It imports DTensor's context parallelism to see whether a function is a certain one
of it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from torchport.compat import InstructionTranslator, InstructionTranslatorBase, LocalMapWrappedHigherOrderVariable

__all__ = ["register"]

_MAPPED = "torch.distributed.tensor.experimental._func_map"
"""The module that has the function."""


class _Header:
    """A text that is made where it is shown."""

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make

    def __str__(self) -> str:
        return self._make()


@functools.cache
def register(is_ours: Callable[[Any], bool]) -> None:
    """Leave it out where the backend ``is_ours``."""
    header: Callable[..., str] = InstructionTranslatorBase.get_line_of_code_header
    mapped: Callable[[Any, Any], bool] = LocalMapWrappedHigherOrderVariable.should_wrap_in_hop.__func__

    @functools.wraps(header)
    def get_line_of_code_header(self: Any, lineno: int | None = None) -> Any:
        if not is_ours(self.output.compiler_fn):
            return header(self, lineno)
        return _Header(functools.partial(header, self, self.lineno if lineno is None else lineno))

    @functools.wraps(mapped)
    def should_wrap_in_hop(cls: Any, value: Any) -> bool:
        if _MAPPED not in sys.modules and is_ours(InstructionTranslator.current_tx().output.compiler_fn):
            return False  # nobody can have a function of a module that was not imported
        return mapped(cls, value)

    InstructionTranslatorBase.get_line_of_code_header = get_line_of_code_header
    LocalMapWrappedHigherOrderVariable.should_wrap_in_hop = classmethod(should_wrap_in_hop)

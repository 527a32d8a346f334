"""What Dynamo does for nobody while it traces.

For each call in a graph it makes the header of a log line, and for that reads and tokenizes the file around the call:
a tenth of a second of a first call. It imports DTensor's context parallelism to see whether a function is a certain one
of it. Around the arguments of each graph it calls two functions that tell a profiler how long they took to gather: 1.8
us of each call, without a profiler, too. They are left out unless a profiler is open while Dynamo traces.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from torch.autograd import profiler

from torchport.compat import (
    InstructionTranslator,
    InstructionTranslatorBase,
    LocalMapWrappedHigherOrderVariable,
    PyCodegen,
    dynamo_config,
)

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

    generated: Callable[[Any, str], None] = PyCodegen.make_call_generated_code

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

    @functools.wraps(generated)
    def make_call_generated_code(self: Any, fn_name: str) -> None:
        if profiler._is_profiler_enabled or not is_ours(self.tx.output.compiler_fn):
            return generated(self, fn_name)
        with dynamo_config.patch(record_runtime_overhead=False):
            return generated(self, fn_name)

    PyCodegen.make_call_generated_code = make_call_generated_code
    InstructionTranslatorBase.get_line_of_code_header = get_line_of_code_header
    LocalMapWrappedHigherOrderVariable.should_wrap_in_hop = classmethod(should_wrap_in_hop)

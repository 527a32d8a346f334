"""An argument or result of a launch, on its way into a run folder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torchport.numerics.recording.memory import dtype_name, storage_key
from torchport.runtime.operators import is_plain

__all__ = ["Operand"]


@dataclass
class Operand:
    """An argument or result of a launch.

    name: in the kernel's signature or the operator's schema
    role: ``in``, ``out``, ``inout`` or ``scalar``
    buffer: its variable in generated code
    node: the FX node whose value it holds
    value: the tensor, or any other value
    summary: statistics of the tensor after the launch
    before: hash of its stored memory before the launch
    after: the same after the launch
    """

    name: str
    role: str
    buffer: str | None
    node: str | None
    value: Any
    summary: dict[str, Any] | None = field(default=None, init=False)
    before: str | None = field(default=None, init=False)
    after: str | None = field(default=None, init=False)

    @property
    def is_tensor(self) -> bool:
        return is_plain(self.value)

    @property
    def is_written(self) -> bool:
        return self.role in ("out", "inout") and self.is_tensor

    def as_json(self, storages: dict[int, int]) -> dict[str, Any]:
        """As launches.jsonl has it. ``storages``: numbers of the launch's storages, extended here."""
        value = self.value
        if not self.is_tensor:
            return {"name": self.name, "role": "scalar", "value": _plain(value)}
        kept = {"before": self.before, "summary": self.summary, "after": self.after}
        return {
            "name": self.name,
            "role": self.role,
            "buffer": self.buffer,
            "node": self.node,
            "dtype": dtype_name(value.dtype),
            "shape": list(value.shape),
            "stride": list(value.stride()),
            "offset": value.storage_offset(),
            "storage": storages.setdefault(storage_key(value), len(storages)),
            **{name: content for name, content in kept.items() if content is not None},
        }


def _plain(value: Any) -> Any:
    """A value as JSON has it; floats that JSON has no number for as in the graph's arguments."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    if isinstance(value, dict):
        return {str(name): _plain(element) for name, element in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

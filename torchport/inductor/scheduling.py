"""Code generation of Triton kernels for the target's device."""

from __future__ import annotations

from typing import Any

from torch._inductor.codegen.common import BackendFeature
from torch._inductor.codegen.triton import TritonScheduling
from torch.utils._ordered_set import OrderedSet

from torchport.inductor.scope import current

__all__ = ["TorchportScheduling"]


class TorchportScheduling(TritonScheduling):
    """Inductor's Triton scheduling; remembers which FX nodes each kernel computes.

    Sorting is left to aten: Inductor's kernels sort with a bitonic network, O(n log^2 n) work that pays on a GPU only.
    """

    backend_features = OrderedSet(f for f in TritonScheduling.backend_features if f is not BackendFeature.SORT)

    def define_kernel(self, src_code: str, node_schedule: Any, kernel: Any) -> str:
        name: str = super().define_kernel(src_code, node_schedule, kernel)
        scope = current()
        if scope is not None:
            scope.origins.setdefault(name, []).extend(_origins(node_schedule))
        return name


def _origins(node_schedule: Any) -> list[Any]:
    """The FX nodes that the scheduler nodes of a kernel came from, without repetition."""
    found: dict[Any, None] = {}
    for node in node_schedule:
        buffer = getattr(node, "node", None)  # the schedule also holds markers, which have none
        if buffer is not None:
            found.update(dict.fromkeys(buffer.get_origins()))
    return list(found)

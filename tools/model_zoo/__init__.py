"""The models that the model tests check and the model benchmarks time: a part of ``torchport.evaluation.models``.

built = build("bert", size="small", dtype=torch.bfloat16)
result = built.module(**built.inputs)
tensors = built.outputs(result)            # {"last_hidden_state": ..., "pooler_output": ...}
"""

from torchport.evaluation.models import SIZES, Built, Entry, build
from torchport.evaluation.models import entries as _every

__all__ = ["SIZES", "Built", "Entry", "build", "entries", "names"]


def entries() -> dict[str, Entry]:
    """Every model of them by name."""
    return {name: entry for name, entry in _every().items() if entry.benched}


def names() -> list[str]:
    """Names of every model of them."""
    return list(entries())

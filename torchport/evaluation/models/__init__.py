"""Models of many kinds with seeded random weights: the default suite of ``torchport eval``, what tests and tools take.

Nothing is downloaded: models of `transformers` are built from configurations, the others are written here.

    built = build("bert", size="small", dtype=torch.bfloat16)
    result = built.module(**built.inputs)
    tensors = built.outputs(result)            # {"last_hidden_state": ..., "pooler_output": ...}
"""

from torchport.evaluation.models.entry import SIZES, Entry
from torchport.evaluation.models.registry import Built, build, entries, left_out, names

__all__ = ["SIZES", "Built", "Entry", "build", "entries", "left_out", "names"]

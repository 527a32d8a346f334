"""Small models with seeded random weights: what the model tests check and the model benchmark times.

Nothing is downloaded: `transformers` models are built from configurations.

    built = build("bert", size="small", dtype=torch.bfloat16)
    result = built.module(**built.inputs)
    tensors = built.outputs(result)            # {"last_hidden_state": ..., "pooler_output": ...}
"""

from model_zoo.entry import SIZES, Entry
from model_zoo.registry import Built, build, entries, names

__all__ = ["SIZES", "Built", "Entry", "build", "entries", "names"]

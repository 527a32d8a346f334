"""Models that nobody tuned for: of other kinds than those of ``torchport.evaluation.models``, in plain torch.

They are timed, and no test or evaluation takes them, so that a figure of the named models can be held against them.
"""

from __future__ import annotations

__all__ = ["load"]


def load() -> list[str]:
    """Register them with the others, once; their names."""
    from model_bench.unnamed import generators, images, readers, relations, scenes, sequences, sets, signals

    modules = (images, sequences, sets, scenes, signals, relations, generators, readers)
    return [name for module in modules for name in module.NAMES]

"""Writes into inputs of float64 without dimensions.

Dynamo makes a symbol of the value of such an input, in case the program reads it. AOTAutograd finds that nothing does,
and has Dynamo trace again; that time Dynamo takes writes into the input for reads that nothing uses, and removes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchport.inductor.compat import TensorifyState
from torchport.inductor.upstream.corrections import applies

__all__ = ["traced_once"]


@contextmanager
def traced_once(gm: torch.fx.GraphModule) -> Iterator[None]:
    """While the context is open, AOTAutograd takes the symbols that Dynamo's graph ``gm`` does not read for done."""
    examples = [node.meta.get("example_value") for node in gm.graph.nodes]
    scalars = [e for e in examples if isinstance(e, torch.Tensor) and e.dtype == torch.float64 and e.dim() == 0]
    known = TensorifyState.force_specializations
    added: set[str] = set()
    if scalars and applies("scalar-writes"):
        shapes = scalars[0].fake_mode.shape_env  # type: ignore[attr-defined]
        read = {s for e in examples if isinstance(e, torch.SymFloat) for s in e.node.expr.free_symbols}
        added = {str(symbol) for symbol in shapes.var_to_sources if symbol not in read} - known
    known |= added
    try:
        yield
    finally:
        known -= added

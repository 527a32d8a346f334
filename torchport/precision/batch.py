"""Batch invariance: whether an example's results depend on what else is in its batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from torchport.arithmetic.formats import format_of
from torchport.arithmetic.spacing import spacing
from torchport.compat import reset_dynamo
from torchport.errors import OptionError

__all__ = ["Batched", "batch_invariance", "batch_size", "example_of"]


@dataclass(frozen=True)
class Batched:
    """One output: its examples computed alone, against the same examples in the whole batch.

    output: its position.
    examples: how many were tried.
    different: how many of these differ in any bit.
    relative_l2: the largest difference of an example, in units of its norm.
    ulp: the largest difference of an element, in units of its last place.
    """

    output: int
    dtype: str
    examples: int
    different: int
    relative_l2: float
    ulp: float

    def as_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def batch_invariance(
    model: Callable[..., Any],
    inputs: Sequence[Any],
    options: Mapping[str, Any] | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> list[Batched]:
    """Run ``model`` (compiled with ``options``) on ``inputs``, and on their first and last example alone.

    The batch is the first dimension of the first tensor; every tensor of ``inputs`` and of the outputs whose first
    dimension has that size is split along it. ``advance(done, all)``: called after each run. Raises OptionError if
    there is no batch of at least two examples, or no output has one.
    """
    size = batch_size(inputs)
    reset_dynamo()
    compiled = torch.compile(model, backend="torchport", options=dict(options or {}), dynamic=False)

    def outputs(arguments: Sequence[Any]) -> list[torch.Tensor]:
        with torch.no_grad():
            leaves = tree_leaves(compiled(*arguments))
        return [one.detach().clone() for one in leaves if isinstance(one, torch.Tensor)]

    chosen = sorted({0, size - 1})
    whole = outputs(inputs)
    alone = []
    for done, example in enumerate(chosen, 1):
        alone.append(outputs(example_of(inputs, example)))
        if advance is not None:
            advance(done, len(chosen))
    found = []
    for position, batch in enumerate(whole):
        if not _batched(batch, size):
            continue
        pairs = [(one[position], batch[example : example + 1]) for one, example in zip(alone, chosen, strict=True)]
        found.append(_compared(position, pairs))
    if not found:
        raise OptionError(f"no output has the batch's {size} examples along its first dimension")
    return found


def batch_size(inputs: Sequence[Any]) -> int:
    """How many examples there are. Raises OptionError if there are not at least two."""
    tensors = [one for one in inputs if isinstance(one, torch.Tensor) and one.dim() > 0]
    size = tensors[0].shape[0] if tensors else 0
    if size < 2:
        raise OptionError("the first tensor among the inputs must have a batch of at least two examples")
    return size


def example_of(inputs: Sequence[Any], example: int) -> list[Any]:
    """The inputs of one example alone."""
    size, part = batch_size(inputs), slice(example, example + 1)
    return [one[part].clone() if _batched(one, size) else one for one in inputs]


def _batched(value: Any, size: int) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == size


def _compared(position: int, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Batched:
    different, relative, ulp = 0, 0.0, 0.0
    for a, b in pairs:
        if torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8)):
            continue
        different += 1
        x, y = a.double(), b.double()
        error = torch.nan_to_num(x - y, nan=torch.inf).abs()
        size = float(torch.linalg.vector_norm(torch.nan_to_num(y)))
        relative = max(relative, float(torch.linalg.vector_norm(error)) / size if size else torch.inf)
        if a.dtype.is_floating_point:
            ulp = max(ulp, float((error / spacing(torch.nan_to_num(y), format_of(a.dtype))).max()))
    dtype = str(pairs[0][0].dtype).removeprefix("torch.")
    return Batched(position, dtype, len(pairs), different, relative, ulp)

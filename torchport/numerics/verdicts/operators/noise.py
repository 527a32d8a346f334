"""Noise-based error bounds for operators without an analytic one: their FX nodes with noise on the inputs."""

from __future__ import annotations

import math

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.recorded_call import RecordedCall

__all__ = ["noisy_nodes"]

_MOVES = frozenset(
    "sort topk gather index_select index slice select cat copy_ copy clone max_pool2d_with_indices fill_ "
    "max_pool3d_with_indices scatter scatter_ index_put index_put_ masked_scatter repeat_interleave "
    "upsample_nearest2d adaptive_max_pool2d embedding nonzero unique_dim searchsorted bucketize".split()
)
"""Operators that move elements and add up nothing."""

_TERM, _RESULT = 1 / 2, 1 / 3


def noisy_nodes(call: RecordedCall, launch: Launch, seed: int) -> dict[str, torch.Tensor]:
    """One variant, float64, by node: every input times 1 + u sqrt(n / 2) xi, the result times 1 + u sqrt(n / 3) xi.

    xi is uniform in [-1, 1], u the unit of the accumulator (f32 for narrower types) and n how many terms a sum may
    have: noise variants of kernels have the same for sums. The operator may also round intermediate values to the type
    of an input, so every input moves by its own type's unit at least: an fp8 operand widens nothing but what follows
    from it.
    """
    generator = torch.Generator().manual_seed(seed)
    terms = _terms(launch)

    def moved(value: torch.Tensor, dtype: torch.dtype, part: float) -> torch.Tensor:
        if not value.is_floating_point():
            return value
        unit = min(format_of(dtype).unit, format_of(torch.float32).unit)
        size = max(unit * math.sqrt(terms * part), format_of(dtype).unit if part == _TERM else 0.0)
        xi = torch.rand(value.shape, generator=generator, dtype=torch.float64) * 2 - 1
        return value.double() * (1 + size * xi)

    read = {arg.node for arg in launch.args if arg.role in ("in", "inout") and arg.node is not None}
    known = call.observed.read_by(launch)
    inputs = {
        name: value for name, value in call.graph.inputs.items() if name in read and isinstance(value, torch.Tensor)
    }
    changed = {name: moved(value, value.dtype, _TERM) for name, value in {**inputs, **known}.items()}
    kinds = {node: one.value.dtype for node, one in call.observed.left_by(launch).items() if one.value is not None}
    return {
        node: moved(value, kinds[node], _RESULT)
        for node, value in call.reference.of_launch(launch, changed, assume=True).items()
    }


def _terms(launch: Launch) -> int:
    """How many terms a sum of the operator may have.

    They are the reduced elements if the result is smaller than the input, attention's longer side, else the longest
    dimension of an input.
    """
    name = (launch.operation or "").removeprefix("aten.").partition(".")[0]
    read = [arg.shape for arg in launch.args if arg.role in ("in", "inout") and arg.storage is not None and arg.shape]
    made = [arg.shape for arg in launch.args if arg.role in ("out", "inout") and arg.storage is not None]
    if name in _MOVES or not read:
        return 1
    if "attention" in name:
        return max(size for shape in read if len(shape) == 4 for size in shape[-2:])
    # One product a group, whose gradients of weights add up a group's rows; MKL's product of a frozen layer.
    if "grouped_mm" in name or launch.operation == "mkl._mkl_linear.default":
        return read[0][-1]
    largest, results = max(map(math.prod, read)), max(map(math.prod, made), default=1)
    longest = max(map(max, read))
    return min(longest, -(-largest // max(1, results))) if 1 < results < largest else longest

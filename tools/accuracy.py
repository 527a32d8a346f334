"""How a compiled result is judged: its error against float64, next to what eager loses in the same dtype.

The float64 reference runs the same module with every conversion to a smaller float turned into float64, so that the
upcasts to float32 which models write out (norms, rotary embeddings, softmax) do not put float32 noise in the reference.

Floor. A tensor of dtype T, unit roundoff u, is rounded at least once: a relative L2 of up to u for a perfect
implementation, and fusion legally moves where the roundings are. Below FLOOR_L2 * u (relative L2) and FLOOR_MAX * u
(largest error over largest magnitude) a result is right whatever eager got: eager may be exact by luck.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from torchport.evaluation.truth import InFloat64

RATIO = 2.0
FLOOR_L2 = 2.0
FLOOR_MAX = 4.0
FEW = 16

__all__ = ["Errors", "InFloat64", "classes_differ", "compare", "errors", "unit_roundoff"]


def unit_roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of one rounding to nearest in `dtype`: half of its epsilon."""
    return torch.finfo(dtype).eps / 2


@dataclass(frozen=True)
class Errors:
    """Errors of one tensor against float64: relative L2, and largest error over the reference's largest magnitude."""

    l2: float
    max: float

    def within(self, limit: Errors) -> bool:
        """Whether neither error exceeds the limit's (NaN does)."""
        return self.l2 <= limit.l2 and self.max <= limit.max

    def __str__(self) -> str:
        return f"relL2 {self.l2:.3g}, max {self.max:.3g}"


def errors(value: torch.Tensor, reference: torch.Tensor, scale: float = 0.0) -> Errors:
    """Errors of `value` over the elements where both are finite.

    `scale` is the least root-mean-square that the reference is credited with, for tensors that are zero but for
    rounding (the gradient of an attention key's bias).
    """
    wide = value.detach().to(torch.float64)
    finite = torch.isfinite(wide) & torch.isfinite(reference)
    difference, magnitude = (wide - reference)[finite], reference[finite].abs()
    if difference.numel() == 0:
        return Errors(0.0, 0.0)
    tiny = torch.finfo(torch.float64).tiny
    rms = max(float(magnitude.square().mean().sqrt()), scale, tiny)
    largest = max(float(magnitude.max()), scale, tiny)
    return Errors(float(difference.square().mean().sqrt()) / rms, float(difference.abs().max()) / largest)


def classes_differ(value: torch.Tensor, other: torch.Tensor) -> str:
    """Say where NaN, +inf and -inf of two tensors differ; empty where they agree."""
    found = []
    for label, test in (("NaN", torch.isnan), ("+inf", torch.isposinf), ("-inf", torch.isneginf)):
        a, b = test(value), test(other)
        if not torch.equal(a, b):
            where = (a != b).nonzero()[0].tolist()
            found.append(f"{int(a.sum())} {label} against eager's {int(b.sum())} (first differs at {where})")
    return "; ".join(found)


def compare(
    compiled: Mapping[str, torch.Tensor],
    eager: Mapping[str, torch.Tensor],
    reference: Mapping[str, torch.Tensor],
    scale: float = 0.0,
    roundings: int = 1,
) -> list[str]:
    """One line for every tensor that is wrong; an empty list is a pass.

    A tensor passes when both of its errors are at most RATIO times eager's, or under the dtype's floor (times
    `roundings`, the roundings to the dtype that the algorithm itself prescribes one after the other). Eager's error of
    one tensor is one draw of the noise and may be small by luck: it counts as at least the root mean square of eager's
    errors over all tensors, and for tensors of fewer than FEW elements as the largest of them. So that this hides no
    loss everywhere, the root mean square over all tensors is held to RATIO, too.
    """
    floats = {name: value for name, value in eager.items() if value.is_floating_point()}
    own = {name: errors(value, reference[name], scale) for name, value in floats.items()}
    typical, largest = root_mean_square(own.values()), worst(own.values())
    problems, found = [], {}
    for name, expected in eager.items():
        got = compiled[name]
        if got.shape != expected.shape or got.dtype != expected.dtype:
            problems.append(
                f"{name}: {got.dtype} {tuple(got.shape)}, eager gives {expected.dtype} {tuple(expected.shape)}"
            )
        elif name not in floats:
            wrong = int((got != expected).sum())
            if wrong:
                problems.append(f"{name}: {wrong} of {got.numel()} elements differ from eager")
        elif differ := classes_differ(got, expected):
            problems.append(f"{name}: {differ}")
        else:
            found[name] = errors(got, reference[name], scale)
            noise = worst([own[name], typical if expected.numel() >= FEW else largest])
            limit = allowed(noise, unit_roundoff(expected.dtype) * roundings)
            if not found[name].within(limit):
                problems.append(
                    f"{name} ({expected.dtype}): compiled {found[name]}; eager {own[name]}; allowed {limit}"
                )
    if found:
        limit = allowed(typical, max(unit_roundoff(value.dtype) for value in floats.values()) * roundings)
        overall = root_mean_square(found.values())
        if not overall.within(limit):
            problems.append(f"all {len(found)} tensors: compiled {overall}; eager {typical}; allowed {limit}")
    return problems


def allowed(noise: Errors, u: float) -> Errors:
    """What is allowed where eager has `noise` and the unit roundoff is `u`."""
    return Errors(max(RATIO * noise.l2, FLOOR_L2 * u), max(RATIO * noise.max, FLOOR_MAX * u))


def root_mean_square(values: Collection[Errors]) -> Errors:
    """The root mean square of each kind of error; zero for no values."""
    count = max(len(values), 1)
    return Errors(math.sqrt(sum(e.l2**2 for e in values) / count), math.sqrt(sum(e.max**2 for e in values) / count))


def worst(values: Collection[Errors]) -> Errors:
    """The largest of each kind of error; zero for no values."""
    return Errors(max((e.l2 for e in values), default=0.0), max((e.max for e in values), default=0.0))

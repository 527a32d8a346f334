"""Accuracy of a model's results: against float64, against the reference target, and what it does to its task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from torchport.errors import OptionError
from torchport.evaluation.loading import Outputs
from torchport.evaluation.models.entry import Kind
from torchport.evaluation.ranks import similar_order
from torchport.precision.impact import impact_of
from torchport.precision.impacts import Question, by_unit, questions
from torchport.precision.positions import Positions, compared
from torchport.precision.statistics import bootstrap, exact_interval

__all__ = ["accuracy", "errors_of", "less_accurate", "task"]

_LEAST_DIMENSIONS: dict[Kind, int] = {"tokens": 2, "classes": 2, "embeddings": 2, "scores": 0, "values": 0}
"""Of an answer: examples come first, and what one of them is answered with last."""

_SAMPLES = 256
"""How many units' errors a report keeps."""


def errors_of(found: Sequence[Outputs], exact: Sequence[Outputs]) -> dict[str, Any]:
    """How far ``found`` is from ``exact``, both by batch.

    Returns ``outputs``: for each output its relative L2 over all batches (``l2``), the 99 % quantile and the maximum of
    the absolute difference in units of the exact values' root mean square (``p99``, ``worst``), and how many elements
    are NaN or infinite and not so in ``exact``; ``samples``: the relative L2 of the answer, the first output, for each
    example; ``mean`` and ``interval``: of these, by resampled examples.
    """
    names = list(exact[0])
    outputs = {name: _errors([one[name] for one in found], [one[name] for one in exact]) for name in names}
    samples = _by_example([one[names[0]] for one in found], [one[names[0]] for one in exact])
    units = torch.stack([samples, torch.ones_like(samples)], 1)
    finite = bool(samples.isfinite().all())
    return {
        "outputs": outputs,
        "samples": samples[:_SAMPLES].tolist(),
        "mean": float(samples.mean()),
        "interval": bootstrap(units, lambda sums: sums[..., 0] / sums[..., 1]) if finite else None,
    }


def _errors(found: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> dict[str, Any]:
    x = torch.cat([one.double().flatten() for one in found])
    y = torch.cat([one.double().flatten() for one in exact])
    both = x.isfinite() & y.isfinite()
    difference, size = (x - y)[both].abs(), float(y[both].square().mean().sqrt()) if bool(both.any()) else 0.0
    scaled = difference / size if size else difference
    count = max(1, scaled.numel())
    return {
        "l2": float(scaled.square().mean().sqrt()) if scaled.numel() else 0.0,
        "p99": float(scaled.kthvalue(max(1, round(0.99 * count))).values) if scaled.numel() else 0.0,
        "worst": float(scaled.max()) if scaled.numel() else 0.0,
        "nan": int((x.isnan() & ~y.isnan()).sum()),
        "inf": int((x.isinf() & ~y.isinf()).sum()),
        "elements": x.numel(),
    }


def _by_example(found: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> torch.Tensor:
    """The relative L2 of each example, [examples]. Answers of one number are relative to all answers' size."""
    x, y = (torch.cat([one.double() for one in each]) for each in (_rows(found), _rows(exact)))
    x, y = (one.flatten(1) if one.dim() > 1 else one[:, None] for one in (x, y))
    size = y.norm(dim=1) if y.shape[1] > 1 else y.square().mean().sqrt().expand(y.shape[0])
    errors: torch.Tensor = (x - y).norm(dim=1) / size.clamp_min(torch.finfo(torch.float64).tiny)
    return errors


def _rows(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors as [examples, ...]: a number alone is one example."""
    return [one if one.dim() else one[None] for one in tensors]


def less_accurate(found: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Whether ``found`` is further from float64 than the reference is; both are ``errors_of`` on the same examples.

    ``ratio``: of the geometric means; the question is that of the signs of the examples' logarithms.
    """
    least = torch.finfo(torch.float64).tiny
    x, y = (torch.tensor(one["samples"], dtype=torch.float64).clamp_min(least) for one in (found, reference))
    kept = x.isfinite() & y.isfinite()
    moved = (x.log() - y.log())[kept]
    if not moved.numel():
        return {"ratio": None, "question": None}
    ratio = float(moved.mean().exp())
    return {"ratio": ratio if math.isfinite(ratio) else None, "question": as_json(by_unit(moved))}


def as_json(question: Question) -> dict[str, Any]:
    """A question's numbers, with its decision left to whoever corrects p for the number of cells."""
    found = asdict(question)
    del found["corrected"]
    return found


def task(
    kind: Kind, reference: Sequence[Outputs], floor: Sequence[Outputs], found: Sequence[Outputs]
) -> dict[str, Any]:
    """What another arithmetic does to the model's task.

    reference, floor: the reference target's results, and again on another number of threads.

    ``tokens`` and ``classes``: the figures of ``torchport.precision.impact`` and its questions; for classes a position
    is an example. ``embeddings``: rank correlation of similarities, and how often the nearest other example is another.
    ``scores``: rank correlation. All but ``values`` have ``kind``; ``refused`` says why nothing is known.
    """
    a, b, c = ([next(iter(one.values())) for one in each] for each in (reference, floor, found))
    least = _LEAST_DIMENSIONS[kind]
    if a[0].dim() < least:
        return {"kind": kind, "refused": f"the answer has {a[0].dim()} dimensions, and {kind} have {least} or more"}
    if kind in ("tokens", "classes"):
        try:
            return {"kind": kind, **_logits(a, b, c)}
        except OptionError as error:
            return {"kind": kind, "refused": str(error)}
    if kind == "values":
        return {"kind": kind}
    x, y = (torch.cat(_rows(each)).double() for each in (a, c))
    if not bool(x.isfinite().all() and y.isfinite().all()):
        return {"kind": kind, "refused": "the results are not finite"}
    if kind == "scores":
        x, y = x.flatten(), y.flatten()
    value, interval = similar_order(x, y, pairs=kind == "embeddings")
    result: dict[str, Any] = {
        "kind": kind, "examples": x.shape[0], "rank": None if math.isnan(value) else value, "rank_interval": interval,
    }  # fmt: skip
    return result | (_neighbours(x, y) if kind == "embeddings" and x.shape[0] > 2 else {})


def _logits(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], c: Sequence[torch.Tensor]) -> dict[str, Any]:
    x, y, z = (torch.cat([one if one.dim() > 2 else one[:, None] for one in each]) for each in (a, b, c))
    floor, found = compared(x, y), compared(x, z)
    tokens, divergence, _ = questions(floor, found)
    return {
        **impact_of(found).as_json(),
        "agreement": 1 - float(found.flipped.double().mean()),
        "floor_flips": int(floor.flipped.sum()),
        "floor_kl": float(floor.kl.mean()),
        "margin": _least_margin(found),
        "questions": {"flips": as_json(tokens), "divergence": as_json(divergence)},
    }


def _least_margin(found: Positions) -> float:
    """The smallest lead of a likeliest answer: what an error must overturn to flip one."""
    return float(found.margin.min())


def _neighbours(x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    nearest = []
    for vectors in (x, y):
        unit = torch.nn.functional.normalize(vectors.flatten(1), dim=-1)
        nearest.append((unit @ unit.T).fill_diagonal_(-torch.inf).argmax(-1))
    moved, n = int((nearest[0] != nearest[1]).sum()), x.shape[0]
    low, high = exact_interval(moved, n)
    return {"flips": moved, "positions": n, "flip": moved / n, "flip_low": low, "flip_high": high}


def accuracy(
    kind: Kind,
    truth: Sequence[Outputs],
    reference: Sequence[Outputs],
    floor: Sequence[Outputs],
    found: Sequence[Outputs],
) -> dict[str, Any]:
    """All figures of a cell's accuracy; arguments are results by batch."""
    own, base = errors_of(found, truth), errors_of(reference, truth)
    return {
        "truth": own,
        "reference_truth": {name: base[name] for name in ("outputs", "mean", "interval")},
        "reference": {name: value for name, value in errors_of(found, reference).items() if name != "samples"},
        "less_accurate": less_accurate(own, base),
        "task": task(kind, reference, floor, found),
    }

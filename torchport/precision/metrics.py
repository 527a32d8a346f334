"""The figures that ``torchport fix`` brings down, each with an interval from its independent units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from torchport.errors import OptionError
from torchport.precision.positions import compared, next_tokens
from torchport.precision.statistics import bootstrap, exact_interval, mcnemar, sign_flip
from torchport.precision.ways import logits_in

__all__ = ["METRICS", "Figure", "Metric", "better", "custom"]


@dataclass(frozen=True)
class Figure:
    """A figure of B's results against A's; 0 where they are the same.

    value: NaN where it is not defined, as where results are NaN.
    low, high: its interval of 95 %; None where there are too few units.
    units: how many independent units it is from.
    unit: what they are.
    by_unit: the figure of each, float64 (of a share: 0 or 1).
    """

    value: float
    low: float | None
    high: float | None
    units: int
    unit: str
    by_unit: torch.Tensor

    def __str__(self) -> str:
        interval = f"{self.low:.3g} to {self.high:.3g}" if self.low is not None else "not known"
        unit = self.unit if self.units == 1 else f"{self.unit}s"
        return f"{self.value:.3g} (95 % interval {interval}; {self.units} {unit})"


@dataclass(frozen=True)
class Metric:
    """A figure of two results.

    name: on the command line.
    about: what it is.
    measure: called as ``measure(a, b, inputs)`` with what the model returned. Raises OptionError for results that it
        is not defined for.
    share: whether units either count or not.
    """

    name: str
    about: str
    measure: Callable[[Any, Any, Sequence[Any]], Figure]
    share: bool = False


def better(metric: Metric, before: Figure, after: Figure) -> float:
    """The p of the hypothesis that nothing changed between two figures of the same units, paired.

    McNemar's exact test for shares, flipped signs for means.
    """
    if before.by_unit.shape != after.by_unit.shape:
        return 1.0
    if metric.share:
        first, second = before.by_unit > 0, after.by_unit > 0
        return mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))
    return sign_flip((before.by_unit - after.by_unit).nan_to_num().tolist())


def _logits(a: Any, b: Any) -> tuple[torch.Tensor, torch.Tensor]:
    found = logits_in(a), logits_in(b)
    if found[0] is None or found[1] is None:
        raise OptionError(
            "the model returns no logits of [batch, tokens, vocabulary], which this metric is of; --metric error is "
            "for every model, and FILE.py:FUNCTION for a figure of your own"
        )
    return found[0], found[1]


def _undefined(unit: str) -> Figure:
    return Figure(math.nan, None, None, 0, unit, torch.zeros(0, dtype=torch.float64))


def _undecided(*logits: torch.Tensor) -> bool:
    """Whether a position has no probabilities: NaN, +inf, or nothing but -inf."""
    return any(bool(torch.isnan(torch.log_softmax(one.double(), -1)).any()) for one in logits)


def _flips(a: Any, b: Any, inputs: Sequence[Any]) -> Figure:
    logits = _logits(a, b)
    if _undecided(*logits):
        return _undefined("position")
    flipped = compared(*logits).flipped.reshape(-1).double()
    hits, n = int(flipped.sum()), flipped.numel()
    return Figure(hits / n, *exact_interval(hits, n), n, "position", flipped)


def _kl(a: Any, b: Any, inputs: Sequence[Any]) -> Figure:
    logits = _logits(a, b)
    return _undefined("sequence") if _undecided(*logits) else _mean(compared(*logits).kl.mean(-1), "sequence")


def _perplexity(a: Any, b: Any, inputs: Sequence[Any]) -> Figure:
    logits = _logits(a, b)
    labels = next_tokens(inputs, logits[0])
    if labels is None or labels.shape[1] < 2:
        raise OptionError("the model's first input is no tokens [batch, 2 or more], so perplexity is not defined")
    if _undecided(*logits):
        return _undefined("sequence")
    positions = compared(*logits, labels)
    assert positions.nll_a is not None and positions.nll_b is not None
    by_sequence = torch.stack([one.nanmean(-1) for one in (positions.nll_a, positions.nll_b)], 1)
    units = torch.cat([by_sequence, torch.ones_like(by_sequence[:, :1])], 1)

    def apart(sums: torch.Tensor) -> torch.Tensor:
        return ((sums[..., 1] / sums[..., 2]).exp() - (sums[..., 0] / sums[..., 2]).exp()).abs()

    low, high = bootstrap(units, apart) or (None, None)
    each = (by_sequence[:, 1] - by_sequence[:, 0]).abs()
    return Figure(float(apart(units.sum(0))), low, high, units.shape[0], "sequence", each)


def _error(a: Any, b: Any, inputs: Sequence[Any]) -> Figure:
    """Root mean square, over the results, of each one's relative L2 difference; of a result of zeros, the absolute one.

    Elements that are infinite or NaN in both count as equal. Units are the first dimension, if all results share it.
    """
    first, second = (
        [one.detach().cpu().double() for one in tree_leaves(result) if _is_float(one)] for result in (a, b)
    )
    if not first or [one.shape for one in first] != [one.shape for one in second] or not all(map(_numel, first)):
        raise OptionError("the model returns no floats, or others than its reference: there is nothing to compare")
    rows = {one.shape[0] for one in first if one.dim() > 1}
    units = rows.pop() if len(rows) == 1 and all(one.dim() > 1 for one in first) else 1
    sums = torch.zeros(units, 2, dtype=torch.float64)
    for x, y in zip(first, second, strict=True):
        same = (x == y) | (torch.isnan(x) & torch.isnan(y))
        apart = torch.where(same, 0.0, y - x).reshape(units, -1).square().sum(-1)
        scale = torch.where(torch.isfinite(x), x, 0.0).reshape(units, -1).square().sum(-1)
        whole = float(scale.sum()) or 1.0
        sums += torch.stack([apart / whole, scale / whole], 1)
    unit = "row"
    if bool(torch.isnan(sums).any()):
        return _undefined(unit)

    def ratio(totals: torch.Tensor) -> torch.Tensor:
        return (totals[..., 0] / torch.where(totals[..., 1] > 0, totals[..., 1], 1.0)).sqrt()

    low, high = bootstrap(sums, ratio) or (None, None)
    return Figure(float(ratio(sums.sum(0))), low, high, units, unit, ratio(sums))


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _numel(value: torch.Tensor) -> int:
    return value.numel()


def _mean(by_unit: torch.Tensor, unit: str) -> Figure:
    units = torch.stack([by_unit, torch.ones_like(by_unit)], 1)
    low, high = bootstrap(units, lambda sums: sums[..., 0] / sums[..., 1]) or (None, None)
    return Figure(float(by_unit.mean()), low, high, by_unit.numel(), unit, by_unit)


def _trained(a: Any, b: Any) -> None:
    if not all(isinstance(one, Mapping) and {"losses", "gradients"} <= set(one) for one in (a, b)):
        raise OptionError("this metric is of training: give --train with a number of steps")


def _loss(a: Any, b: Any, inputs: Sequence[Any]) -> Figure:
    _trained(a, b)
    first, second = float(a["losses"][-1]), float(b["losses"][-1])
    apart = abs(second - first)
    return _single(apart if first == 0 else apart / abs(first))


def _gradients(a: Any, b: Any, inputs: Sequence[Any]) -> Figure:
    _trained(a, b)
    if set(a["gradients"]) != set(b["gradients"]):
        raise OptionError("the two sides have gradients of different parameters")
    return _single(_error(list(a["gradients"].values()), [b["gradients"][name] for name in a["gradients"]], ()).value)


def _single(value: float) -> Figure:
    """One batch is one unit, however many parameters there are: it has no interval."""
    if math.isnan(value):
        return _undefined("batch")
    return Figure(value, None, None, 1, "batch", torch.tensor([value], dtype=torch.float64))


METRICS = {
    one.name: one
    for one in (
        Metric("flips", "share of positions whose likeliest token differs", _flips, share=True),
        Metric("kl", "Kullback-Leibler divergence in nats, mean of the positions", _kl),
        Metric("perplexity", "difference of the perplexities of the next tokens", _perplexity),
        Metric("error", "relative L2 difference of the results", _error),
        Metric("loss", "relative difference of the loss after the last step of training", _loss),
        Metric("gradients", "relative L2 difference of the gradients of the last step", _gradients),
    )
}
"""Metrics by name."""


def custom(name: str, function: Callable[[Any, Any], Any]) -> Metric:
    """The mean of what ``function(a, b)`` returns: one number of 0 and more for each independent unit, a 1-D tensor."""

    def measure(a: Any, b: Any, inputs: Sequence[Any]) -> Figure:
        found = function(a, b)
        if not isinstance(found, torch.Tensor) or found.dim() != 1 or found.is_complex():
            raise OptionError(f"metric {name} returned {type(found).__name__}, not a tensor of one dimension")
        if found.numel() == 0:
            raise OptionError(f"metric {name} returned no numbers: there is nothing to measure")
        values = found.detach().double()
        if bool(torch.isnan(values).any()):
            return _undefined("unit")
        if float(values.min()) < 0:
            raise OptionError(f"metric {name} returned a negative number; smaller must be better, and 0 the best")
        if found.dtype == torch.bool:
            hits, n = int(values.sum()), values.numel()
            return Figure(hits / n, *exact_interval(hits, n), n, "unit", values)
        return _mean(values, "unit")

    return Metric(name, f"mean of {name}", measure)

"""Explains why a kernel's numbers differ: emulates one known cause at a time and measures what it explains.

A cause is a set of rules of the option ``arithmetic`` (docs/numerics/rules.md). The kernel is run with these rules on
the CPU target, on the recorded inputs. What the cause explains is the share of the difference that goes away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchport.numerics.verdicts.causes import CAUSES, Cause, functions_of
from torchport.numerics.verdicts.references import Reference
from torchport.numerics.verdicts.replay import Argument, Replay, view

__all__ = ["EXPLAINS", "Attribution", "attribute", "attribute_each", "energy", "ranked"]

_LEAST, _EXACT, _SIMILAR = 0.05, 0.5, 0.25
"""Smaller shares than the first are left out. If no cause explains the second bit by bit, sizes of errors are compared,
and a cause counts from the third on."""

EXPLAINS = 0.9
"""A profile that explains this share of a difference (of its energy) is its cause."""

_FUNCTION_NOISE = 1024.0
"""ULPs by which functions are made to err in order to see where they matter."""

_FAR = 16.0
"""Times the root mean square effect of _FUNCTION_NOISE, about 9,500 ULP: approximations of chips are far below."""

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Attribution:
    """What explains a difference.

    shares: causes and the share of the difference's energy that each explains alone, the largest first.
    residual: the share that the largest leaves.
    """

    shares: tuple[tuple[str, float], ...]
    residual: float


def attribute(
    replay: Replay,
    storages: Mapping[int, torch.Tensor],
    outputs: Sequence[Argument],
    got: Tensors,
    references: Mapping[str, Reference],
    causes: Sequence[Cause] = CAUSES,
) -> Attribution:
    """What explains that ``got``, a launch's outputs by argument, is not what the CPU target computes.

    ``references``: of the outputs, by argument.
    """
    return _explained(_Experiment(_Runs(replay, storages, outputs), got, references), causes)


def attribute_each(
    replay: Replay,
    storages: Mapping[int, torch.Tensor],
    outputs: Sequence[Argument],
    got: Tensors,
    references: Mapping[str, Reference],
    causes: Sequence[Cause] = CAUSES,
) -> dict[str, Attribution]:
    """The same for each output in ``got`` alone: an error of one hides none of another."""
    runs = _Runs(replay, storages, outputs)
    return {name: _explained(_Experiment(runs, {name: value}, references), causes) for name, value in got.items()}


def _explained(experiment: _Experiment, causes: Sequence[Cause]) -> Attribution:
    if experiment.total == 0:
        return Attribution((), 0.0)
    causes = [cause for cause in causes if cause.concerns(experiment.runs.replay.ttir)]
    shares = _shares(causes, "bits", experiment.same_bits)
    if max(shares.values(), default=0.0) < _EXACT:
        sizes = _shares(causes, "size", experiment.similar_size)
        if max(sizes.values(), default=0.0) >= _SIMILAR:
            return ranked({**shares, **sizes})
        for name, share in _shares(causes, "noise", experiment.function_noise).items():
            shares[name] = max(share, shares.get(name, 0.0))
    return ranked(shares)


def ranked(shares: Mapping[str, float]) -> Attribution:
    """Shares by cause, the largest first, without negligible ones."""
    kept = sorted(((name, share) for name, share in shares.items() if share >= _LEAST), key=lambda item: -item[1])
    return Attribution(tuple(kept), 1 - kept[0][1] if kept else 1.0)


def energy(a: torch.Tensor, b: torch.Tensor, sigma: torch.Tensor) -> float:
    """Energy of a difference in sigmas; elements of different class count as 10**6 sigmas. All of one shape."""
    x, y = a.double(), b.double()
    same = (x == y) | (torch.isnan(x) & torch.isnan(y))
    z = torch.nan_to_num((x - y) / sigma, nan=1e6, posinf=1e6, neginf=-1e6).clamp(-1e6, 1e6)
    return float(torch.where(same, 0.0, z.square()).sum())


def _shares(causes: Sequence[Cause], how: str, measure: Callable[[Cause], float]) -> dict[str, float]:
    """The largest share of each name among causes that show in this way."""
    shares: dict[str, float] = {}
    for cause in causes:
        if cause.how == how:
            shares[cause.name] = max(shares.get(cause.name, 0.0), measure(cause))
    return shares


class _Runs:
    """One launch in other arithmetic; each is computed once."""

    def __init__(self, replay: Replay, storages: Mapping[int, torch.Tensor], outputs: Sequence[Argument]) -> None:
        self.replay, self.storages, self.outputs = replay, storages, outputs
        self._known: dict[str, dict[str, torch.Tensor]] = {}

    def results(self, arithmetic: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Outputs by name."""
        key = json.dumps(arithmetic, sort_keys=True)
        if key not in self._known:
            after = self.replay.run(self.storages, arithmetic)
            self._known[key] = {o.name: view(o, after[o.storage]) for o in self.outputs if o.storage is not None}
        return self._known[key]


class _Experiment:
    """Outputs ``got`` of one launch, compared with those of the CPU target in other arithmetic."""

    def __init__(self, runs: _Runs, got: Tensors, references: Mapping[str, Reference]) -> None:
        self.runs, self.got, self.references = runs, got, references
        self.native = {name: references[name].native for name in got}
        self.total = self._distance(got, self.native)

    def same_bits(self, cause: Cause) -> float:
        """The share of the difference that goes away."""
        return 1 - self._distance(self.got, self._emulated(cause)) / self.total

    def similar_size(self, cause: Cause) -> float:
        """How close the emulated kernel's error is to the recorded one in energy: 1 where they are equal."""
        emulated = self._emulated(cause)
        own = self._distance({name: emulated[name] for name in self.got}, self.native)
        return min(own, self.total) / max(own, self.total)

    def function_noise(self, cause: Cause) -> float:
        """The share of the errors' energy that is where errors of the kernel's functions would put it.

        Noise in functions, far above all other noise, gives each element's sensitivity to them. Errors of more than
        _FAR times that are not caused by functions.
        """
        explained, total = 0.0, 0.0
        ulp = dict.fromkeys(functions_of(self.runs.replay.ttir), _FUNCTION_NOISE)
        noises = [{"seed": seed, "scale": 1.0, "ulp": ulp} for seed in range(4)]
        variants = [self.runs.results({"promote": True, "noise": noise}) for noise in noises]
        for name, values in self.got.items():
            reference = self.references[name]
            if reference.sigma is None:
                continue
            moved = [(variant[name] - reference.values).square() for variant in variants]
            sensitivity = torch.nan_to_num(torch.stack(moved).mean(0).sqrt())
            error = torch.nan_to_num(values.double() - reference.values).abs()
            z = torch.where(error > 4 * reference.sigma, error / reference.sigma, 0.0)
            reached = sensitivity > 16 * reference.sigma  # where functions matter at all
            reached &= error <= _FAR * sensitivity
            total += float(z.square().sum())
            explained += float(torch.where(reached, z, 0.0).square().sum())
        return explained / total if total else 0.0

    def _emulated(self, cause: Cause) -> Tensors:
        return self.runs.results({"rules": dict(cause.rules)})

    def _distance(self, a: Tensors, b: Tensors) -> float:
        """Energy of the difference of all outputs; integers that differ count as 10**6 sigmas."""
        total = 0.0
        for name, values in a.items():
            sigma = self.references[name].sigma
            if sigma is None:
                total += float(torch.count_nonzero(values != b[name])) * 1e12
            else:
                total += energy(values, b[name], sigma)
        return total

"""Root causes: the launches whose own error is not legal, ranked by its effect on the graph's results.

A launch's error e is its value minus its float64 reference on the same inputs. Put into the float64 graph alone, it
changes the results by d: its effect, with all amplification on the way. Let D be the difference between the results of
the two runs, each result in units of its root mean square. The launch's share is <d, D> / <D, D>; the shares of all
launches add up to 1 as far as the graph is linear in such errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from torchport.numerics.compare.launch_verdict import LaunchVerdict
from torchport.numerics.compare.pairs import PairedCalls
from torchport.numerics.compare.sides import local_error
from torchport.numerics.verdicts.measure import relative_l2

__all__ = ["LEGAL", "RootCause", "rank"]

_MEANS = 2.0
"""A larger share is not told as a figure."""

_STEPS = (0.5, 0.1, 0.01)
"""Weights that tell apart what matters and what does not."""

LEGAL = 8
"""How many launches of each run with the largest legal errors are ranked, behind those whose error is not legal."""


@dataclass(frozen=True)
class RootCause:
    """A launch that may explain the difference of two runs.

    run: "A" or "B"
    position: of the pair of graph calls
    seq: of the launch
    kernel: its function, or the operator
    nodes: its FX nodes
    level: of its verdict
    cause: of its verdict
    reasons: of its verdict
    local: largest relative L2 error of its results
    share: of the difference between the runs' results that it explains, None if not known
    effect: relative change of the results by its error alone, None if not known
    legal: whether its error is within its verdict
    score: largest score of its tensors' verdicts
    fault: of its verdict
    """

    run: str
    position: int
    seq: int
    kernel: str
    nodes: tuple[str, ...]
    level: str
    cause: str | None
    reasons: tuple[str, ...]
    local: float | None
    share: float | None
    effect: float | None
    legal: bool
    score: float = 0.0
    fault: str | None = None

    @property
    def share_words(self) -> str:
        """The share as people should read it; empty if it is not known.

        Shares add up to 100 % where the graph is linear. Elsewhere, and where errors cancel, one may be far above, or
        negative: then its size says nothing.
        """
        if self.share is None or math.isnan(self.share):
            return ""
        if self.share > _MEANS:
            return "more than the results' whole difference"
        return (
            f"{self.share:.0%} of the results' difference" if self.share > -0.005 else "against the results' difference"
        )

    @property
    def share_figure(self) -> str:
        """The same for a column of a table: ``99.2 %``; a dash if it is not known."""
        if self.share is None or math.isnan(self.share):
            return "–"
        if self.share > _MEANS:
            return f"> {100 * _MEANS:.0f} %"
        return f"{max(0.0, 100 * self.share):.1f} %" if self.share > -0.005 else "< 0 %"

    @property
    def weight(self) -> float | None:
        """How much of the results' difference hangs on the launch, 0 to 1; None if that is not known.

        A share far above 1, or far below 0, says that errors cancel, or are not linear: all of the difference does.
        """
        if self.share is None:
            return None
        return 1.0 if math.isnan(self.share) else min(1.0, abs(self.share))

    @property
    def key(self) -> tuple[bool, int, int, float, float, int, int]:
        """Sorts first what a person should look at first.

        That is what is not legal. Of it, what matters: kernels that half of the results' difference hangs on, then
        those of a tenth, or of which that is not known, then a hundredth. Of those that matter alike, FAIL is before
        SUSPECT, the greater weight first, then the higher score, then the earlier launch.
        """
        weight = self.weight
        known = _STEPS[1] if weight is None else weight
        step = sum(known < least for least in _STEPS)
        level = 0 if self.level == "FAIL" else 1
        score = 1e300 if math.isnan(self.score) else min(self.score, 1e300)
        return self.legal, step, level, -known, -score, self.position, self.seq


def rank(
    pair: PairedCalls, *, truth: bool, ranked: Callable[[], None] = lambda: None, largest: int = LEGAL
) -> list[RootCause]:
    """The candidates for root causes of two paired calls, and the largest legal errors, in no order.

    truth: whether shares are computed
    ranked: called after each launch
    largest: how many launches of each run are ranked whose error is legal
    """
    space = _ResultSpace(pair) if truth else None
    roots = []
    for name, call in pair.calls.items():
        launches = [pair.verdicts[name][launch.seq] for launch in call.launches]
        legal = [launch for launch in launches if not launch.suspicious and truth and _local(launch)]
        legal.sort(key=lambda launch: -(_local(launch) or 0.0))
        for item in [*(launch for launch in launches if launch.suspicious), *legal[:largest]]:
            share, effect = space.share(name, item) if space is not None else (None, None)
            verdict = item.verdict
            score = max((tensor.score for tensor in verdict.tensors), default=0.0)
            roots.append(
                RootCause(
                    name, pair.position, item.launch.seq, item.name, verdict.nodes or item.launch.nodes, verdict.level,
                    verdict.cause, verdict.reasons, _local(item), share, effect, not item.suspicious, score,
                    verdict.fault,
                )
            )  # fmt: skip
            ranked()
    return roots


def _local(judged: LaunchVerdict) -> float | None:
    """The largest relative L2 error of a launch's results."""
    errors = [error for tensor in judged.verdict.tensors if (error := local_error(tensor)) is not None]
    if not errors and judged.verdict.level != "UNVERIFIED":
        return None
    for node, result in judged.call.observed.left_by(judged.launch).items():
        if result.value is not None and result.value.dtype.is_floating_point and node in judged.reference:
            reference = judged.reference[node].double()
            errors.append(relative_l2(result.value.double() - reference, reference))
    return max(errors, default=None)


class _ResultSpace:
    """The results of two paired calls as vectors, each result in units of its root mean square in float64."""

    def __init__(self, pair: PairedCalls) -> None:
        self.calls = pair.calls
        self.names: list[dict[str, str]] = []
        self.scales: list[float] = []
        self.exact = {name: call.reference.response({}) for name, call in pair.calls.items()}
        for a in pair.a.graph.outputs:
            b = pair.alignment.pairs.get(a)
            if b not in pair.b.graph.outputs or a not in self.exact["A"] or b not in self.exact["B"]:
                continue
            size = self.exact["A"][a].double()
            norm = float(torch.linalg.vector_norm(size[torch.isfinite(size)]))
            if norm:
                self.names.append({"A": a, "B": b})
                self.scales.append(1 / norm)
        seen = {name: self._observed(name) for name in self.calls}
        self.difference = seen["B"] - seen["A"]
        self.energy = float(self.difference.square().sum())

    def _vector(self, run: str, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        parts = [
            torch.nan_to_num(values[names[run]].double().reshape(-1), nan=1e3, posinf=1e3, neginf=-1e3) * scale
            for names, scale in zip(self.names, self.scales, strict=True)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def _observed(self, run: str) -> torch.Tensor:
        """The results of the run; in float64 if they were not recorded."""
        return self._vector(run, {**self.exact[run], **self.calls[run].observed.outputs()})

    def share(self, run: str, judged: LaunchVerdict) -> tuple[float | None, float | None]:
        """The share of the difference that a launch's own error explains, and the size of its effect."""
        call, replaced = self.calls[run], {}
        for node, result in call.observed.left_by(judged.launch).items():
            value, exact = result.value, call.reference.values.get(node)
            if value is None or exact is None or node not in judged.reference or not exact.is_floating_point():
                continue
            reference = judged.reference[node].double().reshape(value.shape)
            error = value.double() - reference
            same = value.double() == reference  # also where both are infinite
            replaced[node] = exact.double() + torch.where(same, torch.zeros((), dtype=error.dtype), error)
        if not replaced or not self.names:
            return None, None
        moved = call.reference.response(replaced)
        if any(names[run] not in moved for names in self.names):
            return None, None
        effect = self._vector(run, moved) - self._vector(run, self.exact[run])
        sign = 1.0 if run == "B" else -1.0
        share = sign * float(effect @ self.difference) / self.energy if self.energy else None
        return share, float(effect.norm()) / max(1, len(self.names)) ** 0.5

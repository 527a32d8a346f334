"""Root causes: the launches whose own error is no legal one, ranked by what it does to the graph's results.

A launch's error e (its value minus the golden one on the same inputs) is put into the float64 graph alone; what that
changes in the results, d, is its effect, however much is amplified on the way. With D the difference of the two runs'
results (every result in units of its root mean square), its share is <d, D> / <D, D>: shares of all launches add up
to 1 as far as the graph is linear in such errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from torchport.numerics.compare.align import Alignment
from torchport.numerics.compare.sides import Judged
from torchport.numerics.verdicts.observed import Call, relative

__all__ = ["LEGAL", "Root", "rank"]

LEGAL = 8
"""So many launches of each run whose error is legal are ranked behind those whose error is not: the largest."""


@dataclass(frozen=True)
class Root:
    """A launch of run "A" or "B". ``share``: of the difference of the runs' results that it explains, None where that
    is not known; ``effect``: what it changes in the results, relative; ``legal``: its error is within its verdict.
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

    @property
    def key(self) -> tuple[bool, int, float, float, int, int]:
        """Sorts the worst first: what is not legal, by share, then by effect, then in the order of the model."""
        share = -math.inf if self.share is None else self.share
        share = math.inf if math.isnan(share) else share
        tier = 0 if share >= 0.01 or self.share is None else 1
        return self.legal, tier, -share, -min(self.score, 1e300), self.position, self.seq


def rank(
    position: int,
    one: Call,
    other: Call,
    alignment: Alignment,
    verdicts: Mapping[str, Mapping[int, Judged]],
    *,
    truth: bool,
) -> list[Root]:
    """The root candidates of a pair of graph calls, and the largest legal errors, in no order."""
    space = _Space(one, other, alignment) if truth else None
    found = []
    for name, call in (("A", one), ("B", other)):
        mine = [verdicts[name][launch.seq] for launch in call.launches]
        legal = [item for item in mine if not item.suspicious and truth and _local(item)]
        legal.sort(key=lambda item: -(_local(item) or 0.0))
        for item in [*(item for item in mine if item.suspicious), *legal[:LEGAL]]:
            share, effect = space.share(name, item) if space is not None else (None, None)
            verdict = item.verdict
            score = max((tensor.score for tensor in verdict.tensors), default=0.0)
            found.append(
                Root(
                    name, position, item.launch.seq, item.name, verdict.nodes or item.launch.nodes, verdict.level,
                    verdict.cause, verdict.reasons, _local(item), share, effect, not item.suspicious, score,
                )
            )  # fmt: skip
    return found


def _local(item: Judged) -> float | None:
    """The largest relative L2 error of a launch's results."""
    found = [tensor.errors.relative_l2 for tensor in item.verdict.tensors if tensor.errors is not None]
    if not found and item.verdict.level != "UNVERIFIED":
        return None
    for node, one in item.call.results(item.launch).items():
        if one.value is not None and one.value.dtype.is_floating_point and node in item.golden:
            exact = item.golden[node].double()
            found.append(relative(one.value.double() - exact, exact))
    return max(found, default=None)


class _Space:
    """The results of both calls as one vector, every result in units of its true root mean square."""

    def __init__(self, one: Call, other: Call, alignment: Alignment) -> None:
        self.calls = {"A": one, "B": other}
        self.names: list[dict[str, str]] = []
        self.scales: list[float] = []
        self.exact = {"A": one.response({}), "B": other.response({})}
        for a in one.outputs:
            b = alignment.pairs.get(a)
            if b not in other.outputs or a not in self.exact["A"] or b not in self.exact["B"]:
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
        """What the run gave; where that is not known, the truth."""
        return self._vector(run, {**self.exact[run], **self.calls[run].results_seen()})

    def share(self, run: str, item: Judged) -> tuple[float | None, float | None]:
        """The share of the difference that a launch's own error explains, and the size of its effect."""
        call, replaced = self.calls[run], {}
        for node, one in call.results(item.launch).items():
            exact = call.truth.get(node)
            if one.value is not None and exact is not None and node in item.golden and exact.is_floating_point():
                error = one.value.double() - item.golden[node].double().reshape(one.value.shape)
                same = one.value.double() == item.golden[node].double().reshape(one.value.shape)
                replaced[node] = exact.double() + torch.where(same, torch.zeros((), dtype=error.dtype), error)
        if not replaced or not self.names:
            return None, None
        moved = call.response(replaced)
        if any(names[run] not in moved for names in self.names):
            return None, None
        effect = self._vector(run, moved) - self._vector(run, self.exact[run])
        sign = 1.0 if run == "B" else -1.0
        share = sign * float(effect @ self.difference) / self.energy if self.energy else None
        return share, float(effect.norm()) / max(1, len(self.names)) ** 0.5

"""Two evaluations compared: which cells became worse, and is that more than chance?

Levels, coverage and crashes are facts: a step down is a regression. Errors, flips and speed are measured: they are
paired by example, or compared round by round, p is corrected for the number of cells (Holm), and a change of less than
a given size is none, however sure it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from torchport.numerics.verdicts.verdict import LEVELS
from torchport.precision.statistics import ALPHA, holm, mcnemar, sign_flip

__all__ = ["LARGER", "SLOWER", "Change", "changes", "history"]

LARGER = 1.1
"""How many times as large an error must be to count."""

SLOWER = 1.25
"""How many times as slow, against eager in the same process, a model must be to count."""


@dataclass(frozen=True)
class Change:
    """What is worse in one cell.

    what: ``level``, ``status``, ``kernels``, ``fallbacks``, ``error``, ``flips`` or ``speed``.
    before, after: in words.
    p: of the test; None for a fact. corrected: for the number of cells that were tested for it.
    """

    model: str
    target: str
    what: str
    before: str
    after: str
    p: float | None = None
    corrected: float | None = None

    @property
    def decided(self) -> bool:
        """Whether it is a regression."""
        return self.p is None or (self.corrected is not None and self.corrected < ALPHA)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What is worse in ``new``, a document of ``torchport eval``, than in ``old``; regressions come first."""
    before = {(one["model"], one["target"]): one for one in old["cells"]}
    pairs = [(was, now) for now in new["cells"] if (was := before.get((now["model"], now["target"]))) is not None]
    found = [change for was, now in pairs for change in _facts(was, now)]
    for tests in (_errors, _flips, _speed):
        tested = [one for was, now in pairs if (one := tests(was, now)) is not None]
        corrected = holm([p for _, p, _ in tested])
        found += [
            replace(change, p=p, corrected=value)
            for (change, p, large), value in zip(tested, corrected, strict=True)
            if large and value < 1.0
        ]
    return sorted(found, key=lambda one: (not one.decided, one.model, one.target))


def _facts(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    def change(what: str, before: Any, after: Any) -> Change:
        return Change(now["model"], now["target"], what, str(before), str(after))

    if now["status"] != was["status"] and now["status"] != "ok":
        yield change("status", was["status"], f"{now['status']}: {now.get('detail', '')}")
    elif LEVELS.index(now["level"]) > LEVELS.index(was["level"]):
        yield change("level", was["level"], now["level"])
    if was["status"] == now["status"] == "ok":
        for what in ("refused", "fallbacks"):
            first, second = (_count(one["coverage"].get(what, ())) for one in (was, now))
            if second > first:
                yield change("kernels" if what == "refused" else what, first, second)


def _count(found: Any) -> int:
    return sum(found.values()) if isinstance(found, Mapping) else sum(one["count"] for one in found)


_Tested = tuple[Change, float, bool]


def _errors(was: Mapping[str, Any], now: Mapping[str, Any]) -> _Tested | None:
    """The error against float64, paired by example; both runs saw the same ones."""
    first, second = (one.get("accuracy") for one in (was, now))
    if not first or not second or len(first["truth"]["samples"]) != len(second["truth"]["samples"]):
        return None
    least = torch.finfo(torch.float64).tiny
    pairs = zip(first["truth"]["samples"], second["truth"]["samples"], strict=True)
    moved = [math.log(max(b, least) / max(a, least)) for a, b in pairs if a is not None and b is not None]
    if not moved:
        return None
    ratio = math.exp(min(700.0, sum(moved) / len(moved)))
    change = _change(now, "error", first["truth"]["mean"], second["truth"]["mean"])
    return change, sign_flip(moved) if ratio > 1 else 1.0, ratio >= LARGER


def _flips(was: Mapping[str, Any], now: Mapping[str, Any]) -> _Tested | None:
    """Flipped answers. Counts alone are kept, so that what only one run flipped is bounded by their difference."""
    first, second = (_task(one) for one in (was, now))
    if first is None or second is None or first["positions"] != second["positions"]:
        return None
    more = second["flips"] - first["flips"]
    change = _change(
        now, "flips", f"{first['flips']} of {first['positions']}", f"{second['flips']} of {second['positions']}"
    )
    return change, mcnemar(first["flips"], second["flips"]) if more > 0 else 1.0, more > 0


def _task(cell: Mapping[str, Any]) -> Mapping[str, Any] | None:
    task: Mapping[str, Any] = (cell.get("accuracy") or {}).get("task", {})
    return task if "flips" in task else None


def _speed(was: Mapping[str, Any], now: Mapping[str, Any]) -> _Tested | None:
    """Time over eager's of the same round: what the machine does beside moves both."""
    first, second = (_ratios(one) for one in (was, now))
    if not first or not second:
        return None
    slower = _median(second) / _median(first)
    change = _change(now, "speed", f"{1 / _median(first):.3g} x eager", f"{1 / _median(second):.3g} x eager")
    return change, _permuted(first, second) if slower > 1 else 1.0, slower >= SLOWER


def _ratios(cell: Mapping[str, Any]) -> list[float]:
    samples = (cell.get("time") or {}).get("samples") or {}
    return [a / b for a, b in zip(samples.get("target", ()), samples.get("eager", ()), strict=False) if a and b]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _permuted(first: Sequence[float], second: Sequence[float], draws: int = 10_000, seed: int = 0) -> float:
    """The two-sided p of two samples being one: their medians' ratio against that of shuffled samples."""
    both = torch.tensor([*first, *second], dtype=torch.float64).log()
    n, generator = len(first), torch.Generator().manual_seed(seed)
    order = torch.rand(draws, both.numel(), generator=generator).argsort(1)
    shuffled = both[torch.cat([torch.arange(both.numel())[None], order])]
    gaps = (shuffled[:, n:].median(1).values - shuffled[:, :n].median(1).values).abs()
    return float((gaps >= gaps[0] * (1 - 1e-12)).double().mean())


def _change(now: Mapping[str, Any], what: str, before: Any, after: Any) -> Change:
    first, second = (f"{one:.3g}" if isinstance(one, float) else str(one) for one in (before, after))
    return Change(now["model"], now["target"], what, first, second)


def history(old: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The evaluations before, oldest first: those that ``old`` knows of, and ``old``."""
    return [
        *old.get("history", []),
        {
            **{name: old[name] for name in ("issued", "environment", "levels", "sha256")},
            "cells": len(old["cells"]),
        },
    ]

"""One problem judged: every legal variant and every mutant of it, by torchport's verdicts and by the rivals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from precision_bench.faults import Mutant, Outputs, controls, mutants, outputs_of
from precision_bench.problems import Problem
from precision_bench.rivals import RIVALS
from torchport.arithmetic.formats import format_of
from torchport.arithmetic.spacing import spacing
from torchport.numerics.verdicts.attribution import attribute
from torchport.numerics.verdicts.measure import tile_shape, tiles_of
from torchport.numerics.verdicts.references import Reference, references
from torchport.numerics.verdicts.replay import view
from torchport.numerics.verdicts.verdict import judge_tensor, worst_level

__all__ = ["NOISE", "JudgedVariant", "judge_problem", "judge_variants"]

NOISE = 8
"""Noise variants among the legal ones that severity is measured by: no rule's order is the worst there is."""


@dataclass
class JudgedVariant:
    """One variant or mutant. ``severity``: how far it is beyond the legal variants (1: as far as the farthest)."""

    operation: str
    dtype: str
    distribution: str
    shape: tuple[int, ...]
    number: int  # of the fault; 0: a legal variant
    what: str
    severity: float
    level: str
    reasons: list[str] = field(default_factory=list)
    score: float = 0.0
    rivals: dict[str, bool] = field(default_factory=dict)
    cause: str = ""
    attributed: str = ""


class Floor:
    """How far legal variants are from the exact values: over the tensor, per tile, per element."""

    def __init__(self, reference: torch.Tensor, dtype: torch.dtype, legal: Sequence[torch.Tensor]) -> None:
        self.reference, finite = reference, torch.isfinite(reference)
        self.finite = finite
        self.exact = torch.where(finite, reference, 0.0)
        self.never = torch.stack([torch.isfinite(one) for one in legal]).all(0)  # a legal variant is not finite
        self.always = torch.stack([~torch.isfinite(one) for one in legal]).all(0)
        half = spacing(self.exact, format_of(dtype)) / 2
        deviations = [self._deviation(one) for one in legal]
        farthest = torch.stack(deviations).amax(0)
        self.tensor = max(float(one.norm()) for one in deviations)
        self.tiles = torch.stack([tiles_of(one) for one in deviations]).amax(0)
        rows, columns = tile_shape(reference.shape)
        spread = self._spread(self.tiles, rows, columns)
        self.elements = torch.maximum(torch.maximum(farthest, spread), half)
        self.tiles = self.tiles.clamp_min(float(half.min()))
        self.tensor = max(self.tensor, float(half.norm()) / 2)

    def _deviation(self, values: torch.Tensor) -> torch.Tensor:
        return torch.where(self.finite & torch.isfinite(values.double()), (values.double() - self.exact).abs(), 0.0)

    def _spread(self, tiles: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """The figure of each element's tile."""
        shape = self.reference.shape
        height, width = (1, self.reference.numel()) if len(shape) < 2 else (math.prod(shape[:-1]), shape[-1])
        if len(shape) > 1 and shape[-1] == 1:
            height, width = math.prod(shape), 1
        grown = tiles.repeat_interleave(rows, 0)[:height].repeat_interleave(columns, 1)[:, :width]
        return grown.reshape(shape)

    def severity(self, y: torch.Tensor) -> float:
        """The largest of the three ratios; infinite where y is finite and no legal variant is, or the other way."""
        finite = torch.isfinite(y)
        if bool(((self.never & ~finite) | (self.always & finite)).any()):
            return math.inf
        deviation = self._deviation(y)
        ratios = (
            float(deviation.norm()) / self.tensor if self.tensor else 0.0,
            float((tiles_of(deviation) / self.tiles).max()),
            float((deviation / self.elements).max()),
        )
        return max(ratios)


def _severity(outputs: Outputs, right: Outputs, floors: Mapping[str, Floor], legal: Sequence[Outputs]) -> float:
    worst = 0.0
    for name, y in outputs.items():
        if name in floors:
            worst = max(worst, floors[name].severity(y))
        elif not any(torch.equal(y, one[name]) for one in (right, *legal)):
            worst = math.inf
    return worst


def _level(outputs: Outputs, found: Mapping[str, Reference]) -> tuple[str, list[str], float]:
    verdicts = [judge_tensor(y, found[name], name) for name, y in outputs.items()]
    worst = max(verdicts, key=lambda one: one.score)
    return worst_level(one.level for one in verdicts), [r for one in verdicts for r in one.reasons], worst.score


def judge_problem(
    problem: Problem, dtype: str, distribution: str, shape: Sequence[int], seed: int
) -> list[JudgedVariant]:
    """Everything of one problem."""
    found = references(problem.replay, problem.storages, problem.outputs)

    def attributed(outputs: Outputs) -> str:
        shares = attribute(problem.replay, problem.storages, problem.outputs, outputs, found).shares
        return shares[0][0] if shares else "nothing"

    return judge_variants(
        JudgedVariant(problem.name, dtype, distribution, tuple(shape), 0, "native", 0.0, ""),
        found,
        outputs_of(problem),
        list(controls(problem)),
        [_noisy(problem, seed) for seed in range(NOISE)],
        mutants(problem, dtype, torch.Generator().manual_seed(seed)),
        attributed,
    )


def judge_variants(
    native: JudgedVariant,
    found: Mapping[str, Reference],
    right: Outputs,
    legal: Sequence[tuple[str, Outputs]],
    noisy: Sequence[Outputs],
    faulty: Iterable[Mutant],
    attributed: Callable[[Outputs], str],
) -> list[JudgedVariant]:
    """What is right, legal variants and mutants of it, judged against the references ``found``.

    ``native``: the problem's row, which the others' are made from; ``noisy``: variants that count for the floor alone;
    ``attributed``: the cause that attribution gives, for mutants that have one.
    """
    floors = {
        name: Floor(one.values, one.dtype, [outputs[name] for outputs in (right, *(o for _, o in legal), *noisy)])
        for name, one in found.items()
        if one.dtype.is_floating_point
    }
    legal_outputs = [outputs for _, outputs in legal]

    def judged(number: int, what: str, outputs: Outputs, cause: str = "") -> JudgedVariant:
        level, reasons, score = _level(outputs, found)
        passed = {
            name: all(check(y, found[one].values, found[one].native, native.shape[1]) for one, y in outputs.items())
            for name, check in RIVALS.items()
        }
        severity = _severity(outputs, right, floors, legal_outputs)
        return replace(
            native, number=number, what=what, severity=severity, level=level, reasons=reasons[:2], score=score,
            rivals=passed, cause=cause,
        )  # fmt: skip

    results = [judged(0, native.what, right)]
    results += [judged(0, what, outputs) for what, outputs in legal]
    for mutant in faulty:
        if all(_same(y, right[name]) for name, y in mutant.outputs.items()):
            continue  # no fault here: nothing changed
        result = judged(mutant.number, f"{mutant.fault} x {mutant.severity:g}", mutant.outputs, mutant.cause)
        if mutant.cause and mutant.severity == 1.0 and result.level in ("SUSPECT", "FAIL"):
            result.attributed = attributed(mutant.outputs)
        results.append(result)
    return results


def _noisy(problem: Problem, seed: int) -> Outputs:
    """A noise variant with a seed that no verdict has seen, rounded to the outputs' types."""
    noise = {"seed": 5000 + seed, "scale": 1.0, "ulp": {}}
    after = problem.replay.run(problem.storages, {"promote": True, "noise": noise})
    return {one.name: view(one, after[one.storage]).to(one.dtype) for one in problem.outputs if one.storage is not None}


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(*(one.reshape(-1).contiguous().view(torch.uint8) for one in (a, b)))

"""Several ways to run a model against one reference: which of them are beyond the floor, and what would decide it.

The floor is the reference against itself on another number of threads. Each way is compared with it on the same
positions and sequences, and p values are corrected for how many ways there are, for each question on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from torchport.errors import OptionError
from torchport.precision.impact import Impact, impact_of
from torchport.precision.positions import Positions, compared, next_tokens
from torchport.precision.statistics import (
    ALPHA,
    Interval,
    exact_interval,
    holm,
    mcnemar,
    mean_size,
    paired_interval,
    paired_size,
    sign_flip,
    size_without_hits,
)
from torchport.precision.ways import Way, logits_in, other_threads, threads

__all__ = ["Answers", "Compared", "Impacts", "Question", "answered", "by_unit", "impacts", "questions"]

Task = Callable[[Any], Any]
"""Takes what the model returned; returns its answers, one number for each question, or (answers, right answers)."""


@dataclass(frozen=True)
class Question:
    """Whether a figure is beyond the floor.

    p: of the test on the same units.
    corrected: p, corrected for the number of ways (Holm).
    test, unit: what it is, and what it takes for independent.
    needed: how many units would decide (with a probability of 80 %) if the difference is the one seen; None if none is
        seen.
    """

    p: float
    test: str
    unit: str
    units: int
    needed: int | None
    corrected: float = 1.0

    @property
    def decided(self) -> bool:
        return self.corrected < ALPHA


@dataclass(frozen=True)
class Answers:
    """Two runs' answers to the same questions.

    same: how many are the same.
    low, high: exact interval of their share.
    right_a, right_b: how many are right; None where that is not known.
    difference: of the shares of right answers, B - A; its interval is exact and conservative.
    changed: the share of answers that changed, in being right where that is known; the sample size rests on it.
    assumed: whether ``changed`` is the upper end of its interval, as no answer changed.
    points: a difference in percentage points, and ``needed``: how many questions would decide it.
    p: McNemar's, of right answers; None where they are not known. corrected: for the number of ways (Holm).
    """

    questions: int
    same: int
    low: float
    high: float
    right_a: int | None
    right_b: int | None
    difference: Interval | None
    changed: float
    assumed: bool
    points: float
    needed: int
    p: float | None = None
    corrected: float | None = None


@dataclass(frozen=True)
class Compared:
    """One way against the reference.

    tokens, divergence, loss: is the share of flipped tokens, the divergence, the loss of the labels beyond the floor?
    """

    name: str
    impact: Impact
    tokens: Question
    divergence: Question
    loss: Question | None
    answers: Answers | None


@dataclass(frozen=True)
class Impacts:
    """Ways against one reference.

    null: the reference against itself, with ``threads`` threads of (first, second run).
    few: positions without a flip that show a share below ``points`` percent.
    """

    reference: str
    null: Impact
    null_answers: Answers | None
    threads: tuple[int, int]
    points: float
    few: int
    ways: tuple[Compared, ...]

    def as_json(self) -> dict[str, Any]:
        """A dictionary of numbers; None for one that is not finite, which JSON has no word for."""
        found: dict[str, Any] = _finite(asdict(self))
        return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def impacts(
    model: Any,
    inputs: Sequence[Any],
    reference: Way,
    ways: Sequence[Way],
    task: Task | None = None,
    points: float = 2.0,
    advance: Callable[[str], None] = lambda what: None,
) -> Impacts:
    """Run a causal language model as ``reference``, twice, and in each of ``ways``, and compare.

    points: the difference, in percentage points, that sample sizes are given for. Raises OptionError for a model that
    returns no logits, or NaN, and for a task that gives no answers.
    """
    advance(reference.name)
    first = reference.run(model, inputs)
    logits = _logits(first)
    labels = next_tokens(inputs, logits)
    count = other_threads()
    advance(f"{reference.name} again, on {count} thread{'s' * (count > 1)}")
    with threads(count):
        again = reference.run(model, inputs)
    floor = compared(logits, _logits(again), labels)
    found = []
    for way in ways:
        advance(way.name)
        result = way.run(model, inputs)
        positions = compared(logits, _logits(result), labels)
        answers = None if task is None else answered(task(first), task(result), points)
        found.append(Compared(way.name, impact_of(positions), *questions(floor, positions), answers))
    return Impacts(
        reference.name,
        impact_of(floor),
        None if task is None else answered(task(first), task(again), points),
        (torch.get_num_threads(), count),
        points,
        size_without_hits(points / 100),
        tuple(_corrected(found)),
    )


def _logits(result: Any) -> torch.Tensor:
    found = logits_in(result)
    if found is None:
        raise OptionError("the model returns no logits of [batch, tokens, vocabulary]; `impact` is for causal models")
    return found


def questions(floor: Positions, found: Positions) -> tuple[Question, Question, Question | None]:
    """Is a way beyond the floor? Units are those of the same position, or the same sequence."""
    only_floor = int((floor.flipped & ~found.flipped).sum())
    only_found = int((found.flipped & ~floor.flipped).sum())
    n = found.flipped.numel()
    seen = abs(only_found - only_floor) / n
    tokens = Question(
        mcnemar(only_floor, only_found), "McNemar, exact", "position", n,
        paired_size(seen, (only_floor + only_found) / n) if seen else None,
    )  # fmt: skip
    divergence = by_unit((found.kl - floor.kl).mean(-1))
    if found.nll_a is None or found.nll_b is None:
        return tokens, divergence, None
    moved = (found.nll_b - found.nll_a).nanmean(-1)
    moved = moved[~torch.isnan(moved)]  # sequences without labels
    return tokens, divergence, by_unit(moved) if moved.numel() else None


def by_unit(differences: torch.Tensor) -> Question:
    values = differences.tolist()
    spread = float(differences.std()) if len(values) > 1 else float("nan")
    needed = mean_size(float(differences.mean()), spread) if len(values) > 1 else None
    return Question(sign_flip(values), "flipped signs", "sequence", len(values), needed)


def answered(a: Any, b: Any, points: float) -> Answers:
    """Compare two runs' answers; arguments as a task returns them. Raises OptionError for what are none."""
    (first, right), (second, other) = _split(a), _split(b)
    if first.shape != second.shape or (right is not None and (other is None or not torch.equal(right, other))):
        raise OptionError("the task asks other questions of both runs; it must not depend on the model's results")
    n = first.numel()
    same = first == second
    low, high = exact_interval(int(same.sum()), n)
    was, now = (first, second) if right is None else (first == right, second == right)
    changed = int((was != now).sum())
    share = changed / n if changed else exact_interval(0, n)[1]
    needed = paired_size(points / 100, share)
    found = Answers(n, int(same.sum()), low, high, None, None, None, share, not changed, points, needed)
    if right is None:
        return found
    only_a, only_b = int((was & ~now).sum()), int((now & ~was).sum())
    return replace(
        found, right_a=int(was.sum()), right_b=int(now.sum()), difference=paired_interval(only_a, only_b, n),
        p=mcnemar(only_a, only_b),
    )  # fmt: skip


def _split(found: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    parts = found if isinstance(found, tuple) else (found,)
    if len(parts) not in (1, 2) or not all(isinstance(one, torch.Tensor) and one.dim() == 1 for one in parts):
        raise OptionError("the task must return its answers, a tensor of one dimension, or (answers, right answers)")
    if parts[0].numel() == 0:
        raise OptionError("the task has no questions: there is nothing to measure")
    if any(one.is_floating_point() or one.is_complex() or one.shape != parts[0].shape for one in parts):
        raise OptionError("answers, and right answers, must be as many whole numbers: one for each question")
    return parts[0].detach().cpu(), parts[1].detach().cpu() if len(parts) > 1 else None


def _corrected(found: Sequence[Compared]) -> list[Compared]:
    """p values corrected for the number of ways, for each question on its own."""
    tokens = holm([one.tokens.p for one in found])
    divergence = holm([one.divergence.p for one in found])
    loss = holm([one.loss.p for one in found if one.loss is not None])
    right = holm([one.answers.p for one in found if one.answers is not None and one.answers.p is not None])
    made = []
    for index, one in enumerate(found):
        answers = one.answers
        if answers is not None and answers.p is not None:
            answers = replace(answers, corrected=right[index])
        made.append(
            replace(
                one,
                tokens=replace(one.tokens, corrected=tokens[index]),
                divergence=replace(one.divergence, corrected=divergence[index]),
                loss=None if one.loss is None else replace(one.loss, corrected=loss[index]),
                answers=answers,
            )
        )
    return made

"""``torchport impact``: measures how other arithmetic changes a causal language model's output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from torchport.cli.model import load_function, load_model
from torchport.cli.working import working
from torchport.errors import OptionError
from torchport.precision.impact import Impact
from torchport.precision.impacts import Answers, Compared, Impacts, Question, impacts
from torchport.precision.statistics import Interval
from torchport.precision.ways import way_of
from torchport.report import counted

__all__ = ["show"]

_LEAST = 6
"""Units whose signs can decide: the least p of n is 2^(1-n)."""


def show(
    model: str, a: str, b: str, *, as_json: bool, task: str | None = None, points: float = 2.0,
    precision: Path | None = None,
) -> None:  # fmt: skip
    """Run ``model`` (``FILE.py:FUNCTION``) as ``a`` and as each of ``b`` (comma separated) and print the differences.

    task: FILE.py:FUNCTION that makes answers of what the model returned (``torchport.precision.impacts.Task``).
    points: percentage points that sample sizes are given for.
    precision: the option of that name, for ``b``.

    Raises OptionError and TargetError.
    """
    if not 0 < points < 100:
        raise OptionError(f"--points {points:g} is no difference of shares; valid: more than 0, less than 100")
    names = [name.strip() for name in b.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise OptionError(f"--b {b!r} names {'nothing' if not names else 'a way twice'}; expected h100 or h100,mi300x")
    if precision is not None and not precision.is_file():
        raise OptionError(f"--precision: there is no file {precision}")
    ways = [way_of(name).with_precision(precision) for name in names]
    reference = way_of(a)
    function = None if task is None else load_function(task)
    module, inputs = load_model(model)
    with working("running the model") as work:
        result = impacts(module, inputs, reference, ways, function, points, work.begin)
    print(json.dumps(result.as_json(), indent=1) if as_json else "\n".join(_text(result)))


def _text(result: Impacts) -> Iterator[str]:
    null = result.null
    yield (
        f"against {result.reference}: {counted(null.positions, 'position')} in {counted(null.sequences, 'sequence')}, "
        f"{null.vocabulary} tokens"
    )
    yield ""
    first, second = result.threads
    yield f"floor: {result.reference} again, on {counted(second, 'thread')} in place of {first}"
    yield from _figures(null)
    if result.null_answers is not None:
        yield next(_answers(result.null_answers, several=False))
    for one in result.ways:
        yield ""
        yield one.name
        yield from _figures(one.impact)
        yield from _beyond(one, result)
        if one.answers is not None:
            yield from _answers(one.answers, several=len(result.ways) > 1)
    yield ""
    yield (
        "Intervals are of 95 %. That of flipped tokens is exact (Clopper-Pearson) for independent positions; the "
        "others resample whole sequences (bootstrap, seeded). p values are paired"
        + (f", and corrected for {len(result.ways)} targets (Holm)." if len(result.ways) > 1 else ".")
    )


def _figures(found: Impact) -> Iterator[str]:
    yield f"  logits: off by {found.rms:.2g} (root mean square), {found.largest:.2g} at most"
    yield (
        f"  divergence: {found.kl:.2g} nats a position (Kullback-Leibler; {_interval(found.kl_interval)}), "
        f"{found.kl_largest:.2g} at most"
    )
    clustered = "" if found.flip_by_sequence is None else f"; by sequence {_percent(found.flip_by_sequence)}"
    yield (
        f"  likeliest token: another in {counted(found.flips, 'position')}, {found.flip:.2%} "
        f"({_percent((found.flip_low, found.flip_high))}{clustered})"
    )
    if found.flips:
        yield f"  largest lead overturned: {found.overturned:.2g} logits"
    yield f"  sampled token: another with probability {found.sampled:.2g}"
    if found.nll_a is not None and found.nll_b is not None:
        yield f"  loss: {found.nll_a:.6g} and {found.nll_b:.6g} nats a token"
        yield f"  perplexity: {found.perplexity:+.3g} ({_interval(found.perplexity_interval)})"


def _interval(found: Interval | None) -> str:
    return "no interval" if found is None else f"{found[0]:.2g} to {found[1]:.2g}"


def _percent(found: Interval) -> str:
    return f"{found[0]:.2%} to {found[1]:.2%}"


def _beyond(one: Compared, result: Impacts) -> Iterator[str]:
    several = len(result.ways) > 1
    for name, question in (("tokens", one.tokens), ("divergence", one.divergence), ("loss", one.loss)):
        if question is None:
            continue
        yield f"  beyond the floor, {name}: {_decision(question, several)}"
    if one.impact.flips == 0 and one.impact.positions < result.few:
        yield (f"  no token flipped, which shows less than {result.points:g} % only from {result.few:,} positions on")


def _decision(found: Question, several: bool) -> str:
    p = f"p = {found.p:.2g} ({found.test})" + (f", {found.corrected:.2g} corrected" if several else "")
    if found.decided:
        return f"yes, {p}"
    if found.unit == "sequence" and found.units < _LEAST:
        return f"cannot be decided from {counted(found.units, found.unit)}: {_LEAST} at least, {p}"
    if found.needed is None:
        return f"not seen, {p}"
    units = counted(found.needed, found.unit).replace(str(found.needed), f"{found.needed:,}")
    return f"not decided, {p}: {found.units:,} of about {units}"


def _answers(found: Answers, *, several: bool) -> Iterator[str]:
    yield (
        f"  answers: {found.same} of {found.questions} are the same, {found.same / found.questions:.1%} "
        f"({found.low:.1%} to {found.high:.1%})"
    )
    if found.right_a is not None and found.right_b is not None and found.difference is not None:
        low, high = (100 * one for one in found.difference)
        p = f"p = {found.p:.2g} (McNemar, exact)" + (f", {found.corrected:.2g} corrected" if several else "")
        yield (
            f"  right answers: {found.right_a} and {found.right_b}, "
            f"{100 * (found.right_b - found.right_a) / found.questions:+.1f} points ({low:+.1f} to {high:+.1f}), {p}"
        )
    basis = f"{found.changed:.1%} of answers change" + (", the most that none of them allows" * found.assumed)
    if found.questions < found.needed:
        yield (
            f"  {counted(found.questions, 'question')} {'decides' if found.questions == 1 else 'decide'} nothing about "
            f"{found.points:g} points: you need {found.needed:,} (if {basis})"
        )
    else:
        yield f"  {found.questions:,} questions are enough for {found.points:g} points ({found.needed:,}, if {basis})"

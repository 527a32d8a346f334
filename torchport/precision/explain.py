"""Explains in words what a recorded kernel computes, whether its numbers are legal, why, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from torchport.errors import RunError
from torchport.numerics.compare.launch_verdict import judge_launch, launch_name
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.causes import Cause, cause_named
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import calls_of
from torchport.numerics.verdicts.verdict import KernelVerdict, TensorVerdict
from torchport.triton.source import arithmetic_of

__all__ = ["Explanation", "Worst", "explain_launch"]

_WORST = 4
"""Elements that are named for each output."""

_MOST = 0.5
"""A cause that explains this share of a difference is taken for its cause."""


@dataclass(frozen=True)
class Worst:
    """One of the worst elements: ``value`` is the chip's, ``exact`` the reference."""

    argument: str
    index: tuple[int, ...]
    value: float
    exact: float


@dataclass(frozen=True)
class Explanation:
    """All that is known of one launch.

    computes: FX nodes with their operations.
    lines: the user's.
    failed: gates with figures.
    where: sentences on the places of errors.
    why, meaning, advice: sentences.
    """

    seq: int
    kernel: str
    target: str
    config: str
    level: str
    cause: str | None
    method: str
    computes: tuple[str, ...]
    lines: tuple[str, ...]
    failed: tuple[str, ...]
    where: tuple[str, ...]
    worst: tuple[Worst, ...]
    attribution: tuple[tuple[str, float], ...]
    residual: float | None
    why: tuple[str, ...]
    meaning: str
    advice: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def explain_launch(run: Run, launch: Launch, judge: Any = judge) -> Explanation:
    """Explain one launch of a run. Raises RunError if its graph cannot be read."""
    call = next((one for one in calls_of(run) if launch.seq in {each.seq for each in one.launches}), None)
    if call is None:
        raise RunError(f"{run.path}: the graph of launch {launch.seq} cannot be read, so it cannot be explained")
    verdict = judge_launch(call, launch, judge).verdict
    kernel = run.kernels.get(launch.kernel or "", {})
    nodes = [call.nodes[name] for name in launch.nodes if name in call.nodes]
    bad = verdict.level in ("SUSPECT", "FAIL")
    target = str(kernel.get("target") or run.graphs[launch.graph].get("target"))
    emulates = bool(arithmetic_of(kernel.get("source", "")))
    return Explanation(
        launch.seq, launch_name(run, launch), target, str(kernel.get("config", "")), verdict.level, verdict.cause,
        verdict.method, tuple(f"{one['name']} = {one['target']}" for one in nodes), _lines(nodes),
        (*verdict.reasons, *launch.flags), _where(verdict), _worst(verdict) if bad else (), verdict.attribution,
        verdict.residual, _why(verdict), _meaning(verdict, launch, target, emulates=emulates),
        _advice(run, launch, verdict),
    )  # fmt: skip


def _lines(nodes: list[dict[str, Any]]) -> tuple[str, ...]:
    found = [one["source"] for one in nodes if one.get("source")]
    texts = [f"{one['file']}:{one['line']}  {one.get('code') or ''}".rstrip() for one in found]
    return tuple(dict.fromkeys(texts))


def _where(verdict: KernelVerdict) -> tuple[str, ...]:
    """Where errors are, and how many, of each output that failed a gate."""
    found = []
    for one in verdict.tensors:
        errors = one.errors
        if errors is None or not one.reasons:
            continue
        wrong = round(errors.misrounded * errors.elements)
        text = f"{one.argument} ({one.dtype} {list(one.shape)}): {wrong} of {errors.elements} elements are not rightly "
        text += f"rounded; 99 % are within {errors.p99:.3g} ULP, the largest error is {errors.maximum:.3g} ULP"
        tiles = [(z, row, column) for row, line in enumerate(errors.tiles) for column, z in enumerate(line)]
        if len(tiles) > 1:
            z, row, column = max(tiles)
            spread = sum(value > z / 4 for value, _, _ in tiles)
            text += f"; the worst of {len(errors.tiles)} x {len(errors.tiles[0])} tiles is ({row}, {column}), with "
            text += f"{z:.3g} sigma, and {spread} of {len(tiles)} tiles are within a factor of 4 of it"
        found.append(text + ".")
    return tuple(found)


def _worst(verdict: KernelVerdict) -> tuple[Worst, ...]:
    return tuple(
        Worst(one.argument, _index(one, index), value, exact)
        for one in verdict.tensors
        if one.errors is not None and one.reasons
        for index, value, exact in one.errors.worst[:_WORST]
    )


def _index(one: TensorVerdict, flat: int) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), one.shape)) if one.shape else ()


def _why(verdict: KernelVerdict) -> tuple[str, ...]:
    """What the attribution says."""
    if verdict.residual is None:
        return ()
    if verdict.fault is not None:
        return (f"{verdict.reasons[0]} ({1 - verdict.residual:.2%} of the difference).",)
    if not verdict.attribution:
        return (
            f"None of the causes that chips are known for explains the difference ({verdict.residual:.0%} is left).",
        )
    (name, share), *others = verdict.attribution
    cause = cause_named(name)
    sentences = [*cause.words(share, verdict.residual, beyond=_is_beyond(verdict, cause))]
    if others:
        sentences.append(f"Each alone would explain: {', '.join(f'{other} {part:.0%}' for other, part in others)}.")
    return tuple(sentences)


def _is_beyond(verdict: KernelVerdict, cause: Cause) -> bool:
    """Whether errors are larger than the cause can make them."""
    return any(tensor.errors is not None and tensor.errors.p99 > cause.ulp for tensor in verdict.tensors)


def _known_cause(verdict: KernelVerdict) -> Cause | None:
    """The known cause that explains most of the difference."""
    if verdict.fault is not None:
        return None
    name, share = verdict.attribution[0] if verdict.attribution else ("", 0.0)
    cause = cause_named(name)
    return cause if share >= _MOST and not _is_beyond(verdict, cause) else None


def _meaning(verdict: KernelVerdict, launch: Launch, target: str, *, emulates: bool) -> str:
    if verdict.level == "EXACT":
        return "Every element is the exact result, rightly rounded: nothing can be better."
    if verdict.level == "UNVERIFIED":
        return f"Nothing is known of these numbers: {'; '.join(verdict.reasons) or 'no reason is given'}."
    if verdict.level == "EXPECTED":
        if verdict.cause == "legal rounding":
            return "Legal arithmetic: rounding the same computation in another order moves the results as far as this."
        whose = "the emulated chip" if emulates else "the target"
        return f"Legal arithmetic of {whose}, not a bug: its profile's {verdict.cause} gives these results."
    if any(flag.startswith("nondeterministic") for flag in launch.flags):
        return "Two launches on the same inputs gave other bits: a race, or memory that was never written."
    if verdict.fault is not None:
        return "It is attention with a fault, which is in the kernel's source, or in the compiler that it went through."
    if (cause := _known_cause(verdict)) is not None:
        return (
            f"{target} computes this kernel with {cause.name!r}, which its profile does not declare: legal if that is "
            "what the chip is meant to do, a bug of its compiler or library if not."
        )
    return "No legal rounding and no known arithmetic of a chip gives these results: this looks like a bug."


def _advice(run: Run, launch: Launch, verdict: KernelVerdict) -> tuple[str, ...]:
    if verdict.level in ("EXACT", "EXPECTED"):
        return ("Nothing needs to be done.",)
    if verdict.level == "UNVERIFIED":
        kept = any(arg.after is not None for arg in launch.args)
        return () if kept else ('Record the run with torchport.record(..., level="full").',)
    found = []
    if launch.kernel is not None:
        found.append(f"torchport repro {run.path} {launch.seq}: a folder that reproduces it alone")
    found.append("torchport bisect MODEL --target T --repeat 5: does it come and go, does it follow the block sizes?")
    if (cause := _known_cause(verdict)) is not None:
        found.append(cause.advice)
    return tuple(found)

"""Finds the smallest set of kernels that must be computed in higher precision, or their sums in another order, for a
metric to be small enough."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from torchport.errors import OptionError, RunError
from torchport.inductor.precision.blocks import SUMS
from torchport.inductor.precision.plan import BLOCKS, WIDTHS, NamedGraph, Plan
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Run
from torchport.precision.candidates import Candidate, candidates, graphs_of
from torchport.precision.cost import Cost, cost_of
from torchport.precision.metrics import Figure, Metric, better
from torchport.precision.minimal import Search, smallest
from torchport.precision.steps import INFERENCE, Steps
from torchport.precision.ways import OtherGraphs, Way, other_threads, threads, way_of

__all__ = ["REMEDIES", "Fix", "Side", "fix"]

REMEDIES = ("either", "type", "order")
"""What may be done about a kernel: a wider type, its sums in blocks, or the second where it does as well."""

Advance = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """One side of the comparison: how the model is run, and a recorded run of it, if there is one already."""

    way: Way
    run: Run | None = None


@dataclass(frozen=True)
class Fix:
    """What was found.

    metric: its name and what it is.
    before: the metric of B against A; after: with the chosen kernels in higher precision.
    null: A against itself, with another number of threads; None where A is not run again.
    exact: the CPU target with all operations in float64 against A: A's own error; None where A is in float64.
    budget: what the metric may be; floor: whether that follows from ``null`` and ``exact``.
    search: the search; its members are candidates.
    ranked: all candidates, best first.
    plan: for the option ``precision``; None where the budget is not met, or without it.
    p: of the hypothesis that the metric is as before.
    cost: None where it was not measured.
    """

    metric: tuple[str, str]
    before: Figure
    after: Figure
    null: Figure | None
    exact: Figure | None
    budget: float
    floor: bool
    search: Search[Candidate]
    ranked: tuple[Candidate, ...]
    plan: Plan | None
    p: float
    cost: Cost | None = None

    @property
    def kernels(self) -> int:
        return len(self.ranked)

    @property
    def remedies(self) -> tuple[str, ...]:
        """What is done about each chosen kernel: a type, or ``blocks``; none without a plan."""
        return () if self.plan is None or self.plan.kernels is None else tuple(one.to for one in self.plan.kernels)

    def as_json(self) -> dict[str, Any]:
        """Figures without those of single units."""
        return {
            "metric": self.metric[0],
            "about": self.metric[1],
            "budget": self.budget,
            "floor": self.floor,
            **{
                name: _shown(figure)
                for name, figure in (
                    ("before", self.before), ("after", self.after), ("null", self.null), ("exact", self.exact),
                )
            },
            "met": self.search.met,
            "minimal": self.search.minimal,
            "smallest": self.search.smallest,
            "trials": self.search.trials,
            "candidates": self.kernels,
            "chosen": [one.kernel.name for one in self.search.chosen],
            "remedies": list(self.remedies),
            "p": self.p,
            "cost": None if self.cost is None else {**asdict(self.cost), "times": self.cost.times},
        }  # fmt: skip


def _shown(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    kept = ("value", "low", "high", "units", "unit")
    shown = {name: getattr(figure, name) for name in kept}  # JSON has no infinities
    return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in shown.items()}


def fix(
    model: Any,
    inputs: Sequence[Any],
    a: Side,
    b: Side,
    metric: Metric,
    budget: float | None = None,
    trials: int = 100,
    timed: int = 15,
    advance: Advance = lambda what: None,
    remedy: str = "either",
    steps: Steps = INFERENCE,
) -> Fix:
    """Search for the smallest set of B's kernels that, computed in float64, brings ``metric`` of B against A down.

    budget: what the metric may be. None: the floor, the larger of A against itself on another number of threads, and
        of A against the same model with all operations in float64. Below A's own error nothing of B can be told
        apart. Of means it is the upper end of the interval.
    trials: how many sets are tried at most; each compiles the model.
    timed: how often the model's step is timed, with and without; 0 not to.
    advance: is told what is being done.
    remedy: one of ``REMEDIES``. ``order``: only kernels with sums are candidates, and their sums are made in blocks.
    steps: what is run; of training, the forward and backward graphs' kernels are candidates.

    Where all results of the chosen kernels have 16 bits, float32 is taken if it does as well; of ``either``, sums in
    blocks for each chosen kernel that they do as well for. Raises OptionError where
    the model is not that of the runs, for a metric that it has no results for, and what the model raises.
    """
    if b.way.options is None:
        raise OptionError("B compiles nothing: only compiled kernels can be computed in higher precision")
    advance(f"running A, {a.way.name}")
    reference = a.way.run(model, inputs, steps)
    exact = None if a.way.name in WIDTHS else way_of("float64").run(model, inputs, steps)

    def measured(result: Any) -> Figure:
        return metric.measure(reference, result, inputs)

    null = None
    if budget is None:
        with threads(other_threads()):
            null = measured(a.way.run(model, inputs, steps))
    own = None if exact is None else measured(exact)
    limit = budget if budget is not None else _floor(metric, null, own)
    advance(f"recording B, {b.way.name}")
    ranked, graphs = _ranked(model, inputs, a, b, steps)
    if remedy == "order":
        ranked = [one for one in ranked if _sums(one)]
        if not ranked:
            raise OptionError("no kernel of B has a sum whose order is known: --remedy type computes in a wider type")
    with tempfile.TemporaryDirectory() as folder:
        trial = _Trial(model, inputs, b.way, graphs, Path(folder) / "precision.json", steps)
        figures: dict[tuple[Candidate, ...], Figure] = {}
        first = BLOCKS if remedy == "order" else "float64"

        def tried(chosen: Sequence[Candidate], to: Sequence[str]) -> Figure:
            return measured(trial.run(_plan(chosen, graphs, to)))

        def value(chosen: Sequence[Candidate]) -> float:
            figure = figures[tuple(chosen)] = tried(chosen, [first] * len(chosen))
            advance(f"{len(chosen)} of {len(ranked)} kernels in {first}: {metric.name} {figure.value:.3g}")
            return figure.value

        search = smallest(ranked, value, limit, trials)
        before, after = figures.get(()) or tried((), ()), figures[search.chosen]
        to = [first] * len(search.chosen)
        if search.met and remedy != "order":
            for cheaper in _cheaper(search.chosen, to, blocks=remedy == "either"):
                figure = tried(search.chosen, cheaper)
                advance(f"in {', '.join(sorted(set(cheaper)))}: {metric.name} {figure.value:.3g}")
                if figure.value <= limit:
                    to[:], after = cheaper, figure
        found = Fix(
            (metric.name, metric.about), before, after, null, own, limit, budget is None,
            search, tuple(ranked), None, better(metric, before, after),
        )  # fmt: skip
        if not search.met or not search.chosen:
            return found
        plan = _plan(search.chosen, graphs, to)
        found = replace(found, plan=plan)
        if timed:
            advance("timing")
            plan.write(trial.path)
            found = replace(found, cost=cost_of(model, inputs, b.way, trial.path, timed, steps))
    return replace(found, plan=replace(plan, decision=_decision(found, a, b)))


def _cheaper(chosen: Sequence[Candidate], to: list[str], *, blocks: bool) -> Iterator[list[str]]:
    """Plans to try in place of float64, each from what ``to`` has become by the ones before it.

    float32 where all results have 16 bits. Then sums in blocks, which are in the kernel's own type: chips are far
    slower in float64. All kernels that have sums at once, and one by one where that is not enough.
    """
    if chosen and _is_narrow(chosen):
        yield ["float32"] * len(chosen)
    sums = [place for place, one in enumerate(chosen) if _sums(one)] if blocks else []
    if sums:
        yield [BLOCKS if place in sums else one for place, one in enumerate(to)]
    if len(sums) > 1 and BLOCKS not in to:
        for place in sums:
            yield [BLOCKS if other == place else one for other, one in enumerate(to)]


def _sums(candidate: Candidate) -> bool:
    return any(node.operation in SUMS for node in candidate.kernel.nodes)


def _floor(metric: Metric, *figures: Figure | None) -> float:
    """The largest of the figures: of shares the value, of means the upper end of the interval.

    A mean within the interval of another cannot be told from it. A share's interval is wide where there are few
    positions, which must not make the budget lax.
    """
    found = [one for one in figures if one is not None]
    if any(one.value != one.value for one in found):
        raise OptionError("the metric of A against itself is NaN: there is no floor; torchport diff says where from")
    return max(one.value if metric.share or one.high is None else one.high for one in found)


def _decision(found: Fix, a: Side, b: Side) -> dict[str, Any]:
    return {"a": a.way.name, "b": b.way.name, **found.as_json()}


def _ranked(
    model: Any, inputs: Sequence[Any], a: Side, b: Side, steps: Steps
) -> tuple[list[Candidate], tuple[NamedGraph, ...]]:
    """B's kernels, ranked against A, and its graphs; what was not recorded yet is recorded now."""
    with tempfile.TemporaryDirectory() as folder:
        second = b.run or _recorded(model, inputs, b.way, Path(folder) / "b", steps)
        first = a.run
        if first is None and a.way.name not in WIDTHS and a.way.options is not None:
            first = _recorded(model, inputs, a.way, Path(folder) / "a", steps)
        graphs = graphs_of(second)
        try:
            ranked = candidates(first, second)
        except RunError as error:
            raise OptionError(f"the runs cannot be compared: {error}") from error
    if not ranked:
        raise OptionError("B runs no kernels that have a name: there is nothing to compute in higher precision")
    return ranked, graphs


def _recorded(model: Any, inputs: Sequence[Any], way: Way, folder: Path, steps: Steps) -> Run:
    """The way's run of one inference, or one step of training."""
    once, model = replace(steps, count=min(1, steps.count)), steps.copied(model)
    called = way.compiled(model)
    torch.manual_seed(0)
    once.run(model, called, inputs)
    torch.manual_seed(0)
    with record(folder, "full", overhead=float("inf"), ttir=False):
        once.run(model, called, inputs)
    return Run.load(folder)


def _plan(chosen: Sequence[Candidate], graphs: tuple[NamedGraph, ...], to: Sequence[Any]) -> Plan:
    """``to``: for each chosen kernel, what it is computed in."""
    return Plan(tuple(replace(one.kernel, to=kind) for one, kind in zip(chosen, to, strict=True)), graphs)


def _is_narrow(chosen: Sequence[Candidate]) -> bool:
    """Whether all floats that the kernels compute have 16 bits or less."""
    results = [node.result for one in chosen for node in one.kernel.nodes]
    return not any(wide in result for result in results for wide in ("float32", "float64"))


@dataclass
class _Trial:
    """Runs of the model with sets of kernels in higher precision.

    path: the file that the option ``precision`` names.
    steps: what is run.
    """

    model: Any
    inputs: Sequence[Any]
    way: Way
    graphs: tuple[NamedGraph, ...]
    path: Path
    steps: Steps

    def run(self, plan: Plan) -> Any:
        """What the steps give. Raises OptionError where its graphs are not those of the plan."""
        plan.write(self.path)
        try:
            return self.way.with_precision(self.path).run(self.model, self.inputs, self.steps)
        except OtherGraphs as error:
            raise OptionError(
                "the model's graphs are not those of run B: it is another model, has inputs of other shapes, or was "
                "recorded with another version of torch; give the model and the inputs of the run"
            ) from error

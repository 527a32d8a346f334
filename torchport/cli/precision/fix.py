"""``torchport fix``: the fewest kernels in higher precision that bring a metric back, as a file for torch.compile."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from torchport.cli.model import load_function, load_model
from torchport.cli.working import working
from torchport.errors import OptionError
from torchport.inductor.precision.plan import BLOCKS
from torchport.numerics.runs.reader import Run
from torchport.precision.candidates import Candidate
from torchport.precision.fix import REMEDIES, Fix, Side
from torchport.precision.fix import fix as search
from torchport.precision.metrics import METRICS, Metric, custom
from torchport.precision.statistics import ALPHA, size_without_hits
from torchport.precision.steps import Steps
from torchport.precision.ways import way_of, way_of_run
from torchport.report import counted

__all__ = ["fix"]


def fix(
    a: str, b: str, model: str, metric: str, budget: str, output: Path, trials: int, timed: int, *, as_json: bool,
    trust: bool = False, remedy: str = "either", train: int = 0,
) -> int:  # fmt: skip
    """Search, print what was found, and write the file. Returns 1 if no set of kernels meets the budget.

    Raises OptionError for arguments that are not valid, RunError, TargetError, OSError.
    """
    limit = _budget(budget)
    measured = _metric(metric)
    if remedy not in REMEDIES:
        raise OptionError(f"--remedy {remedy!r} is not valid; valid: {', '.join(REMEDIES)}")
    if not output.absolute().parent.is_dir():  # checked first, as the search takes long
        raise OptionError(f"cannot write {output}: there is no folder {output.absolute().parent}")
    sides = _side(a, trust), _side(b, trust)
    module, inputs = load_model(model)
    with working("running the model") as work:
        found = search(module, inputs, *sides, measured, limit, trials, timed, work.begin, remedy, Steps(train))
    if found.plan is not None:
        found.plan.write(output)
    if as_json:
        written = None if found.plan is None else str(output)
        print(json.dumps({**found.as_json(), "file": written}, indent=1))
    else:
        print("\n".join(_text(found, sides[0].way.name, sides[1].way.name, output)))
    return 0 if found.search.met else 1


def _side(name: str, trust: bool) -> Side:
    """A run folder if there is one of that name, else a way to run the model."""
    if Path(name).is_dir():
        run = Run.load(name, trust=trust)
        return Side(way_of_run(run), run)
    if "/" in name and not name.endswith(".json"):
        raise OptionError(f"there is no run folder {name}; record one with torchport record, or name a way to run it")
    return Side(way_of(name))


def _budget(text: str) -> float | None:
    if text == "floor":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise OptionError(f"--budget {text!r} is not valid; valid: floor, or a number that is not negative")
    return value


def _metric(name: str) -> Metric:
    if name in METRICS:
        return METRICS[name]
    if ":" not in name:
        raise OptionError(f"--metric {name!r} is not valid; valid: {', '.join(METRICS)}, or FILE.py:FUNCTION")
    return custom(name, load_function(name))


def _text(found: Fix, a: str, b: str, output: Path) -> Iterator[str]:
    name, about = found.metric
    yield f"{name}: {about}; {b} against {a}"
    yield f"  before: {found.before}"
    if found.null is not None:
        yield f"  floor, {a} on another number of threads: {found.null}"
    if found.exact is not None:
        yield f"  {'floor, ' * found.floor}{a} against all operations in float64: {found.exact}"
    yield f"  budget: {found.budget:.3g}{' (the floor)' * found.floor}"
    chosen, search = found.search.chosen, found.search
    if search.met and not chosen:
        yield f"The metric is within the budget already: nothing to do ({counted(found.kernels, 'kernel')})."
        return
    if not search.met:
        yield (
            f"No set of the {counted(found.kernels, 'kernel')} that was tried meets the budget "
            f"({counted(search.trials, 'set')}). The best, {counted(len(chosen), 'kernel')}: {found.after}"
        )
        if found.exact is not None and found.exact.value > found.budget:
            yield f"The budget is below {a}'s own error, which no change of {b} undoes: take float64 as the reference."
        elif found.before.value <= search.value:
            yield "That does not help: what differs may not be rounding. torchport diff says what does."
        yield "No file was written."
        return
    yield f"  after: {found.after}"
    yield f"{len(chosen)} of {counted(found.kernels, 'kernel')} in {_width(found)}, found by {search.trials} trials:"
    for candidate, remedy in zip(chosen, found.remedies, strict=True):
        yield from _kernel(candidate, _DONE[remedy] if len(set(found.remedies)) > 1 else "")
    if search.smallest:
        yield "No smaller set meets the budget."
    elif search.minimal:
        yield "None of them can be left out; whether another set is smaller is not known."
    else:
        yield "The trials ended: some of them may not be needed (--trials)."
    yield from _sure(found)
    if found.cost is not None:
        cost = found.cost
        yield (
            f"cost: {cost.before * 1e3:.3g} ms before, {cost.after * 1e3:.3g} ms after, {cost.times:.2f} times "
            f"(CPU time of a step on one thread, without emulation, medians of {cost.runs} alternating samples)"
        )
    yield f'{output}: torch.compile(model, backend="torchport", options={{"precision": "{output}"}})'


_DONE = {BLOCKS: "sums in blocks", "float64": "float64", "float32": "float32"}


def _width(found: Fix) -> str:
    """What is done about the kernels: ``float64``, ``their own type, sums in blocks``, or both."""
    kinds = sorted(set(found.remedies) - {BLOCKS})
    return " or ".join([*kinds, *["their own type, sums in blocks"] * (BLOCKS in found.remedies)])


def _kernel(candidate: Candidate, remedy: str) -> Iterator[str]:
    kernel = candidate.kernel
    place = next((node.place for node in kernel.nodes if node.place), "")
    known = candidate.share is not None and 0.005 <= candidate.share <= 2  # beyond, errors cancel
    share = f", {candidate.share:.0%} of the results' difference" if known else ""
    yield f"  {kernel.name}{share}" + (f" ({place})" if place else "") + (f": {remedy}" if remedy else "")


def _sure(found: Fix) -> Iterator[str]:
    """What the sample says, and what it cannot say."""
    sample = counted(found.after.units, found.after.unit)
    if found.p >= ALPHA:
        yield f"The sample is too small to show that anything changed: p = {found.p:.2g}, paired, from {sample}."
    if found.after.high is None:
        yield f"{sample} cannot have an interval: use more."
    elif found.after.high > found.budget:
        needed = ""
        if found.metric[0] == "flips" and found.after.value == 0 < found.budget < 1:
            needed = f" {size_without_hits(found.budget):,} without one would show the budget."
        yield f"From {sample}, up to {found.after.high:.3g} is possible after the fix.{needed}"

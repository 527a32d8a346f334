"""Two run folders compared: which kernel changes the numbers, by how much, and whether it may (docs/numerics.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from torchport.arithmetic.formats import format_of, spacing
from torchport.errors import RunError
from torchport.numerics.compare.align import Alignment, align_graphs, align_orders, same_elements
from torchport.numerics.compare.rank import Root, rank
from torchport.numerics.compare.sides import Judged, Side, judged, side_of
from torchport.numerics.compare.stats import summaries_differ
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.observed import Call, Observed, calls_of, relative
from torchport.numerics.verdicts.verdict import KernelVerdict, worst_level

__all__ = ["Coverage", "Diff", "Judge", "Row", "Unpaired", "compare"]

Judge = Callable[[Call, Launch], KernelVerdict]


@dataclass(frozen=True)
class Row:
    """One value of the model that both runs kept, or that one did.

    ``position``: of the pair of graph calls; ``node``, ``other``: its FX node in A and in B; ``how``: as in Alignment.
    ``difference``: L2 norm of B - A relative to A's, ``difference_ulp``: its largest element in units of A's last
    place, ``identical``: bit for bit; None where a value was not kept. ``samples``: what summaries tell instead.
    """

    position: int
    direction: str
    call: int
    node: str | None
    other: str | None
    how: str
    operation: str
    original: str | None
    module: str | None
    source: Mapping[str, Any] | None
    dtype: str
    shape: tuple[Any, ...]
    a: Side | None
    b: Side | None
    difference: float | None = None
    difference_ulp: float | None = None
    identical: bool | None = None
    samples: str | None = None

    @property
    def level(self) -> str:
        """The worse of both sides' levels."""
        return worst_level(side.level for side in (self.a, self.b) if side is not None)


@dataclass(frozen=True)
class Unpaired:
    """A value that one run (``run``: "A" or "B") kept and that has no partner in the other, and why."""

    run: str
    position: int
    node: str
    operation: str
    reason: str


@dataclass(frozen=True)
class Coverage:
    """Of one run: ``launches`` of kernels and operators, how many got a verdict by each of ``methods``, how many are of
    each of ``levels``, and why those ``unverified`` are, by reason."""

    launches: int
    verified: int
    methods: Mapping[str, int]
    levels: Mapping[str, int]
    unverified: Mapping[str, int]


@dataclass
class Diff:
    """What was found. ``rows`` in the order of the model; ``roots`` ranked, worst first."""

    a: Run
    b: Run
    rows: list[Row] = field(default_factory=list)
    unpaired: list[Unpaired] = field(default_factory=list)
    roots: list[Root] = field(default_factory=list)
    coverage: dict[str, Coverage] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    with_truth: bool = False

    @property
    def level(self) -> str:
        """The worst level of all kernels of both runs."""
        return worst_level(level for one in self.coverage.values() for level, count in one.levels.items() if count)


def compare(
    a: Run, b: Run, judge: Judge, *, truth: bool = False, advance: Callable[[int, int], None] | None = None
) -> Diff:
    """Compare run ``b`` with run ``a``. ``judge``: the verdict on one launch. ``truth``: also errors against the whole
    graph in float64, and how errors propagate. ``advance(done, all)``: called after each launch.

    Raises RunError where the folders hold no graph that both ran.
    """
    calls = {"A": list(calls_of(a)), "B": list(calls_of(b))}
    pairs = align_orders(*([(call.direction, call.dump) for call in one] for one in calls.values()))
    if not pairs:
        raise RunError(f"{a.path} and {b.path} have no graph in common: were both recorded from the same model?")
    diff = Diff(a, b, with_truth=truth)
    total = sum(len(call.launches) for one in calls.values() for call in one)
    done = 0
    verdicts: dict[str, dict[int, Judged]] = {}
    for name, run in (("A", a), ("B", b)):
        verdicts[name] = {}
        for call in calls[name]:
            for launch in call.launches:
                verdicts[name][launch.seq] = judged(call, launch, judge)
                done += 1
                if advance is not None:
                    advance(done, total)
        diff.coverage[name] = _coverage(verdicts[name].values())
        diff.notes += [f"{name}: {note}" for note in _run_notes(run)]
    for position, (first, second) in enumerate(pairs):
        one, other = calls["A"][first], calls["B"][second]
        alignment = align_graphs(one.dump, other.dump)
        if position == 0:  # what later graphs and calls are given may follow from what earlier ones computed
            diff.notes += _other_inputs(one, other, alignment)
        diff.rows += _in_order(_rows(position, one, other, alignment, verdicts, diff.unpaired, truth=truth))
        diff.roots += rank(position, one, other, alignment, verdicts, truth=truth)
        for name, call in (("A", one), ("B", other)):
            if truth and call.refused:
                node, reason = next(iter(call.refused.items()))
                diff.notes.append(f"{name}: {len(call.refused)} FX nodes have no float64 value, first {node}: {reason}")
    for name, matched in (("A", {p for p, _ in pairs}), ("B", {q for _, q in pairs})):
        missing = [call for index, call in enumerate(calls[name]) if index not in matched]
        diff.notes += [f"{name}: call {call.number} of a {call.direction} graph has no partner" for call in missing]
    diff.roots.sort(key=lambda root: root.key)
    return diff


def _coverage(found: Any) -> Coverage:
    verdicts = [one.verdict for one in found]
    levels = Counter(one.level for one in verdicts)
    methods = Counter(one.method or "float64" for one in verdicts if one.level != "UNVERIFIED")
    reasons = Counter((one.reasons or ("no reason given",))[0] for one in verdicts if one.level == "UNVERIFIED")
    return Coverage(
        len(verdicts), len(verdicts) - levels["UNVERIFIED"], dict(methods), dict(levels), dict(reasons.most_common())
    )


def _other_inputs(one: Call, other: Call, alignment: Alignment) -> Iterator[str]:
    """Says so where the model was not given the same: then ``B - A`` is no error."""
    pairs = [
        (node, arg.summary, other.input_args[partner].summary)
        for node, arg in one.input_args.items()
        if (partner := alignment.pairs.get(node)) in other.input_args and arg.stride == other.input_args[partner].stride
    ]
    differ = [node for node, a, b in pairs if a and b and a.get("hash") != b.get("hash")]
    if differ:
        names = ", ".join(differ[:3]) + (" ..." if len(differ) > 3 else "")
        yield (
            f"the runs were given other inputs or weights ({len(differ)} of {len(pairs)}: {names}): B - A is not an "
            "error; record both with the same seed"
        )


def _run_notes(run: Run) -> Iterator[str]:
    if not run.info.get("complete", False):
        yield "the recording did not end properly; what is there was compared"
    yield from run.info.get("notes", ())
    yield from (f"{name}: {reason}" for name, reason in run.damaged.items())


def _rows(
    position: int,
    one: Call,
    other: Call,
    alignment: Alignment,
    verdicts: Mapping[str, Mapping[int, Judged]],
    unpaired: list[Unpaired],
    *,
    truth: bool,
) -> Iterator[Row]:
    used: set[str] = set()
    for node, value in one.observed.items():
        partner, how, reason = _partner(node, one, other, alignment)
        twin = other.seen_through(partner) if partner is not None else None
        if twin is None or partner is None:
            unpaired.append(Unpaired("A", position, node, one.nodes[node]["target"], reason))
            yield _row(position, one, node, None, "", side_of(one, value, node, verdicts["A"], truth=truth), None)
            continue
        kept = twin.arg.node or partner
        used.add(kept)
        sides = (
            side_of(one, value, node, verdicts["A"], truth=truth),
            side_of(other, other.observed.get(kept, twin), kept, verdicts["B"], truth=truth),
        )
        yield _difference(_row(position, one, node, partner, how, *sides), value, twin)
    for node, value in other.observed.items():
        if node in used or one.seen_through(alignment.back.get(node, "")) is not None:
            continue
        _, _, reason = _partner(node, other, one, Alignment(alignment.back, {}))
        unpaired.append(Unpaired("B", position, node, other.nodes[node]["target"], reason.replace("B's", "A's")))
        side = side_of(other, value, node, verdicts["B"], truth=truth)
        yield replace(_row(position, other, node, None, "", None, side), node=None, other=node)


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows in the order of A's launches; what B alone has stands behind what B launched before."""
    found: list[Row] = []
    for row in rows:
        place = len(found)
        if row.a is None and row.b is not None:
            earlier = [index for index, one in enumerate(found) if one.b is not None and one.b.seq <= row.b.seq]
            place = earlier[-1] + 1 if earlier else 0
        found.insert(place, row)
    return found


def _partner(node: str, one: Call, other: Call, alignment: Alignment) -> tuple[str | None, str, str]:
    """The node of ``other`` whose value was kept and is that of ``node``, how it was found, and why there is none."""
    partner = alignment.pairs.get(node)
    if partner is None:
        return None, "", "decomposed differently: B's graph has no such operation"
    how = alignment.how.get(node, "same")
    shape = one.nodes[node]["value"]
    for candidate in same_elements(other.dump, partner):
        value = other.nodes[candidate]["value"] if candidate in other.observed else None
        if value is not None and value["dtype"] == shape["dtype"]:
            return candidate, how, ""
    if other.seen_through(partner) is not None:
        return partner, how, ""
    return None, how, f"fused away on B's side: {partner} is not kept in memory"


def _row(position: int, call: Call, node: str, other: str | None, how: str, a: Side | None, b: Side | None) -> Row:
    described = call.nodes[node]
    value, module = described["value"], described["module"]
    return Row(
        position, call.direction, call.number, node, other, how, described["target"], described["original"],
        module["path"] if module else None, described["source"], value["dtype"], tuple(value["shape"]), a, b,
    )  # fmt: skip


def _difference(row: Row, first: Observed, second: Observed) -> Row:
    if first.value is None or second.value is None:
        text = summaries_differ(first.arg, second.arg)
        return replace(row, samples=text)
    x, y = first.value, second.value.reshape(first.value.shape)
    if not x.dtype.is_floating_point:
        wrong = int(torch.count_nonzero(x != y))
        return replace(row, difference=wrong / max(1, x.numel()), identical=wrong == 0)
    wide, other = x.double(), y.double()
    same = (wide == other) | (torch.isnan(wide) & torch.isnan(other))
    error = torch.where(same, torch.zeros((), dtype=torch.float64), other - wide)
    ulp = torch.nan_to_num(error.abs() / spacing(torch.nan_to_num(wide), format_of(x.dtype)), nan=float("inf"))
    return replace(
        row,
        difference=relative(error, wide),
        difference_ulp=float(ulp.max()) if ulp.numel() else 0.0,
        identical=bool(same.all()),
    )

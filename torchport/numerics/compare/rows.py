"""Pairs the values of two graph calls, and measures how they differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from torchport.arithmetic.formats import format_of
from torchport.arithmetic.spacing import spacing
from torchport.numerics.compare.pairs import PairedCalls
from torchport.numerics.compare.sides import SideReport, side_report
from torchport.numerics.compare.stats import summaries_differ
from torchport.numerics.graphs.align import Alignment, same_elements
from torchport.numerics.verdicts.measure import relative_l2, same_bits
from torchport.numerics.verdicts.observed import Observed
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.verdict import worst_level

__all__ = ["Row", "Unpaired", "value_rows"]


@dataclass(frozen=True)
class Row:
    """One value of the model that both runs recorded, or one of them.

    position: of the pair of graph calls
    direction: of the graph, ``inference``, ``forward`` or ``backward``
    call: number of the graph call
    node: its FX node in A, None if only B recorded the value
    other: its FX node in B, None if only A recorded the value
    how: why the nodes are paired, as in ``Alignment``
    operation: of the node
    original: operation that it was decomposed from
    module: path of the module that it comes from
    source: source line that it comes from
    dtype: torch's name of the element type
    shape: of the value
    a: run A's side
    b: run B's side
    difference: L2 norm of B - A, relative to that of A, infinite if one has NaN or an infinity where the other has not;
        None if the elements were not stored
    difference_ulp: largest difference in units of A's last place
    identical: whether all bits are equal
    samples: what the summaries tell if the elements were not stored
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
    a: SideReport | None
    b: SideReport | None
    difference: float | None = None
    difference_ulp: float | None = None
    identical: bool | None = None
    samples: str | None = None

    def side(self, run: str) -> SideReport | None:
        """The side of run "A" or "B"."""
        return self.a if run == "A" else self.b

    @property
    def level(self) -> str:
        """The worse of both sides' levels."""
        return worst_level(side.level for side in (self.a, self.b) if side is not None)


@dataclass(frozen=True)
class Unpaired:
    """A value that only one run recorded.

    run: "A" or "B"
    position: of the pair of graph calls
    node: its FX node
    operation: of the node
    reason: why it has no partner
    """

    run: str
    position: int
    node: str
    operation: str
    reason: str


def value_rows(pair: PairedCalls, *, truth: bool) -> tuple[list[Row], list[Unpaired]]:
    """Rows for all values of two paired calls, in the order of the model, and the values without a partner."""
    a, b, alignment = pair.a, pair.b, pair.alignment
    rows, unpaired = [], []
    used: set[str] = set()

    def side(run: str, value: Observed, node: str) -> SideReport:
        return side_report(pair.verdicts[run][value.launch.seq], value, node, truth=truth)

    for node, value in a.observed.by_node.items():
        partner, how, reason = _partner(node, a, b, alignment)
        twin = b.observed.seen_through(partner) if partner is not None else None
        if twin is None or partner is None:
            unpaired.append(Unpaired("A", pair.position, node, a.nodes[node]["target"], reason))
            rows.append(_row(pair.position, a, node, None, "", side("A", value, node), None))
            continue
        recorded = twin.arg.node or partner
        used.add(recorded)
        sides = side("A", value, node), side("B", b.observed.by_node.get(recorded, twin), recorded)
        rows.append(_difference(_row(pair.position, a, node, partner, how, *sides), value, twin))
    for node, value in b.observed.by_node.items():
        if node in used or a.observed.seen_through(alignment.back.get(node, "")) is not None:
            continue
        _, _, reason = _partner(node, b, a, Alignment(alignment.back, {}))
        unpaired.append(Unpaired("B", pair.position, node, b.nodes[node]["target"], reason.replace("B's", "A's")))
        row = _row(pair.position, b, node, None, "", None, side("B", value, node))
        rows.append(replace(row, node=None, other=node))
    return _in_order(rows), unpaired


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows in the order of A's launches; a row of B alone follows what B launched before it."""
    ordered: list[Row] = []
    for row in rows:
        place = len(ordered)
        if row.a is None and row.b is not None:
            earlier = [index for index, other in enumerate(ordered) if other.b is not None and other.b.seq <= row.b.seq]
            place = earlier[-1] + 1 if earlier else 0
        ordered.insert(place, row)
    return ordered


def _partner(node: str, one: RecordedCall, other: RecordedCall, alignment: Alignment) -> tuple[str | None, str, str]:
    """The recorded node of ``other`` that holds the value of ``node`` and how it is paired, or why there is none."""
    partner = alignment.pairs.get(node)
    if partner is None:
        return None, "", "decomposed differently: B's graph has no such operation"
    how = alignment.how.get(node, "same")
    shape = one.nodes[node]["value"]
    for candidate in same_elements(other.dump, partner):
        value = other.nodes[candidate]["value"] if candidate in other.observed.by_node else None
        if value is not None and value["dtype"] == shape["dtype"]:
            return candidate, how, ""
    if other.observed.seen_through(partner) is not None:
        return partner, how, ""
    return None, how, f"fused away on B's side: {partner} is not kept in memory"


def _row(
    position: int,
    call: RecordedCall,
    node: str,
    other: str | None,
    how: str,
    a: SideReport | None,
    b: SideReport | None,
) -> Row:
    described = call.nodes[node]
    value, module = described["value"], described["module"]
    return Row(
        position, call.direction, call.number, node, other, how, described["target"], described["original"],
        module["path"] if module else None, described["source"], value["dtype"], tuple(value["shape"]), a, b,
    )  # fmt: skip


def _difference(row: Row, first: Observed, second: Observed) -> Row:
    """The row with the difference of its values."""
    if first.value is None or second.value is None:
        return replace(row, samples=summaries_differ(first.arg, second.arg))
    x, y = first.value, second.value.reshape(first.value.shape)
    if not x.dtype.is_floating_point:
        wrong = int(torch.count_nonzero(x != y))
        return replace(row, difference=wrong / max(1, x.numel()), identical=wrong == 0)
    wide, other = x.double(), y.double()
    same = (wide == other) | (torch.isnan(wide) & torch.isnan(other))
    error = torch.where(same, torch.zeros((), dtype=torch.float64), other - wide)
    other_class = bool((~same & ~(torch.isfinite(wide) & torch.isfinite(other))).any())
    ulp = torch.nan_to_num(error.abs() / spacing(torch.nan_to_num(wide), format_of(x.dtype)), nan=float("inf"))
    return replace(
        row,
        difference=math.inf if other_class else relative_l2(error, wide),
        difference_ulp=float(ulp.max()) if ulp.numel() else 0.0,
        identical=same_bits(x, y),
    )

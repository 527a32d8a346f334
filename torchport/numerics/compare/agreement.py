"""A against B: launches that compute the same FX nodes from the same bits, and differ by more than is legal.

One of them is wrong then, whatever each verdict alone says (docs/numerics/differences.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from torchport.numerics.compare.apart import Apart, apart, apart_opaque
from torchport.numerics.compare.launch_verdict import Judge, LaunchVerdict
from torchport.numerics.compare.pairs import PairedCalls
from torchport.numerics.graphs.align import same_elements
from torchport.numerics.graphs.dump import needed, references
from torchport.numerics.runs.reader import Arg, Launch
from torchport.numerics.verdicts.observed import Observed, tensor_of
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.references import Reference
from torchport.numerics.verdicts.ties import are_ties
from torchport.numerics.verdicts.unknown_reads import UnknownReads
from torchport.numerics.verdicts.verdict import TensorVerdict

__all__ = ["disagree"]

_BLOCK = 16
"""Powers of two from here on that are compiled into a kernel are sizes of blocks: they may differ."""


@dataclass(frozen=True)
class _Side:
    """One run's side of a value.

    node: the FX node.
    seen: its value.
    judged: the launch that left it, with its verdict.
    """

    call: RecordedCall
    node: str
    seen: Observed
    judged: LaunchVerdict

    @property
    def launch(self) -> Launch:
        return self.seen.launch

    @property
    def tensor(self) -> TensorVerdict | None:
        """The verdict on the value."""
        return next((one for one in self.judged.verdict.tensors if one.argument == self.seen.arg.name), None)

    @property
    def trust(self) -> int:
        """2 if the value agrees with its FX node in float64, 1 if it was not compared with it, 0 if it is bad."""
        tensor = self.tensor
        if self.judged.suspicious and (tensor is None or tensor.is_bad):
            return 0
        if tensor is None or tensor.unchecked or self.judged.verdict.level == "UNVERIFIED":
            return 1
        return 2


def disagree(pair: PairedCalls, judge: Judge) -> None:
    """Blame the launches of two paired calls that read the same bits and differ; their verdicts become FAIL."""
    for a, b in (*_by_node(pair), *_by_argument(pair)):
        if a.seen.value is None or b.seen.value is None or _equal(a.seen.value, b.seen.value):
            continue
        if _read_the_same(pair, a, b) and (found := _apart(a, b, judge)) is not None:
            least = min(a.trust, b.trust)
            for side, against in ((a, f"B launch {b.launch.seq}"), (b, f"A launch {a.launch.seq}")):
                if side.trust == least:
                    _blame(side, found, against)


def _by_node(pair: PairedCalls) -> Iterator[tuple[_Side, _Side]]:
    """Values of FX nodes that are paired."""
    for node, seen in pair.a.observed.by_node.items():
        if (other := _partner(pair, node)) is not None:
            yield _side(pair, "A", node, seen), _side(pair, "B", *other)


def _by_argument(pair: PairedCalls) -> Iterator[tuple[_Side, _Side]]:
    """What launches left of which no FX node is known, as kernels of the user's: argument by argument."""
    alignment, others = pair.alignment, defaultdict(list)
    for launch in pair.b.launches:
        others[frozenset(launch.nodes)].append(launch)
    for launch in pair.a.launches:
        nodes = [node for node in launch.nodes if alignment.how.get(node) == "same"]
        twins = others.get(frozenset(alignment.pairs[node] for node in nodes))
        if not nodes or len(nodes) < len(launch.nodes) or pair.a.observed.left_by(launch) or not twins:
            continue
        twin = twins.pop(0)
        written = {arg.name: arg for arg in twin.args if arg.role in ("out", "inout")}
        for arg in launch.args:
            if arg.role in ("out", "inout") and arg.name in written:
                other = written[arg.name]
                left = Observed(launch, arg, tensor_of(pair.a.run, arg))
                right = Observed(twin, other, tensor_of(pair.b.run, other))
                yield _side(pair, "A", arg.name, left), _side(pair, "B", arg.name, right)


def _side(pair: PairedCalls, run: str, node: str, seen: Observed) -> _Side:
    return _Side(pair.calls[run], node, seen, pair.verdicts[run][seen.launch.seq])


def _partner(pair: PairedCalls, node: str) -> tuple[str, Observed] | None:
    """The node of B that is the same operation on the same values, or the same elements, and what B recorded of it."""
    partner = pair.alignment.pairs.get(node)
    if partner is None or pair.alignment.how.get(node) != "same":
        return None
    recorded = pair.b.observed.by_node
    return next(((one, recorded[one]) for one in same_elements(pair.b.dump, partner) if one in recorded), None)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.numel() != b.numel():
        return True  # another type is no error
    x, y = (one.reshape(-1).contiguous() for one in (a, b))
    return torch.equal(x.view(torch.uint8), y.view(torch.uint8))


def _read_the_same(pair: PairedCalls, a: _Side, b: _Side) -> bool:
    """Whether two launches computed their nodes from the same bits by the same operations."""
    if a.node not in a.judged.reference or b.node not in b.judged.reference:
        return _same_arguments(a, b)
    inner, leaves = _computed_from(a)
    if any(pair.alignment.how.get(node) != "same" for node in inner):  # another pairing is a guess
        return False
    paired = {pair.alignment.pairs.get(node): value for node, value in leaves.items()}
    _, others = _computed_from(b)
    return paired.keys() == others.keys() and all(_same(paired[node], value) for node, value in others.items())


def _computed_from(side: _Side) -> tuple[list[str], dict[str, Any]]:
    """The FX nodes that a launch computes for its node, and the values that they start from, by node."""
    graph = side.call.graph
    given = side.call.reference.given(side.launch)
    if side.node in given:  # in another layout
        return [], {side.node: given[side.node]}
    known = {name: value for name, value in {**graph.inputs, **given}.items() if name != side.node}
    inner = needed(graph.dump, [side.node], known)
    used = {name for one in inner for name in references([graph.nodes[one]["args"], graph.nodes[one]["kwargs"]])}
    return inner, {name: known[name] for name in used - set(inner)}


def _same(a: Any, b: Any) -> bool:
    return _equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else bool(a == b)


def _same_arguments(a: _Side, b: _Side) -> bool:
    """Whether two launches of one function read the same storages and numbers: what no float64 value tells of."""
    others = {arg.name: arg for arg in b.launch.args}
    if a.judged.name != b.judged.name or others.keys() != {arg.name for arg in a.launch.args}:
        return False
    for arg in a.launch.args:
        other = others[arg.name]
        if arg.role == "scalar":
            if not (arg.value == other.value or (_is_block(arg.value) and _is_block(other.value))):
                return False
        elif arg.role in ("in", "inout"):
            if any(getattr(arg, field) != getattr(other, field) for field in ("dtype", "shape", "stride", "offset")):
                return False
            if arg.before is None or (
                arg.before != other.before and not (_only_written(a, arg) and _only_written(b, other))
            ):
                return False
    return True


def _only_written(side: _Side, arg: Arg) -> bool:
    """Whether what an argument held before the launch changes nothing, as in new memory."""
    unknown = UnknownReads(side.call, side.launch)
    return arg.role == "inout" and side.launch.kernel is not None and arg in unknown.args and not unknown.that_matter


def _is_block(value: Any) -> bool:
    return isinstance(value, int) and value >= _BLOCK and value & (value - 1) == 0


def _apart(a: _Side, b: _Side, judge: Judge) -> Apart | None:
    """How two values are further apart than is legal; None if they are not, or a target's arithmetic explains it."""
    assert a.seen.value is not None and b.seen.value is not None
    if any(side.tensor is not None and side.tensor.level == "EXPECTED" and side.tensor.attribution for side in (a, b)):
        return None
    values = a.seen.value, b.seen.value.reshape(a.seen.value.shape)
    found = [_reference(side, judge) for side in (a, b)]
    if found[0] is None or found[1] is None:
        return apart_opaque(*values, [arg for arg in a.launch.args if arg.role in ("in", "inout")])
    if not values[0].dtype.is_floating_point:
        ties = are_ties(a.call, a.launch, a.node, *values)
        values = torch.where(ties, values[1], values[0]), values[1]
    # Values that agree with one float64 value each may be off from it to both sides.
    return apart(*values, found[0], found[1], 2.0 if a.trust == b.trust == 2 else 1.0)


def _reference(side: _Side, judge: Judge) -> Reference | None:
    """What a value was judged by. It is computed again: those of whole models are too large to keep."""
    if side.tensor is None:
        return None
    verdict = judge(side.call, side.launch)
    return next((one.reference for one in verdict.tensors if one.argument == side.tensor.argument), None)


def _blame(side: _Side, found: Apart, against: str) -> None:
    """The verdict on a launch becomes FAIL, and that on its value."""
    verdict, arg = side.judged.verdict, side.seen.arg
    reason = f"it read the same bits as {against}, and is {found.text}"
    tensor = side.tensor
    if tensor is None:
        tensor = TensorVerdict(arg.name, side.node, str(arg.dtype), arg.shape, "FAIL", unchecked="it has no verdict")
    bad = replace(
        tensor, level="FAIL", cause=None, reasons=(*tensor.reasons, reason), score=max(tensor.score, found.score)
    )
    others = [one for one in verdict.tensors if one.argument != bad.argument]
    reasons = (*verdict.reasons, f"{side.node}: {reason}")
    tensors = sorted((*others, bad), key=lambda one: [arg.name for arg in side.launch.args].index(one.argument))
    side.judged.verdict = replace(verdict, level="FAIL", cause=None, tensors=tuple(tensors), reasons=reasons)

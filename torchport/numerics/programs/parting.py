"""Where two graphs part: the first nodes that compute something else, from operands that agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torchport.numerics.graphs.align import align_graphs
from torchport.numerics.graphs.dump import by_name, references
from torchport.numerics.programs.difference import Difference, unified
from torchport.numerics.programs.evaluation import Evaluated, Other, Pairing, evaluate_first, evaluate_other
from torchport.numerics.programs.node_text import module_of, node_text, place_text
from torchport.numerics.programs.program import Result
from torchport.numerics.programs.sketch import agree

__all__ = ["partings"]

LINES = 60
"""Most lines of one difference's diff."""

NAMED = 4
"""Most operations of one side that are named in the one line of a difference."""


def partings(pairing: Pairing, differing: Iterable[tuple[Result, Result]]) -> list[Difference]:
    """The causes of results that differ, in the order of the model.

    Behind a cause, B goes on with A's values wherever both graphs have the same operation at the same place, so that
    later causes show, too.
    """
    a, b = pairing.a, pairing.b
    pairs = list(differing)
    nodes = by_name(a.dump), by_name(b.dump)
    matched = {number for number in pairing.other.partners.values() if number is not None}
    apart = _behind(nodes[0], [one.node for one, _ in pairs], lambda name: _is_matched(pairing.first, matched, name))
    beyond = _behind(nodes[1], [other.node for _, other in pairs], lambda name: _partnered(pairing.other, name))
    aligned = align_graphs(a.dump, b.dump, pairing.externals)
    heal = {
        twin: name
        for name, twin in aligned.pairs.items()
        if aligned.how[name] != "replaced"
        and name in apart
        and twin in beyond
        and nodes[0][name]["op"] == "call_function"
    }
    if heal:
        first = evaluate_first(a, pairing.values[0], {*heal.values(), *pairing.first.kept})
        other = evaluate_other(b, pairing.values[1], first, heal)
    else:
        first, other = pairing.first, pairing.other
    return _causes(pairing, pairs, first, other, nodes)


def _is_matched(first: Evaluated, matched: Collection[int], name: str) -> bool:
    return first.numbers.get(name) in matched


def _partnered(other: Other, name: str) -> bool:
    return other.partners.get(name) is not None


def _behind(nodes: Mapping[str, Any], ends: Iterable[str], stops: Any) -> set[str]:
    """``ends`` and the nodes that they are computed from, up to those where ``stops`` says so."""
    found: set[str] = set()
    todo = list(ends)
    while todo:
        name = todo.pop()
        if name in found or name not in nodes:
            continue
        found.add(name)
        node = nodes[name]
        todo += [used for used in references([node["args"], node["kwargs"]]) if not stops(used)]
    return found


def _causes(
    pairing: Pairing,
    results: list[tuple[Result, Result]],
    first: Evaluated,
    other: Other,
    nodes: tuple[dict[str, Any], dict[str, Any]],
) -> list[Difference]:
    """The parts of both graphs, from values that agree to the first that do not; those that overlap are one."""
    matched = {number for number in other.partners.values() if number is not None}
    ends = [(name, twin) for twin, name in other.healed.items() if not _same(first, other, name, twin)]
    ends += [
        (one.node, beyond.node)
        for one, beyond in results
        if other.healed.get(beyond.node, "") != one.node and not _agrees(first, other, one.node, beyond.node)
    ]
    found: list[tuple[set[str], set[str], tuple[str, str]]] = []
    order = {name: place for place, name in enumerate(nodes[1])}
    for name, twin in sorted(set(ends), key=lambda pair: order.get(pair[1], 0)):
        theirs = _behind(nodes[0], [name], lambda used: _is_matched(first, matched, used))
        ours = _behind(nodes[1], [twin], lambda used: _partnered(other, used))
        same = next((part for part in found if part[0] & theirs or part[1] & ours), None)
        if same is None:
            found.append((theirs, ours, (name, twin)))
        else:
            same[0].update(theirs)
            same[1].update(ours)
    renamed = _renamed(pairing, other, first)
    return [_difference(pairing, renamed, nodes, *part) for part in found]


def _agrees(first: Evaluated, other: Other, name: str, twin: str) -> bool:
    """Whether a result is A's, with all causes before it taken away."""
    number = first.numbers.get(name)
    return number is not None and other.partners.get(twin) == number


def _same(first: Evaluated, other: Other, name: str, twin: str) -> bool:
    if name not in first.forms or twin not in other.forms:
        return True  # one of them has no float64 value: it cannot be told
    return agree(first.forms[name], other.forms[twin], first.table.tolerance)


def _renamed(pairing: Pairing, other: Other, first: Evaluated) -> dict[str, str]:
    """What A calls the values of B's nodes; B's own have an apostrophe."""
    names: dict[int, str] = {}
    for name, number in first.numbers.items():
        names.setdefault(number, name)
    found: dict[str, str] = {}
    for node, partner in other.partners.items():
        if partner is None:
            found[node] = f"{node}'"
        else:
            found[node] = node if first.numbers.get(node) == partner else names[partner]
    return found | dict(other.healed) | dict(pairing.externals)


def _difference(
    pairing: Pairing,
    renamed: Mapping[str, str],
    nodes: tuple[dict[str, Any], dict[str, Any]],
    theirs: set[str],
    ours: set[str],
    ends: tuple[str, str],
) -> Difference:
    programs = pairing.a, pairing.b
    scopes = [
        [all_[name] for name in all_ if name in names and all_[name]["op"] != "placeholder"]
        for all_, names in zip(nodes, (theirs, ours), strict=True)
    ]
    lines = [
        [node_text(program, node, names) for node in scope]
        for program, scope, names in zip(programs, scopes, ({}, renamed), strict=True)
    ]
    places = tuple(
        dict.fromkeys(
            f"{run}: {place}"
            for run, all_, scope in zip("AB", nodes, scopes, strict=True)
            if (place := next(filter(None, map(place_text, scope)), "") or _near(all_, scope))
        )
    )
    diff = unified(*lines)
    shown = diff[:LINES] + (f"... {len(diff) - LINES} more lines",) * (len(diff) > LINES)
    return Difference("graph", _title(nodes, scopes, ends), _summary(lines, diff), shown, places)


def _near(nodes: Mapping[str, Any], scope: list[Any]) -> str:
    """The user's line of the nearest node that ``scope`` reads: nodes that a pass of Inductor's made have none."""
    waiting, seen = list(scope), set()
    while waiting:
        node = waiting.pop(0)
        if place := place_text(node):
            return f"near {place}"
        for name in references([node["args"], node["kwargs"]]):
            if name in nodes and name not in seen:
                seen.add(name)
                waiting.append(nodes[name])
    return ""


def _title(nodes: tuple[dict[str, Any], dict[str, Any]], scopes: list[list[Any]], ends: tuple[str, str]) -> str:
    """The module of the part, or its line, or its last node."""
    for node in (*scopes[1], *scopes[0]):
        if path := module_of(node):
            return path
    for node in (*scopes[1], *scopes[0]):
        if source := node.get("source"):
            return f"{Path(source['file']).name}:{source['line']}"
    return str(nodes[1][ends[1]]["name"])


def _summary(lines: list[list[str]], diff: tuple[str, ...]) -> str:
    if len(lines[0]) == len(lines[1]) == 1:
        return f"A computes {lines[0][0]}, B {lines[1][0]}"
    changed = [[_operation(line) for line in diff if line[0] == sign] for sign in "-+"]
    both = [name for name in changed[0] if name in changed[1]]
    sides = []
    for run, operations in zip("AB", changed, strict=True):
        own = list(dict.fromkeys(name for name in operations if name not in both))
        if own:
            sides.append(f"only {run} has {', '.join(own[:NAMED])}{' ...' if len(own) > NAMED else ''}")
    if not sides and both:
        return f"{', '.join(dict.fromkeys(both[:NAMED]))} with other arguments"
    return "; ".join(sides) or "the same operations on other values"


def _operation(line: str) -> str:
    text = line[1:].partition(" = ")[2] or line[1:]
    return (
        "a graph"
        if text.startswith("graph {")
        else "a constant"
        if text.startswith("constant ")
        else text.partition("(")[0]
    )

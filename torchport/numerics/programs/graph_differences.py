"""Whether two programs compute the same, and where not."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from torchport.numerics.graphs.dump import by_name
from torchport.numerics.programs.difference import Difference
from torchport.numerics.programs.evaluation import Evaluated, Other, Pairing, evaluate_first, evaluate_other
from torchport.numerics.programs.frozen import tolerances
from torchport.numerics.programs.node_text import module_of, node_text, place_text
from torchport.numerics.programs.pairing import LARGEST, elements, values_of
from torchport.numerics.programs.parting import partings
from torchport.numerics.programs.program import Program, Result
from torchport.numerics.programs.sketch import agree, distance

__all__ = ["GraphComparison", "compare_graphs"]

_PRODUCTS = ("aten.mm", "aten.bmm", "aten.addmm", "aten.baddbmm", "aten.convolution", "aten._scaled_dot_product",
             "torchport.sdpa")  # fmt: skip
_ADOPTIONS = 4


class GraphComparison:
    """What was found.

    differences: of the graphs
    notes: what is no difference
    unknown: why it could not be told whether results are the same
    common: how many nodes of B compute what one of A does
    """

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.notes: list[str] = []
        self.unknown: list[str] = []
        self.common = 0


def compare_graphs(a: Program, b: Program, externals: Mapping[str, str], *, same_torch: bool) -> GraphComparison:
    """Compare two programs: by structure; where that differs, by float64 values on A's data.

    ``externals``: of A by those of B. ``same_torch``: whether both were decomposed by one version of PyTorch.
    """
    found = GraphComparison()
    if _structure(a, {name: name for name in a.externals}) == _structure(b, externals):
        found.common = len(b.dump["nodes"])
        return found
    if (text := _other_shapes(a, b, externals)) is not None:
        found.common = len(externals)
        found.notes.append(text)
        return found
    if (count := elements(a)) > LARGEST:
        found.unknown.append(
            f"the graphs have other nodes, and their {count} weights are too many to compare them in float64"
        )
        return found
    values = values_of(a, b, externals)
    first = evaluate_first(a, values[0])
    other = evaluate_other(b, values[1], first)
    for _ in range(_ADOPTIONS):
        if not other.adopted - set(first.kept):
            break
        first = evaluate_first(a, values[0], {*first.kept, *other.adopted})
        other = evaluate_other(b, values[1], first)
    found.common = sum(number is not None for node, number in other.partners.items() if node not in b.externals)
    pairing = Pairing(a, b, externals, values, first, other)
    pairs = list(_paired_results(a, b, found))
    allowed = tolerances(pairing, pairs)
    differing = []
    for one, beyond in pairs:
        missing = [
            f"{run}: {name} has no float64 value ({refused[name]})"
            for run, name, refused in (("A", one.node, first.refused), ("B", beyond.node, other.refused))
            if name in refused
        ]
        if missing:
            found.unknown.append("; ".join(missing))
        elif not agree(first.forms.get(one.node), other.forms.get(beyond.node), allowed):
            differing.append((one, beyond))
    if differing:
        causes = partings(pairing, differing)
        found.differences += causes or [_unlocated(first, other, *pair) for pair in differing]
    else:
        _other_types(pairing, found, same_torch)
    return found


def _other_shapes(a: Program, b: Program, externals: Mapping[str, str]) -> str | None:
    """Why graphs cannot be compared on one run's data; None if they can. Sizes are part of most graphs."""
    for beyond, twin in externals.items():
        one, other = a.externals[twin].arg, b.externals[beyond].arg
        if one is None or other is None or one.shape == other.shape:
            continue
        targets = [
            [node["target"] for node in program.dump["nodes"] if node["op"] == "call_function"] for program in (a, b)
        ]
        how = "both have the same operations" if targets[0] == targets[1] else "B's has other operations, as it may"
        return f"graphs for inputs of other sizes are not compared in float64; {how}"
    return None


def _unlocated(first: Evaluated, other: Other, one: Result, beyond: Result) -> Difference:
    size = distance(first.forms.get(one.node), other.forms.get(beyond.node))
    name = beyond.name or beyond.node
    return Difference("graph", name, f"{name} differs by {size:.2g} (relative) in float64, on A's data")


def _structure(program: Program, externals: Mapping[str, str]) -> list[str]:
    """The nodes as text that is equal for equal graphs, whatever nodes are called."""
    names: dict[str, Any] = {}
    lines = []

    def renamed(value: Any) -> Any:
        if isinstance(value, list):
            return [renamed(one) for one in value]
        if isinstance(value, dict):
            if isinstance(name := value.get("node"), str):
                return {"node": names.get(name)}
            return {key: "" if key == "device" else renamed(one) for key, one in value.items() if key != "stride"}
        return value

    for place, node in enumerate(program.dump["nodes"]):
        name = node["name"]
        names[name] = (
            f"external {externals.get(name)} {'' if name in externals else name}"
            if node["op"] == "placeholder"
            else place
        )
        what: list[Any] = [node["op"], names[name], renamed(node["value"])]
        if node["op"] == "get_attr":
            target = node["target"]
            module = program.dump["graphs"].get(target)
            modules = (
                None if module is None else [[one["target"], one["args"], one["kwargs"]] for one in module["nodes"]]
            )
            what += [program.dump["constants"].get(target), modules]
        elif node["op"] != "placeholder":
            what += [node["target"], renamed(node["args"]), renamed(node["kwargs"])]
        lines.append(json.dumps(what))
    return [*lines, *(json.dumps([names.get(one.node), one.backward]) for one in program.results)]


def _paired_results(a: Program, b: Program, found: GraphComparison) -> Iterator[tuple[Result, Result]]:
    """Results that belong together: by name, else in order. Those of one run alone are differences."""
    cut = a.graphs != b.graphs  # elsewhere: what one run hands to its next graph stays inside of the other's
    for backward in (False, True):
        first, second = (
            [one for one in program.results if one.backward == backward and not (cut and one.node in program.handed_on)]
            for program in (a, b)
        )
        if not first or not second:
            if first or second:
                run = "A" if first else "B"
                found.notes.append(
                    f"only {run} has {'backward' if backward else 'forward'} graphs to compare; they are left out"
                )
            continue
        names = {one.name: one for one in first if one.name and not one.name.startswith("result ")}
        named = [(names[other.name], other) for other in second if other.name in names]
        yield from named
        rest = [one for one in first if one not in [pair[0] for pair in named] and not one.state]
        others = [one for one in second if one not in [pair[1] for pair in named] and not one.state]
        yield from zip(rest, others, strict=False)
        if len(rest) != len(others):
            found.differences.append(
                Difference("results", "results", f"A returns {len(first)} values, B {len(second)}")
            )


def _other_types(pairing: Pairing, found: GraphComparison, same_torch: bool) -> None:
    """Operations that B does on the same values as A, and in another floating-point type."""
    a, b = pairing.a, pairing.b
    for beyond, twin in pairing.externals.items():
        one, other = a.externals[twin].arg, b.externals[beyond].arg
        if one is not None and other is not None and one.dtype != other.dtype:
            return  # the model was converted
    types: dict[tuple[int, str], set[str]] = defaultdict(set)
    for name, node in by_name(a.dump).items():
        if (number := pairing.first.numbers.get(name)) is not None and (dtype := _float(node)) is not None:
            types[number, node["target"]].add(dtype)
    changed: list[tuple[dict[str, Any], str, str]] = []
    products = []
    for name, node in by_name(b.dump).items():
        number, dtype = pairing.other.partners.get(name), _float(node)
        if number is None or dtype is None or node["op"] != "call_function" or node["target"].startswith(_SHAPES):
            continue
        others = types.get((number, node["target"]), set())
        if node["target"].startswith(_PRODUCTS) and others:
            products.append(dtype not in others)
        if others and dtype not in others:
            changed.append((node, min(others), dtype))
    if products and all(products):
        found.notes.append(f"products are computed in {changed[0][2]} in B, in {changed[0][1]} in A: a conversion")
        return
    for node, ours, theirs in changed:
        text = f"{node_text(b, node, {})} is {theirs} in B, {ours} in A"
        if same_torch:
            title = module_of(node) or node["name"]
            place = place_text(node)
            found.differences.append(Difference("precision", title, text, (), (f"B: {place}",) if place else ()))
        else:
            found.notes.append(f"{text}; the versions of PyTorch differ")


_SHAPES = ("prims.convert_element_type", "aten.view", "aten.permute", "aten.clone", "aten.expand", "aten.slice",
           "aten.unsqueeze", "aten.squeeze", "aten.select", "operator.getitem", "aten.reshape", "aten._unsafe_view",
           "aten.transpose", "aten.t.", "aten.alias", "aten.as_strided", "aten.empty")  # fmt: skip


def _float(node: Mapping[str, Any]) -> str | None:
    value = node["value"]
    dtype = value.get("dtype") if isinstance(value, Mapping) else None
    return dtype if isinstance(dtype, str) and "float" in dtype else None

"""What a run was recorded under: target, emulated chip, options, versions, blocks, and hashes of what it was given."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torchport.numerics.programs.difference import Condition
from torchport.numerics.programs.program import External, Program
from torchport.numerics.runs.reader import Run
from torchport.triton.source import arithmetic_of

__all__ = ["conditions", "emulated_by", "title_of"]

_NOTHING = "–"


def emulated_by(run: Run) -> str | None:
    """The chip whose arithmetic a run emulates; None if it emulates none."""
    names = {str(graph.get("asked", {}).get("emulate")) for graph in run.graphs.values()} - {"None"}
    if names:
        return ", ".join(sorted(names))
    if any(arithmetic_of(kernel.get("source", "")) for kernel in run.kernels.values()):
        return "another chip"  # a run from before recordings said which
    return None


def title_of(run: Run) -> str:
    """The targets that a run's graphs were compiled for, and what they emulate: ``cpu as h100``."""
    targets = ", ".join(dict.fromkeys(str(graph.get("target")) for graph in run.graphs.values())) or "unknown"
    if any(graph.get("eager") for graph in run.graphs.values()):
        targets += " eager"
    emulated = emulated_by(run)
    return targets if emulated is None else f"{targets} as {emulated}"


def conditions(a: Program, b: Program) -> list[Condition]:
    """What both runs were recorded under, including what is equal."""
    first, second = dict(_of(a)), dict(_of(b))
    names = [*first, *(name for name in second if name not in first)]
    found = [Condition(name, first.get(name, _NOTHING), second.get(name, _NOTHING)) for name in names]
    return [*found, _blocks(a.run, b.run)]


def _of(program: Program) -> Iterator[tuple[str, str]]:
    run = program.run
    yield "target", title_of(run)
    profiles = {str(graph.get("asked", {}).get("profile")) for graph in run.graphs.values()} - {"None"}
    if profiles:
        yield "profile", ", ".join(sorted(profiles))
    compilers = run.info.get("compilers") or {}
    if compilers:
        yield "compiler", ", ".join(f"{target} {version}" for target, version in sorted(compilers.items()))
    options = sorted({json.dumps(_options(graph), sort_keys=True) for graph in run.graphs.values()} - {"{}"})
    if options:
        yield "options", " ".join(options)
    flushing = run.info.get("flushing")
    if flushing is not None:
        yield "aten's bf16 products", "flush denormals" if flushing else "keep denormals"
    yield "quarantine", "; ".join(run.info.get("quarantine") or ()) or "nothing"
    flat = {"level": run.info.get("level"), **dict(run.info.get("environment") or {})}
    variables = flat.pop("variables", {}) or {}
    for name, value in {**flat, **variables}.items():
        yield name, value if isinstance(value, str) else json.dumps(value)
    for kind, title in (("weight", "weights"), ("input", "inputs")):
        chosen = {one.title: one for one in reversed(program.externals.values()) if _kind(one) == kind}
        if chosen:
            yield title, f"{len(chosen)}, hash {_hash(list(chosen.values()))}"


def _options(graph: Mapping[str, Any]) -> dict[str, Any]:
    own = ("emulate", "profile")
    defaults = {"fallback": "auto", "tape": "auto", "bf16_products": "auto"}
    return {name: value for name, value in graph.get("asked", {}).items()
            if name not in own and defaults.get(name) != value}  # fmt: skip


def _blocks(a: Run, b: Run) -> Condition:
    """How many kernels have which configuration: all of them if both runs have the same, else those that differ."""
    first, second = (
        Counter(kernel["config"] for kernel in run.kernels.values() if kernel.get("config")) for run in (a, b)
    )
    shown = (first, second) if first == second else (first - second, second - first)
    texts = ["; ".join(f"{count} x {config}" for config, count in sorted(one.items())) or _NOTHING for one in shown]
    return Condition("blocks", *texts)


def _kind(one: External) -> str:
    """``weight``, ``input``, or empty for numbers, and for what earlier graphs of the run may have computed."""
    if one.kind in ("parameter", "buffer", "constant"):
        return "weight"
    if one.arg is None or not one.arg.shape:
        return ""  # sizes and numbers are constants of other runs' graphs
    return "input" if one.graph == 0 and one.kind != "gradient" else ""


def _hash(externals: list[External]) -> str:
    """Of the contents, whatever their order."""
    contents = sorted({
        (one.title, (one.arg.summary or {}).get("hash") or one.arg.before or str(one.arg.value))
        for one in externals if one.arg is not None
    })  # fmt: skip
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]

"""An evaluation as one self-contained HTML page, from its JSON document and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from statistics import median
from typing import Any

from torchport.evaluation.svg import speed_against_accuracy
from torchport.numerics.verdicts.verdict import LEVELS
from torchport.precision.statistics import exact_interval
from torchport.report import counted

__all__ = ["page"]

_BREAK = re.compile(r"([._/\\:(])(?=\w)")
"""Where long names may be broken."""


def page(document: Mapping[str, Any]) -> str:
    """``document``, of ``torchport.evaluation.report``, as a complete HTML document."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup, escape

    surroundings = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    surroundings.filters["short"] = _short
    surroundings.filters["counted"] = counted
    surroundings.filters["wrap"] = lambda text: Markup(_BREAK.sub(r"\1<wbr>", str(escape(text))))
    surroundings.filters["svg"] = Markup  # pictures escape what they show
    template = surroundings.from_string((files("torchport.evaluation") / "page.html.j2").read_text())
    style = (files("torchport.numerics.compare") / "report.css").read_text()
    style += (files("torchport.evaluation") / "page.css").read_text()
    cells = {(one["model"], one["target"]): one for one in document["cells"]}
    names = [target["name"] for target in document["targets"]]
    anchors: dict[Any, str] = {}
    for number, model in enumerate(document["models"]):
        anchors[model["name"]] = f"m{number}"
        anchors |= {(model["name"], name): f"m{number}t{place}" for place, name in enumerate(names)}
    changed = document.get("baseline", {}).get("changes", ())
    return template.render(
        doc={**document, "levels": _Counts(document["levels"]), "history": document.get("history", [])},
        cells=cells,
        anchors=anchors,
        areas=_areas(document["models"]),
        worst={model["name"]: _worst(model["name"], document["cells"]) for model in document["models"]},
        worse={(one["model"], one["target"]) for one in changed if one["decided"]},
        lines=_lines,
        loop_index=lambda name: names.index(name) % 8,
        picture=speed_against_accuracy(document["cells"], names, anchors),
        targets=[_target(target, document["cells"], document["suite"]["reference"]) for target in document["targets"]],
        verified=_verified(document["cells"]),
        this={**document, "cells": len(document["cells"]), "levels": document["levels"]},
        style=Markup(style),
    )


class _Counts(dict[str, int]):
    """Counts by level, 0 for what did not occur."""

    def __missing__(self, name: str) -> int:
        return 0


def _areas(models: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for model in models:
        found.setdefault(model.get("area", "own"), []).append(model)
    return list(found.items())


def _worst(model: str, cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The bad levels that a model has."""
    found = {cell["level"] for cell in cells if cell["model"] == model}
    return [level for level in reversed(LEVELS) if level in found and level in ("FAIL", "SUSPECT")]


def _lines(cell: Mapping[str, Any]) -> list[str]:
    """What the table says below a cell's level."""
    if cell["status"] != "ok" or not cell.get("accuracy"):
        return []
    found = [f"error {_short(cell['accuracy']['truth']['mean'])}"]
    task = cell["accuracy"]["task"]
    if task.get("flips"):
        found[0] += f", {counted(task['flips'], 'flip')}"
    ratio = ((cell.get("time") or {}).get("over_eager") or {}).get("ratio")
    return [*found, *([f"{_short(ratio)}×"] if ratio else [])]


def _verified(cells: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    verdicts = [cell["verdict"] for cell in cells if cell.get("verdict")]
    return sum(one["verified"] for one in verdicts), sum(one["launches"] for one in verdicts)


def _target(target: Mapping[str, Any], every: Sequence[Mapping[str, Any]], reference: str) -> dict[str, Any]:
    """A row of the table of targets; nothing is compared with itself."""
    cells = [cell for cell in every if cell["target"] == target["name"] and cell["status"] == "ok"]
    coverage = [cell["coverage"] for cell in cells if cell.get("coverage")]
    fallbacks = Counter({"": sum(one["count"] for found in coverage for one in found["fallbacks"])})
    verified, launches = _verified(cells)
    accuracy = [cell["accuracy"] for cell in cells if cell.get("accuracy")]
    asked = [one["less_accurate"] for one in accuracy if "decided" in (one["less_accurate"]["question"] or {})]
    less = [one["ratio"] for one in asked if one["question"]["decided"] and one["ratio"] and one["ratio"] > 1]
    tasks = [one["task"] for one in accuracy if "flips" in one["task"] and target["name"] != reference]
    flips, positions = sum(one["flips"] for one in tasks), sum(one["positions"] for one in tasks)
    low, high = exact_interval(flips, positions)
    grade = (target["certificate"] or {}).get("grade", "")
    return {
        **target,
        "grade_class": {"PASS": "PASS", "FAIL": "FAIL", "": "UNVERIFIED"}.get(grade, "LIMITS"),
        "kernels": sum(one["kernels"] for one in coverage),
        "fallbacks": fallbacks[""],
        "verified": f"{verified} of {launches}" if launches else "–",
        "less": f"{len(less)} of {len(asked)}" + (f", {_short(median(less))}×" if less else "") if asked else "–",
        "flips": f"{flips} of {positions}" if positions else "–",
        "share": f"{100 * low:.2f} to {100 * high:.2f} %" if positions else "",
    }


def _short(value: float | None) -> str:
    """A number in a table."""
    return "–" if value is None else "0" if value == 0 else f"{value:.2g}" if abs(value) < 1000 else f"{value:,.0f}"

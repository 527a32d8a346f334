"""A report as one HTML file that loads nothing from the network."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from torchport.offline.compilation import Artifact
from torchport.offline.report import PortReport, TargetState, environment, size, used

__all__ = ["page"]

_BACKGROUND = re.compile(r"background(-color)?:[^;}]*;?")  # the page has its own


@dataclass(frozen=True)
class _Cell:
    """One kernel on one target.

    target: the target's text form.
    state: the CSS class of its colour.
    word: its state in a word.
    short: code size and resources.
    title: the text shown on hover.
    artifact: the compiled kernel, if the target is available.
    """

    target: str
    state: str
    word: str
    short: str
    title: str
    artifact: Artifact | None


def page(report: PortReport) -> str:
    """``report`` as a complete HTML document."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    surroundings = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    surroundings.filters["bytes"] = size
    template = surroundings.from_string((files("torchport.offline") / "report.html.j2").read_text())
    light, dark = HtmlFormatter(nowrap=True), HtmlFormatter(nowrap=True, style="monokai")
    kernels: list[dict[str, Any]] = []
    capture = report.capture
    for index, (kernel, label, launches) in enumerate(
        zip(capture.kernels, capture.labels(), capture.launches, strict=True)
    ):
        kernels.append(
            {
                "label": label,
                "launches": launches,
                "operations": list(dict.fromkeys(kernel.operations)),
                "cells": [_cell(state, report, index) for state in report.targets],
                # highlight() escapes the source
                "source": Markup(highlight(kernel.source, PythonLexer(), light)),
            }
        )
    counts = Counter(cell.state for kernel in kernels for cell in kernel["cells"] if cell.artifact is not None)
    day, night = (_BACKGROUND.sub("", one.get_style_defs("pre.source")) for one in (light, dark))
    return template.render(
        report=report,
        kernels=kernels,
        counts={
            **{name: counts[name] for name in ("ok", "limit", "bad")},
            "unavailable": sum(bool(state.unavailable) for state in report.targets),
        },
        library_calls=sum(library.calls for library in capture.libraries),
        environment=environment(),
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        highlighting=Markup(f"{day}\n@media (prefers-color-scheme: dark) {{\n{night}\n}}"),
    )


def _cell(state: TargetState, report: PortReport, index: int) -> _Cell:
    if state.unavailable:
        return _Cell(state.target, "none", "not available", "", state.unavailable, None)
    artifact = report.artifacts[state.target][index]
    if artifact.error or artifact.binary is None:
        return _Cell(state.target, "bad", "refused", "", artifact.error, artifact)
    short = " · ".join(used(artifact.binary))
    if artifact.limits:
        return _Cell(state.target, "limit", "limit", short, "; ".join(artifact.limits), artifact)
    return _Cell(state.target, "ok", "compiles", short, "; ".join(artifact.notes) or "within the limits", artifact)

"""The ratios of a result file as one picture: a panel a question, a bar a model, a line for each goal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_bench.report import METRICS, geometric_mean, ratio

_PANELS = {"cold": "first call, empty caches", "warm": "first call, filled caches", "steady": "steady state"}
_LESS, _MORE = "torchport's time over Inductor's", "Inductor's time over torchport's"


def draw(results: dict[str, Any], file: Path) -> None:
    """Write an SVG. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "torchport"
    rows = results["results"]
    names = [f"{row['model']} {row['dtype']}" for row in rows]
    metrics = {metric.key: metric for metric in METRICS}
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(11, 1.2 + 0.28 * len(rows)), sharey=True)
    for axis, (key, title) in zip(axes, _PANELS.items(), strict=True):
        metric = metrics[key]
        found = {name: ratio(metric, row) for name, row in zip(names, rows, strict=True)}
        known = {name: value for name, value in found.items() if value is not None}
        good = [value <= 1 if metric.lower else value >= 1 for value in known.values()]
        bars = axis.barh(list(known), list(known.values()), color=["#3a7ca5" if g else "#c8553d" for g in good])
        axis.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
        axis.axvline(1, color="black", linewidth=0.8)
        if metric.goal is not None:
            axis.axvline(metric.goal, color="black", linewidth=0.8, linestyle=":")
        mean = f", geometric mean {geometric_mean(list(known.values())):.2f}" if known else ""
        axis.set_title(f"{title}{mean}", fontsize=9)
        axis.set_xlabel(_LESS if metric.lower else _MORE, fontsize=8)
        axis.set_xlim(0, 1.15 * max(1, *known.values()) if known else 1)
        axis.tick_params(labelsize=8)
    axes[0].invert_yaxis()
    machine = results["machine"]
    figure.suptitle(
        f"{machine['processor']}, {results['threads']} thread(s), torch {machine['torch']}, {results['date']}; "
        "dotted: the goal",
        fontsize=8,
    )
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})

"""Steady state of many result files in one table: a line a model, a column a setting (type, instructions, threads)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_bench.report import MINIMUM_SAMPLES, geometric_mean, markdown_table

OURS, THEIRS = "torchport", "inductor"
_TYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True, order=True)
class Setting:
    """What a column was measured with. Sorted: inference first, then fp32, wide instructions, few threads."""

    train: bool
    narrow: int
    instructions: str
    threads: int

    @property
    def title(self) -> str:
        """For the column's head, as "bf16, AVX512, 2 threads"."""
        dtype = ("fp32", "bf16", "fp16")[self.narrow]
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return ", ".join(part for part in ("training" if self.train else "", dtype, self.instructions, threads) if part)


@dataclass(frozen=True)
class Ratio:
    """Inductor's time over torchport's in the median round, half the distance of the rounds' quartiles, torchport's
    seconds."""

    value: float
    spread: float
    seconds: float

    @property
    def text(self) -> str:
        """For a cell, as "1.15 ±0.01 (40.9)", the last one in milliseconds."""
        return f"{self.value:.2f} ±{self.spread:.2f} ({self.seconds * 1e3:.3g})"


Measured = dict[Setting, dict[str, Ratio]]


def measured(files: Sequence[dict[str, Any]]) -> Measured:
    """Every steady state in `files` (contents of result files of tools/bench_models.py), by setting and model.

    A model that is measured twice in the same setting has its later file's figure. Rows with fewer than
    `MINIMUM_SAMPLES` rounds, or without one of the two backends, are left out. Raises ValueError where the files are of
    several processors or versions of torch: such figures don't belong in one table.
    """
    machines = {f"{file['machine']['processor']} with torch {file['machine']['torch']}" for file in files}
    if len(machines) > 1:
        raise ValueError(f"the files are of {' and '.join(sorted(machines))}: give those of one machine and version")
    found: Measured = {}
    for file in files:
        instructions = file["machine"].get("instructions", "")
        for row in file["results"]:
            ours, theirs = (row["backends"].get(name, {}).get("steady_s", []) for name in (OURS, THEIRS))
            if min(len(ours), len(theirs)) < MINIMUM_SAMPLES:
                continue
            ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
            low, _, high = statistics.quantiles(ratios, n=4)
            setting = Setting(row["train"], list(_TYPES).index(row["dtype"]), instructions, file["threads"])
            of_models = found.setdefault(setting, {})
            of_models[row["model"]] = Ratio(statistics.median(ratios), (high - low) / 2, statistics.median(ours))
    return dict(sorted(found.items()))


def markdown(files: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown: what was measured, a line a model, geometric means and the slowest at the end."""
    found = measured(files)
    models = list(dict.fromkeys(model for of_models in found.values() for model in of_models))
    lines = [[m, *(found[s][m].text if m in found[s] else "" for s in found)] for m in models]
    means = [(geometric_mean([r.value for r in ratios.values()]), len(ratios)) for ratios in found.values()]
    slowest = [min(ratios, key=lambda model: ratios[model].value) for ratios in found.values()]
    lines.append(["geometric mean (models)", *(f"**{mean:.2f}** ({count})" for mean, count in means)])
    lines.append(["slowest", *(f"{found[s][m].value:.2f} ({m})" for s, m in zip(found, slowest, strict=True))])
    machine = files[0]["machine"]
    clocks = sorted({f"{file['clock']} time with {file['threads']} thread(s)" for file in files})
    dates = sorted({file["date"] for file in files})
    head = (
        f"{machine['processor']}, torch {machine['torch']}, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; "
        f"{', '.join(clocks)}. Inductor's time over torchport's: the median of rounds in which they take turns, ± half "
        "the distance of the quartiles, in brackets torchport's milliseconds."
    )
    return f"{head}\n\n{markdown_table(['model', *(s.title for s in found)], lines)}\n"


def draw(files: Sequence[dict[str, Any]], file: Path) -> None:
    """Write an SVG: a row a model, a dot a setting, the goal dotted. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "torchport"
    found = measured(files)
    models = list(dict.fromkeys(model for of_models in found.values() for model in of_models))
    figure, axis = plt.subplots(figsize=(9, 1.4 + 0.26 * len(models)))
    for setting, ratios in found.items():
        mean = geometric_mean([ratio.value for ratio in ratios.values()])
        places = [models.index(model) for model in ratios]
        axis.errorbar(
            [ratio.value for ratio in ratios.values()],
            places,
            xerr=[ratio.spread for ratio in ratios.values()],
            fmt="o" if setting.threads == 1 else "s",
            markersize=5,
            alpha=0.8,
            label=f"{setting.title}: mean {mean:.2f}",
        )
    axis.set_yticks(range(len(models)), models, fontsize=8)
    axis.invert_yaxis()
    axis.axvline(1, color="black", linewidth=0.8)
    axis.axvline(1.15, color="black", linewidth=0.8, linestyle=":")
    axis.grid(axis="y", linewidth=0.3)
    axis.set_xlabel("Inductor's time over torchport's (dotted: the goal of the mean)", fontsize=8)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})

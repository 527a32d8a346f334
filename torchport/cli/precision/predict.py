"""``torchport predict``: predicts a model's errors on other chips by emulating their arithmetic."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchport.cli.model import load_model

if TYPE_CHECKING:
    from torchport.precision.predict import ChipResult

__all__ = ["predict"]


def predict(model: str, chips: str, *, as_json: bool, folder: Path | None) -> None:
    """Run ``model`` (``FILE.py:FUNCTION``) in the arithmetic of each of ``chips``; print its errors."""
    from rich.console import Console
    from rich.progress import Progress

    from torchport.precision.predict import predict as run

    module, inputs = load_model(model)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        names = [name.strip() for name in chips.split(",") if name.strip()]
        results = run(module, inputs, names, folder, lambda name: progress.update(task, description=name))
    if as_json:
        print(json.dumps({"model": model, "chips": [result.as_json() for result in results]}, indent=1))
        return
    _show(model, results)
    if folder is not None:
        print(
            f"recorded runs are in {folder}; compare two: torchport diff {folder / 'cpu'} {folder / results[-1].name}"
        )


def _show(model: str, results: Sequence[ChipResult]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title=f"{escape(model)}: errors against float64, the worst output of each chip")
    for title in ("chip", "output", "relative L2", "p99 / rms", "max / rms", "from the CPU", "NaN", "Inf"):
        table.add_column(title, justify="left" if title == "chip" else "right")
    for chip in results:
        worst = chip.worst
        table.add_row(
            chip.name, f"{worst.output} {worst.dtype}",
            f"{worst.against_truth:.2e}", f"{worst.p99:.2e}", f"{worst.worst:.2e}", f"{worst.against_cpu:.2e}",
            str(worst.nan), str(worst.inf),
        )  # fmt: skip
    console.print(table)
    for chip in results:
        for line in chip.not_emulated:
            console.print(f"[yellow]{chip.name}[/yellow]: {escape(line)}")

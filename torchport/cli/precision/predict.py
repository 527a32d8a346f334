"""``torchport predict``: predicts a model's errors on other chips by emulating their arithmetic."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchport.cli.console import standard_output
from torchport.cli.model import load_model

if TYPE_CHECKING:
    from torchport.precision.bits import ChipBits
    from torchport.precision.predict import ChipResult

__all__ = ["predict", "predict_bits"]

_SHOWN = 8  # elements of an output


def predict(model: str, chips: str, *, as_json: bool, folder: Path | None) -> None:
    """Run ``model`` (``FILE.py:FUNCTION``) in the arithmetic of each of ``chips``; print its errors."""
    from torchport.cli.working import working
    from torchport.precision.predict import predict as run

    module, inputs = load_model(model)
    names, begun = _names(chips), itertools.count()
    with working("") as work:
        results = run(module, inputs, names, folder, lambda name: work.at(next(begun), len(names) + 2, name))
    if as_json:
        print(json.dumps({"model": model, "chips": [result.as_json() for result in results]}, indent=1))
        return
    _show(model, results)
    if folder is not None:
        print(
            f"recorded runs are in {folder}; compare two: torchport diff {folder / 'cpu'} {folder / results[-1].name}"
        )


def predict_bits(model: str, chips: str, *, as_json: bool, folder: Path | None) -> None:
    """Print the bits of what ``model`` gives on each of ``chips``, and what they rest on, or why they are unknown."""
    from torchport.precision.bits import predict_bits as run

    module, inputs = load_model(model)
    results = run(module, inputs, _names(chips), folder)
    if as_json:
        print(json.dumps({"model": model, "chips": [result.as_json() for result in results]}, indent=1))
        return
    for result in results:
        _show_bits(model, result)


def _show_bits(model: str, result: ChipBits) -> None:
    print(f"{model} as {result.name}: {result.chip}")
    for one in result.outputs:
        digest = hashlib.sha256("".join(one.bits).encode()).hexdigest()[:16]
        more = " ..." if len(one.bits) > _SHOWN else ""
        print(f"output {one.output}, {one.dtype} {list(one.shape)}: bits {'known' if one.known else 'unknown'}")
        print(f"    {' '.join(one.bits[:_SHOWN])}{more} (sha256 of all: {digest})")
        for line in one.assumed:
            print(f"    assumed: {line}")
        for line in one.unknown:
            print(f"    unknown: {line}")


def _names(chips: str) -> list[str]:
    return [name.strip() for name in chips.split(",") if name.strip()]


def _show(model: str, results: Sequence[ChipResult]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = standard_output()
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

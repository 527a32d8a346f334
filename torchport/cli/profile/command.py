"""The command itself: measures, prints tables, writes the picture."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchport.cli.console import standard_error, standard_output
from torchport.cli.profile.measured import rows_of
from torchport.cli.profile.processes import BACKENDS, profiles
from torchport.errors import OptionError
from torchport.files import write_whole
from torchport.phases import Phase

if TYPE_CHECKING:
    from rich.console import Console

    from torchport.cli.profile.measured import Profile

__all__ = ["profile"]

_SCHEMA = 1
_LISTED = 10


def profile(model: str, others: str, output: Path | None, *, warm: bool, as_json: bool) -> None:
    """Profile ``model`` (``FILE.py:FUNCTION``) with torchport and with ``others``, separated by commas.

    output: where to write a picture, ``.svg`` or ``.html``. Raises as ``profiles`` does, and OSError.
    """
    backends = dict.fromkeys(["torchport", *filter(None, (name.strip() for name in others.split(",")))])
    if unknown := [name for name in backends if name not in BACKENDS]:
        raise OptionError(f"--backend {unknown[0]!r} is not known; valid: {', '.join(BACKENDS)}")
    if output is not None and output.suffix not in (".svg", ".html"):
        raise OptionError(f"-o {output}: the picture is an .svg or an .html file")
    if output is not None and not output.parent.is_dir():
        raise OptionError(f"-o {output}: there is no folder {output.parent}")
    with standard_error().status("") as status:
        measured = profiles(model, list(backends), warm=warm, progress=lambda text: status.update(f"profiling {text}"))
    if output is not None:
        from torchport.cli.profile.picture import page, timeline

        draw = timeline if output.suffix == ".svg" else page
        write_whole(output, draw(model, measured).encode())
    if as_json:
        print(json.dumps(_as_json(model, measured), indent=1))
    else:
        _show(standard_output(), model, measured)


def _as_json(model: str, measured: Sequence[Profile]) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "model": model,
        "torch": version("torch"),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "runs": [one.as_json() for one in measured],
    }


def _show(console: Console, model: str, measured: Sequence[Profile]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    start = measured[0].start
    table = Table(title=f"first call of {escape(model)}, {start} start, seconds", box=SIMPLE_HEAD)
    table.add_column("phase", no_wrap=True)
    for one in measured:
        table.add_column(one.backend, justify="right")
        table.add_column("CPU", justify="right")
    for phase, values in rows_of(measured):
        table.add_row(phase.value, *map(_seconds, values))
    table.add_section()
    sums = [_seconds(value) for one in measured for value in (one.measured.wall_s, one.measured.cpu_s)]
    table.add_row("first call", *sums, style="bold")
    console.print(table)
    for one in measured:
        console.print(f"{one.backend}: {_beside(one)}", highlight=False)
    _show_longest(console, measured[0])


def _beside(one: Profile) -> str:
    """What is no part of the first call's wall time, in words."""
    figures = one.measured
    parts = [f"torch imported in {figures.import_s:.2f} s and the model made in {figures.make_s:.2f} s before"]
    if figures.helpers_cpu_s is not None:
        told = ", ".join(f"{phase.value} {cpu:.2f}" for phase, cpu in one.helpers().items())
        parts.append(
            f"other processes took {figures.helpers_cpu_s:.2f} CPU seconds meanwhile" + (f" ({told})" if told else "")
        )
    again = ": it compiles again" if figures.second_compiles else ""
    parts.append(f"a second call takes {figures.second_s * 1e3:.1f} ms{again}")
    return "; ".join(parts)


def _show_longest(console: Console, one: Profile) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    for phase in (Phase.PASSES, Phase.IMPORTS):
        rows = one.longest(phase, _LISTED)
        if not rows:
            continue
        table = Table(f"longest {phase.value}, ms", box=SIMPLE_HEAD)
        for title in ("main process", "others"):
            table.add_column(title, justify="right")
        for name, main, others in rows:
            table.add_row(escape(name), f"{main * 1e3:.1f}", f"{others * 1e3:.1f}")
        console.print(table)


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "-"

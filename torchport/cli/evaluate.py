"""``torchport eval``: runs a suite of models on several targets, and puts one report together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from torchport.cli.console import standard_output
from torchport.cli.levels import COLOURS
from torchport.cli.signatures import signer_of
from torchport.cli.working import working
from torchport.config import parse_size
from torchport.errors import OptionError
from torchport.evaluation import baseline as compared
from torchport.evaluation.cell import Job
from torchport.evaluation.page import page
from torchport.evaluation.report import FAILING, certificates, document, read, text_of
from torchport.evaluation.report import verify as check
from torchport.evaluation.running import Limits, measure
from torchport.evaluation.state import Cell, State, cells_of
from torchport.evaluation.suite import Suite, load_suite
from torchport.evaluation.targets import columns, parse
from torchport.files import write_whole
from torchport.signing import content_hash

__all__ = ["CERTIFICATES", "evaluate", "verify"]

CERTIFICATES = Path("docs/certificates")
_STOPPED = 130  # what shells say of a command that Ctrl-C ended
_MISTAKES = 2
_SHORT = {"EXACT": "exact", "EXPECTED": "ok", "UNVERIFIED": "?"}


def evaluate(
    suite: str,
    targets: str | None,
    output: Path,
    *,
    models: str | None = None,
    workers: int = 1,
    clock: str = "wall",
    threads: int = 0,
    timeout: float | None = None,
    memory: str | None = None,
    again: str = "",
    baseline: Path | None = None,
    certificates_in: Path | None = None,
    notes: Path | None = None,
    fail_on: str = "fail",
    keep_runs: bool = False,
    key: Path | None = None,
    only_report: bool = False,
) -> int:
    """Measure what is missing of a suite, and write ``eval.json`` and ``eval.html`` into the folder ``output``.

    suite: a TOML file, or ``default``. targets, timeout, memory: instead of the suite's.
    again: models or targets, comma separated, whose cells are measured anew; ``bad`` for those at a bad level, ``all``.
    only_report: measure nothing.
    notes: a JSON file {"model on target": explanation} that the report shows beside cells.
    key: the file of the private key that signs the report.

    Returns 0; 1 if a cell's level is ``fail_on`` or worse, or something is worse than in ``baseline``; 2 if else all is
    well, and the suite says of a model what is not so, as an output that it has not; 130 if Ctrl-C
    ended it. Raises OptionError for what is not valid, before anything is measured.
    """
    chosen = _chosen(load_suite(suite), targets, models, timeout, memory)
    if fail_on not in FAILING:
        raise OptionError(f"--fail-on {fail_on!r} is not valid; valid: {', '.join(FAILING)}")
    if clock not in ("wall", "cpu"):
        raise OptionError(f"--clock {clock!r} is not valid; valid: wall, cpu")
    places = columns(chosen.targets)
    parse(chosen.reference)
    signer = signer_of(key)
    old = None if baseline is None else read(baseline)
    explained = _explanations(notes)
    grades = certificates(certificates_in or CERTIFICATES)
    if certificates_in is not None and not certificates_in.is_dir():
        raise OptionError(f"--certificates: there is no folder {certificates_in}")
    output.mkdir(parents=True, exist_ok=True)
    settings = {"clock": clock, "threads": threads}
    cells, state = cells_of(chosen, places, settings), State(output / "cells")
    anew = _named(again, cells)
    if old is not None and not {(one["model"], one["target"]) for one in old["cells"]} & {_place(one) for one in cells}:
        raise OptionError(
            f"--baseline {baseline} has no cell of this evaluation: it is of the suite {old['suite'].get('name')}"
        )
    stopped = False
    if only_report:
        results = [(cell, result) for cell in cells if (result := state.read(cell)) is not None]
    else:
        runs = output / "runs" if keep_runs else None
        results, stopped = _measured(cells, state, chosen, settings, anew, workers, runs)
    shown = [(cell, result | explained.get(cell.name, {})) for cell, result in results]
    content = document(
        chosen, places, shown, grades, {**settings, "workers": workers, "notes": [], "about": _about(workers)}
    )
    if old is not None:
        content = _with_baseline(content, old)
    if signer is not None:
        content = signer.signed(content)
    write_whole(output / "eval.json", text_of(content).encode())
    write_whole(output / "eval.html", page(content).encode())
    status = _show(content, output, FAILING[fail_on])
    return _STOPPED if stopped else status


def verify(path: Path, keys: Path | None) -> int:
    """Check that a report is unchanged, and signed with one of ``keys``. Raises ArtifactError if it is not."""
    content, origin = check(path, keys)
    print(f"{path} is unchanged: suite {content['suite']['name']}, {len(content['cells'])} cells, {content['issued']}")
    print(origin)
    return 0


def _chosen(suite: Suite, targets: str | None, models: str | None, timeout: float | None, memory: str | None) -> Suite:
    if targets is not None:
        suite = replace(suite, targets=tuple(one.strip() for one in targets.split(",") if one.strip()))
    if models is not None:
        suite = suite.only([one.strip() for one in models.split(",") if one.strip()])
    if timeout is not None:
        suite = replace(suite, timeout=timeout)
    if memory is not None:
        try:
            suite = replace(suite, memory=parse_size(memory))
        except ValueError as error:
            raise OptionError(f"--memory {memory!r} is not valid; expected {error}") from error
    if not suite.models:
        missing = "; ".join(f"{name}: {why}" for name, why in suite.left_out.items())
        raise OptionError(
            "--models names no model"
            if models is not None
            else f"no model of the suite {suite.name} runs here: {missing}"
        )
    return suite


def _explanations(path: Path | None) -> dict[str, dict[str, str]]:
    from torchport.files import read_json

    return (
        {}
        if path is None
        else {name: {"note": text} for name, text in read_json(path, dict[str, str], OptionError).items()}
    )


def _about(workers: int) -> str:
    return f"{workers} cells were measured at a time, so their times are of a busy machine." if workers > 1 else ""


def _measured(
    cells: Sequence[Cell],
    state: State,
    suite: Suite,
    settings: dict[str, Any],
    chosen: set[str],
    workers: int,
    runs: Path | None,
) -> tuple[list[tuple[Cell, dict[str, Any]]], bool]:
    """Every cell with its result, and whether Ctrl-C ended it. Those that ``state`` knows are not measured.

    chosen: names of what is measured again.
    """
    stopped = False
    known = {cell: result for cell in cells if (result := state.read(cell)) is not None}
    known = {cell: result for cell, result in known.items() if not _anew(cell, result, chosen)}
    waiting = [cell for cell in cells if cell not in known]
    limits = Limits(suite.timeout, suite.memory)

    def job(cell: Cell) -> Job:
        kept = "" if runs is None else str(runs / f"{cell.model.label} {cell.column.name}".replace("/", "_"))
        return Job(
            vars(cell.model),
            cell.column.name,
            suite.reference,
            suite.rounds,
            settings["clock"],
            settings["threads"],
            kept,
        )

    with working("measuring", len(waiting)) as work:

        def done(cell: Cell, result: dict[str, Any]) -> None:
            known[cell] = result
            if result["status"] not in ("ok", "absent"):
                work.say(f"{cell.name}: {result['status']}: {result['detail']}")
            work.step()

        try:
            measure(waiting, state, job, limits, workers, lambda cell: work.name(cell.name), done)
        except KeyboardInterrupt:
            stopped = True
            work.say("stopped: the same command goes on from here")
    return [(cell, known[cell]) for cell in cells if cell in known], stopped


def _named(again: str, cells: Sequence[Cell]) -> set[str]:
    """The names in ``--again``. Raises OptionError for one that no cell has."""
    chosen = {one.strip() for one in again.split(",") if one.strip()}
    known = {"all", "bad"}.union(*(_names(cell) for cell in cells))
    if unknown := sorted(chosen - known):
        raise OptionError(f"--again {unknown[0]!r} is no model or target of this evaluation; valid, too: bad, all")
    return chosen


def _place(cell: Cell) -> tuple[str, str]:
    return cell.model.label, cell.column.name


def _names(cell: Cell) -> set[str]:
    return {cell.model.name, cell.model.label, cell.column.name, cell.name}


def _anew(cell: Cell, result: dict[str, Any], chosen: set[str]) -> bool:
    bad = result["status"] != "ok" or result.get("verdict", {}).get("level") in ("FAIL", "SUSPECT")
    return result["status"] == "mistake" or bool(chosen & {*_names(cell), "all", *(("bad",) if bad else ())})


def _with_baseline(content: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    found = compared.changes(old, content)
    changed = [{**asdict(one), "decided": one.decided} for one in found]
    about = {
        **{name: value for name, value in content.items() if name != "sha256"},
        "history": compared.history(old),
        "baseline": {"issued": old["issued"], "sha256": old["sha256"], "changes": changed},
    }
    return {**about, "sha256": content_hash(about)}


def _show(content: dict[str, Any], output: Path, failing: Sequence[str]) -> int:
    console = standard_output()
    cells = {(one["model"], one["target"]): one for one in content["cells"]}
    table = Table(
        "model",
        caption="ok: what legal arithmetic gives",
        caption_justify="left",
        title=escape(f"suite {content['suite']['name']}"),
        title_justify="left",
    )
    for target in content["targets"]:
        table.add_column(escape(target["name"]), overflow="fold")
    for model in content["models"]:
        row = [cells.get((model["name"], target["name"])) for target in content["targets"]]
        table.add_row(
            escape(model["name"]),
            *(f"[{COLOURS[one['level']]}]{_SHORT.get(one['word'], one['word'])}[/]" if one else "–" for one in row),
        )
    console.print(table)
    for name, why in content["suite"]["left_out"].items():
        console.print(f"left out: {name}: {why}", style="yellow", highlight=False, markup=False)
    changes = content.get("baseline", {}).get("changes", [])
    for one in changes:
        style = "red" if one["decided"] else "yellow"
        p = "" if one["p"] is None else f", p = {one['corrected']:.2g}"
        word = "regression" if one["decided"] else "not decided"
        console.print(
            f"{word}: {one['model']} on {one['target']}, {one['what']}: {one['before']} -> {one['after']}{p}",
            style=style, highlight=False, markup=False,
        )  # fmt: skip
    console.print(f"{output / 'eval.html'} and eval.json", highlight=False, markup=False)
    bad = any(one["level"] in failing for one in content["cells"]) or any(one["decided"] for one in changes)
    if bad:
        return 1
    return _MISTAKES if any(one["status"] == "mistake" for one in content["cells"]) else 0

"""``torchport diff``: which kernel changes the numbers between two recorded runs, and whether it may."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchport.arithmetic.profile import Profile
from torchport.cli.console import standard_output
from torchport.cli.levels import COLOURS
from torchport.cli.precision.program_lines import program_lines
from torchport.cli.working import working
from torchport.config import config
from torchport.errors import OptionError, RunError
from torchport.files import write_whole
from torchport.numerics.algebra.nodes import with_algebra
from torchport.numerics.compare.as_json import as_json
from torchport.numerics.compare.diff import NOT_COMPARABLE, Diff, compare
from torchport.numerics.compare.junit import junit
from torchport.numerics.compare.kept_verdicts import KeptVerdicts
from torchport.numerics.compare.report_html import page
from torchport.numerics.compare.rows import Row
from torchport.numerics.compare.sides import SideReport
from torchport.numerics.programs.node_text import module_path
from torchport.numerics.programs.provenance import title_of
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.trees.recorded import UNKNOWN, with_order
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.verdict import KernelVerdict
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["FAIL_ON", "check_options", "compared", "diff", "not_comparable", "show"]

FAIL_ON = {
    "unverified": ("UNVERIFIED", "SUSPECT", "FAIL"), "suspect": ("SUSPECT", "FAIL"), "fail": ("FAIL",),
}  # fmt: skip
_WIDE = 110


def diff(
    a: Path,
    b: Path,
    truth: str | None,
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
    fail_on: str,
    top: int,
    profiles: tuple[str | None, str | None] = (None, None),
    *,
    trust: bool = False,
    algebra: bool = False,
) -> int:
    """Compare two run folders and show the result.

    Returns the exit status: 0 if both are the same, or differ as is legal; 1 if a kernel's level is ``fail_on`` or
    worse; 2 if they cannot be compared; 3 if the programs differ, or what they were given.

    profiles: names of the profiles of A's and B's chips (``Profile.load``). Differences that a profile explains are
        EXPECTED. Emulated runs need none: they name their profile themselves.
    trust: as of ``Run.load``
    algebra: also prove that kernels compute the algebra of their FX nodes

    Raises OptionError for invalid values, OSError.
    """
    check_options(truth, fail_on, (json_file, junit_file, html_file))
    declared = [Profile.load(name) if name is not None else None for name in profiles]
    try:
        runs = Run.load(a, trust=trust), Run.load(b, trust=trust)
        result = compared(*runs, declared, truth=truth is not None, trust=trust, algebra=algebra)
    except RunError as error:
        return not_comparable(error)
    show(result, top)
    if json_file is not None:
        write_whole(json_file, (json.dumps(as_json(result), indent=1, allow_nan=False) + "\n").encode())
    if junit_file is not None:
        write_whole(junit_file, junit(result, FAIL_ON[fail_on]))
    if html_file is not None:
        write_whole(html_file, page(result).encode())
    return result.status(FAIL_ON[fail_on])


def check_options(truth: str | None, fail_on: str, written: Sequence[Path | None]) -> None:
    """Raises OptionError for what is not valid; before anything is judged, as that takes long."""
    if fail_on not in FAIL_ON:
        raise OptionError(f"--fail-on {fail_on!r} is not valid; valid: {', '.join(FAIL_ON)}")
    if truth not in (None, "fp64"):
        raise OptionError(f"--truth {truth!r} is not valid; valid: fp64")
    for file in written:
        if file is not None and not file.absolute().parent.is_dir():
            raise OptionError(f"cannot write {file}: there is no folder {file.absolute().parent}")


def compared(
    a: Run,
    b: Run,
    profiles: Sequence[Profile | None] = (None, None),
    *,
    truth: bool = False,
    trust: bool = False,
    algebra: bool = False,
) -> Diff:
    """Compare two runs, with a bar of how far it is; arguments as of ``diff``. Raises RunError if they cannot be."""

    def judged(call: RecordedCall, launch: Launch) -> KernelVerdict:
        verdict = judge(call, launch, profiles[int(call.run is b)])
        if not algebra or launch.kernel is None:
            return verdict
        return with_order(with_algebra(verdict, call, launch), call, launch)

    with working("comparing programs") as work:
        kept = _kept(profiles, trust=trust, algebra=algebra)
        result = compare(a, b, judged, truth=truth, advance=work.at, kept=kept)
    result.notes[:0] = [
        f"{side} is judged as {profile.name} computes" for side, profile in zip("AB", profiles, strict=True) if profile
    ]
    return result


def _kept(profiles: Sequence[Profile | None], *, trust: bool, algebra: bool) -> dict[str, KeptVerdicts]:
    """Where verdicts on runs are kept, by "A" and "B"; empty without a cache folder."""
    folder = config().cache_dir
    if folder is None:
        return {}
    cpu = Target.parse("cpu")
    compiler = backend_for(cpu).compiler(cpu).fingerprint()
    return {
        name: KeptVerdicts(folder / "verdicts", "\0".join((compiler, repr(profile), str(trust), str(algebra))))
        for name, profile in zip("AB", profiles, strict=True)
    }


def not_comparable(error: RunError) -> int:
    """Say why runs cannot be compared, and return the exit status."""
    print(f"not comparable: {error}", file=sys.stderr)
    return NOT_COMPARABLE


def show(diff: Diff, top: int, console: Console | None = None) -> None:
    """Print what differs between the programs, a summary, then the first ``top`` values, root causes first."""
    console = console or standard_output()
    for line in (
        *program_lines(diff.programs, diff.missing),
        *_coverage_lines(diff),
        *_summary_lines(diff),
        *_root_lines(diff, top),
    ):
        console.print(line, highlight=False)
    console.print(_value_table(_worst(diff)[:top], wide=console.width >= _WIDE))
    if left := _left_out(diff, top):
        console.print(left, highlight=False)
    for note in diff.notes:
        console.print(f"note: {escape(note)}", style="yellow", highlight=False)


def _coverage_lines(diff: Diff) -> Iterator[str]:
    for name, run in (("A", diff.a), ("B", diff.b)):
        coverage = diff.coverage[name]
        levels = ", ".join(f"[{COLOURS[level]}]{count} {level}[/]" for level, count in sorted(coverage.levels.items()))
        yield f"{name} {escape(title_of(run))}: {coverage.verified} of {coverage.launches} launches verified: {levels}"
        for reason, count in coverage.unverified.items():
            yield f"  [yellow]{count} not verified[/]: {escape(reason)}"
        if coverage.algebra:
            counts = ", ".join(f"{count} {word}" for word, count in sorted(coverage.algebra.items()))
            ordered = (
                f" ({coverage.ordered} of them with sums in a known order)" if "PROVEN" in coverage.algebra else ""
            )
            yield f"  the algebra of the FX nodes: {counts}{ordered}"


def _summary_lines(diff: Diff) -> Iterator[str]:
    """The number of values."""
    pairs = [row for row in diff.rows if row.a is not None and row.b is not None]
    identical = sum(row.identical is True for row in pairs)
    alone = len(diff.unpaired)
    yield f"{len(pairs)} values in both, {identical} of them bit for bit the same; {alone} without a partner"


def _root_lines(diff: Diff, top: int) -> Iterator[str]:
    """The illegal root causes among the first ``top``."""
    wrong = [root for root in diff.roots[:top] if not root.legal]
    if not any(coverage.verified for coverage in diff.coverage.values()):
        yield "[yellow]Nothing was verified[/]: record both runs with level='full'."
    elif not wrong and diff.programs.same:
        yield "No kernel's error is beyond what legal arithmetic gives."
    elif not wrong:
        yield "Each kernel computes what its own source and graph say. The programs, or their data, differ: see above."
    for number, root in enumerate(wrong, 1):
        share = f", {root.share_words}" if root.share_words else ""
        yield (
            f"[{COLOURS[root.level]}]{number}. {root.level}[/] {root.run} launch {root.seq} {escape(root.kernel)}"
            f"{share}: {escape('; '.join(root.reasons))}"
        )


def _left_out(diff: Diff, top: int) -> str:
    """What is not among the first ``top`` values and root causes, and how to see it; empty if nothing is."""
    causes = sum(not root.legal for root in diff.roots)
    counts = ((len(diff.rows) - top, "value"), (causes - top, "root cause"))
    more = [f"{count} more {what}{'s' if count > 1 else ''}" for count, what in counts if count > 0]
    return f"{' and '.join(more)}: --top {max(len(diff.rows), causes)}" if more else ""


def _value_table(rows: Sequence[Row], *, wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("node", *(("operation", "line") if wide else ())):
        table.add_column(name, overflow="fold")
    for name in ("local A", "local B", "propag. B", "B - A"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for row in rows:
        cells = [escape(text) for text in _cells(row)]
        table.add_row(*(cells if wide else cells[:1] + cells[3:]), style="red" if row.level == "FAIL" else None)
    return table


def _worst(diff: Diff) -> list[Row]:
    """The rows of root causes in their order, then those with the largest difference."""
    ranks = {(root.run, root.seq): index for index, root in enumerate(diff.roots) if not root.legal}
    last = len(diff.roots)

    def order(row: Row) -> tuple[int, float]:
        sides = [("A", row.a), ("B", row.b)]
        first = min((ranks.get((name, side.seq), last) for name, side in sides if side is not None), default=last)
        return first, -(row.difference or 0.0)

    return sorted(diff.rows, key=order)


def _cells(row: Row) -> list[str]:
    sides = [side for side in (row.b, row.a) if side is not None and side.level == row.level]
    cause = next((why for side in sides if (why := side.fault or side.cause)), "")
    words = [_algebra(side) for side in sides if side.algebra in ("PROVEN", "REFUTED")]
    proven = f" {words[0]}" if words else ""
    amplifies = " amplifies" if any(side is not None and side.amplifies for side in (row.a, row.b)) else ""
    names = [row.node or "", row.other or ""]
    return [
        names[0] if names[0] == names[1] else " / ".join(filter(None, names)),
        row.operation.removesuffix(".default"),
        _place(row),
        _number(row.a, "local"),
        _number(row.b, "local"),
        _number(row.b, "propagated"),
        f"{row.difference:.2g}" if row.difference is not None else row.samples or "",
        row.level + (f" ({cause})" if cause and cause != "legal rounding" else "") + proven + amplifies,
    ]


def _algebra(side: SideReport) -> str:
    """PROVEN alone where the order of the sums is known, too: what is left is legal rounding in that order."""
    known = side.algebra != "PROVEN" or (side.order is not None and not side.order.startswith(UNKNOWN))
    return f"{side.algebra}" if known else "PROVEN (algebra only)"


def _number(side: SideReport | None, name: str) -> str:
    value = getattr(side, name) if side is not None else None
    return "–" if value is None else f"{value:.2g}"


def _place(row: Row) -> str:
    """The source line; with the module, where the line is one of torch's, as in ``nn.Sequential``."""
    if not row.source:
        return ""
    line = f"{Path(row.source['file']).name}:{row.source['line']}"
    return f"{module_path(row.module)} {line}".strip() if "/torch/nn/" in row.source["file"] else line

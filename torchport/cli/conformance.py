"""``torchport conformance``: runs the suite on a target and writes its certificate."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from torchport.cli.console import standard_output
from torchport.cli.signatures import signer_of
from torchport.cli.working import working
from torchport.config import config
from torchport.errors import OptionError
from torchport.files import write_whole
from torchport.plugin import backend_for
from torchport.runtime.devices.device import DeviceDriver
from torchport.target import Target

if TYPE_CHECKING:
    from torchport.conformance.case import Case, Result

__all__ = ["conformance", "list_cases", "verify"]

if sys.platform != "win32":
    import fcntl

_COLOURS = {"PASS": "green", "PASS-with-stated-limits": "green", "FAIL": "red", "UNTESTED": "yellow"}


def conformance(
    target: str,
    level: str,
    only: Sequence[str],
    output: Path | None,
    *,
    jobs: int,
    timeout: float,
    fresh: bool,
    quarantine: bool = False,
    key: Path | None = None,
    bf16_products: str = "auto",
) -> int:
    """Run the suite, show the results, and write ``output`` (JSON) and the report beside it. Returns 1 for a FAIL.

    quarantine: put kernels that failed in quarantine.
    key: the file of the private key that signs the certificate.
    bf16_products: the option that everything is compiled with.

    Raises TargetError for a target that does not run here, OptionError for an unknown level or case, OSError.
    """
    from torchport.compile import BF16_PRODUCTS
    from torchport.conformance import certificate, chosen, markdown, run

    if bf16_products not in BF16_PRODUCTS:
        raise OptionError(f"bf16_products is {bf16_products!r}; valid: {', '.join(map(repr, BF16_PRODUCTS))}")
    signer = signer_of(key)  # asked for now, not after an hour
    parsed = Target.parse(target)
    backend = backend_for(parsed)
    able = backend.capabilities(parsed)
    driver = backend.driver(parsed)  # raises if kernels cannot run here
    own = isinstance(driver, DeviceDriver)
    without = () if own else ("operators",) if driver.device == "cpu" else ("operators", "library")
    cases = [case for case in chosen(level, only) if case.applies(able) and case.area not in without]
    opened = _temporary() if only else _folder(parsed, bf16_products, fresh=fresh)
    with opened as folder, working(f"conformance of {parsed}", len(cases), stays=True) as work:

        def done(result: Any) -> None:
            work.step()
            if result.verdict == "fail":
                work.say(f"FAIL {result.case}: {result.detail}")

        results = run(parsed, cases, folder, jobs=jobs, timeout=timeout, bf16_products=bf16_products, done=done)
    content = certificate(parsed, able, "only" if only else level, cases, results, _description(parsed), bf16_products)
    if signer is not None:
        content = signer.signed(content)
    _show(content, cases, results, single_cases=bool(only))
    if quarantine:
        _quarantine(parsed, results.values())
    if output is not None:
        write_whole(output, (json.dumps(content, indent=1) + "\n").encode())
        report = output.with_suffix(".md")
        write_whole(report, markdown(content).encode())
        print(f"certificate: {output}; report: {report}")
    return int(content["grade"] == "FAIL" or (bool(only) and content["grade"] == "UNTESTED"))


def _quarantine(target: Target, results: Iterable[Result]) -> None:
    """Put the kernels of failed graphs in quarantine, if the graph has only one: else it is not known which failed."""
    from torchport import quarantine

    for result in results:
        if result.verdict != "fail" or not result.kernels:
            continue
        if len(result.kernels) > 1:
            print(f"not in quarantine: {result.case} has {len(result.kernels)} kernels, which are not told apart")
            continue
        ((kernel, configuration, name),) = result.kernels
        quarantine.add(target, kernel, configuration, f"conformance: {result.case}: {result.detail}", name=name)
        print(f"in quarantine: {name} with {configuration} ({result.case})")


def list_cases(level: str, only: Sequence[str]) -> None:
    """Print the ids of the cases."""
    from torchport.conformance import chosen

    for case in chosen(level, only):
        print(case.id)


def verify(path: Path, keys: Path | None) -> int:
    """Check that a certificate is unchanged, and signed with one of ``keys``. Raises ArtifactError if it is not."""
    from torchport.conformance import verify as check

    content, origin = check(path, keys)
    print(f"{path} is unchanged: {content['target']}, level {content['level']}, {content['grade']}")
    print(origin)
    return 0


def _description(target: Target) -> str:
    devices = backend_for(target).devices()
    return next((device.description for device in devices if device.target == target), str(target))


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    """A folder for a few cases, which run anew each time."""
    with tempfile.TemporaryDirectory(prefix="torchport-conformance-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _folder(target: Target, bf16_products: str, *, fresh: bool) -> Iterator[Path]:
    """The run's folder, of this target, its compiler and driver, an option, and the suite; locked while it is used."""
    from torchport.conformance import version
    from torchport.quarantine import versions

    key = hashlib.sha256("\0".join((str(target), versions(target), version(), bf16_products)).encode()).hexdigest()[:12]
    caches = config().cache_dir
    if caches is None:
        raise OptionError("there is no home folder for the suite's results; set TORCHPORT_CACHE_DIR to a folder")
    folder = caches / "conformance" / f"{str(target).replace(':', '-')}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        if sys.platform != "win32":
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OptionError(f"another run of the suite on {target} is in progress in {folder}") from error
        if fresh:
            (folder / "results.jsonl").unlink(missing_ok=True)
            shutil.rmtree(folder / "caches", ignore_errors=True)
        yield folder


def _show(
    content: Mapping[str, Any], cases: Sequence[Case], results: Mapping[str, Result], *, single_cases: bool
) -> None:
    """Print the certificate ``content``; with ``single_cases`` also the result of each case."""
    console = standard_output()
    console.print(_area_table(content["areas"], skip_empty=single_cases))
    for name, area in content["areas"].items():
        for limit in area["limits"]:
            console.print(f"[dim]{name}: {escape(limit)}[/dim]", highlight=False)
    for failure in content["failures"]:
        bound = f", {failure['of_bound']} of its bound" if failure["of_bound"] is not None else ""
        console.print(f"[red]{escape(failure['case'])}[/red]: {escape(failure['error'])}{bound}", highlight=False)
        print(f"  {failure['command']}")
    if single_cases:
        _show_results(console, cases, results)
    console.print(f"{content['target']}: [{_COLOURS[content['grade']]}]{content['grade']}[/]")


def _area_table(areas: Mapping[str, Any], *, skip_empty: bool) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("area", no_wrap=True)
    table.add_column("grade", no_wrap=True)
    for name in ("pass", "fail", "refused", "untested", "worst"):
        table.add_column(name, justify="right")
    for name, area in areas.items():
        if skip_empty and not area["cases"]:
            continue
        worst = str(area["worst"]["error"]) if area["worst"] else "-"
        grade = f"[{_COLOURS[area['grade']]}]{area['grade']}[/]"
        table.add_row(name, grade, *(str(area[verdict]) for verdict in ("pass", "fail", "refused", "untested")), worst)
    return table


def _show_results(console: Console, cases: Sequence[Case], results: Mapping[str, Result]) -> None:
    for case in cases:
        result = results[case.id]
        console.print(f"{escape(case.id)}: {result.verdict}", highlight=False)
        if result.verdict in ("refused", "untested"):
            console.print(f"  {escape(result.detail)}", highlight=False)

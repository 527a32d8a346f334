"""Run many random programs in a process of their own, minimise what fails, and say in a table what happened."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fuzzing.outcome import DIED, REFUSED, SAME, UNKNOWN, Known, Outcome, explained
from fuzzing.worker import Died, Worker

MINIMISE_SECONDS = 60


@dataclass(frozen=True)
class Fuzzer:
    """generate: the program of a seed. run: its outcome, called in the process of its own, with `options`.
    smaller: programs that are simpler by one step. show: the text for people. explain: the culprit, named by further
    runs of a minimised program, or None."""

    what: str
    generate: Callable[[int], Any]
    run: Callable[..., Outcome]
    smaller: Callable[[Any], Iterator[Any]]
    show: Callable[[Any], str]
    known: Sequence[Known]
    explain: Callable[[Any, Callable[..., Outcome]], str] | None = None


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options that both fuzzers have."""
    parser.add_argument("--seed", type=int, default=0, help="of the first program (default 0)")
    parser.add_argument("--count", type=int, default=100, help="programs, one a seed (default 100)")
    parser.add_argument("--show", action="store_true", help="print each program and what it did")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for one run (default 120)")
    parser.add_argument("--no-minimise", action="store_true", help="leave failing programs as they are")
    parser.add_argument("--out", type=Path, help="folder for failing programs")


class Campaign:
    """One run of a fuzzer. variants: names of ways to run each program, with the options of each."""

    def __init__(self, fuzzer: Fuzzer, given: argparse.Namespace, variants: dict[str, Callable[[int], dict[str, Any]]]):
        self.fuzzer = fuzzer
        self.given = given
        self.variants = variants
        self.console = Console()
        self.worker = Worker(given.timeout)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.unexplained: list[str] = []

    def run(self) -> int:
        """All seeds. Returns the exit status: 1 if a failure is not explained."""
        begin = time.perf_counter()
        seeds = range(self.given.seed, self.given.seed + self.given.count)
        columns = (MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task("", total=len(seeds))
            for seed in seeds:
                self._seed(seed)
                failed = len(self.unexplained)
                progress.update(task, advance=1, description=f"seed {seed}, {failed} unexplained")
                if not self.console.is_terminal and (seed + 1) % 100 == 0:
                    print(f"seed {seed}, {failed} unexplained, {time.perf_counter() - begin:.0f} s", flush=True)
        self.worker.close()
        self._report(time.perf_counter() - begin)
        return 1 if self.unexplained else 0

    def _seed(self, seed: int) -> None:
        for name, options in self.variants.items():
            try:
                program = self.worker.call(self.fuzzer.generate, seed)
            except Died as error:
                self.counts[name, DIED] += 1
                self.unexplained.append(f"seed {seed}: generating it: {error}")
                return
            outcome = self._outcome(program, options(seed))
            self.counts[name, outcome.kind] += 1
            if self.given.show:
                self.console.print(f"# seed {seed} on {name}", markup=False, highlight=False, soft_wrap=True)
                print(self.fuzzer.show(program))
                self.console.print(f"# {outcome.kind} {outcome.detail}", markup=False, highlight=False, soft_wrap=True)
            if outcome.kind == REFUSED or outcome.failed:
                self._failure(seed, name, program, outcome, options(seed))

    def _outcome(self, program: Any, options: dict[str, Any]) -> Outcome:
        try:
            outcome: Outcome = self.worker.call(_run, self.fuzzer.run, program, options)
        except Died as error:
            return Outcome(DIED, str(error))
        return outcome

    def _failure(self, seed: int, name: str, program: Any, outcome: Outcome, options: dict[str, Any]) -> None:
        if not self.given.no_minimise and not explained(outcome, self.fuzzer.show(program), self.fuzzer.known):
            program, outcome = minimised(
                program, outcome, self.fuzzer.smaller, lambda p: self._outcome(p, options), MINIMISE_SECONDS
            )
        shown = self.fuzzer.show(program)
        if known := explained(outcome, shown, self.fuzzer.known):
            self.reasons[name, f"{outcome.kind}: {known.name} ({known.why})"] += 1
            return
        culprit = ""
        if self.fuzzer.explain is not None and outcome.failed:
            culprit = self.fuzzer.explain(program, lambda p, **more: self._outcome(p, {**options, **more}))
        self.reasons[name, f"{outcome.kind}: not explained, seed {seed}"] += 1
        self.unexplained.append(f"seed {seed} on {name}: {outcome.kind} {outcome.detail} {culprit}")
        self.console.print(
            f"# seed {seed} on {name}: {outcome.kind} {outcome.detail} {culprit}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        self.console.print(shown, markup=False, highlight=False, soft_wrap=True)
        if self.given.out is not None:
            self.given.out.mkdir(parents=True, exist_ok=True)
            head = f"# seed {seed} on {name}: {outcome.kind} {culprit}\n# " + outcome.detail.replace("\n", "\n# ")
            Path(self.given.out, f"{self.fuzzer.what}_{seed}_{name}.py").write_text(f"{head}\n{shown}\n")

    def _report(self, seconds: float) -> None:
        table = Table(title=f"{self.given.count} {self.fuzzer.what}, seeds from {self.given.seed}, {seconds:.0f} s")
        kinds = sorted({kind for _, kind in self.counts}, key=lambda k: (k != SAME, k != UNKNOWN, k))
        for column in ("", *kinds):
            table.add_column(column, justify="right" if column else "left")
        for name in self.variants:
            table.add_row(name, *(str(self.counts[name, kind]) for kind in kinds))
        self.console.print(table)
        for (name, reason), count in sorted(self.reasons.items()):
            self.console.print(f"{count:6} {name}: {reason}", markup=False, highlight=False, soft_wrap=True)


def minimised(
    program: Any,
    outcome: Outcome,
    smaller: Callable[[Any], Iterator[Any]],
    run: Callable[[Any], Outcome],
    seconds: float,
) -> tuple[Any, Outcome]:
    """The smallest program found in so many seconds that fails alike, and how it does."""
    end = time.monotonic() + seconds
    again = True
    while again:
        again = False
        for candidate in smaller(program):
            if time.monotonic() > end:
                return program, outcome
            found = run(candidate)
            if found.like(outcome):
                program, outcome, again = candidate, found, True
                break
    return program, outcome


def _run(run: Callable[..., Outcome], program: Any, options: dict[str, Any]) -> Outcome:
    return run(program, **options)

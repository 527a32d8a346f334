"""One function a case: it does what it must ``times`` times and counts what came of it."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from reliability_cases import worker
from reliability_cases.processes import CACHES, Ended, caches, fork, group_is_alive, interpret, limited, report_in
from torchport.container import bind, pack, unbind, unpack
from torchport.runtime.cache import ObjectCache

__all__ = ["CASES", "Case", "Count"]


@dataclass
class Count:
    """What came of a case.

    tried: what was tried, as often as it was.
    right: right results from torchport's kernels, or what else the case asks for.
    refused: a clear error where the case allows one.
    bad: one line for each time that was neither.
    notes: figures.
    """

    tried: int = 0
    right: int = 0
    refused: int = 0
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, right: bool, what: str, *, refused: bool = False) -> None:
        """Count one try; ``what``: the line if it was bad."""
        self.tried += 1
        self.right += right
        self.refused += refused and not right
        if not right and not refused:
            self.bad.append(what)

    def add_ended(self, ended: Ended, where: str) -> None:
        """Count a process that must end right."""
        self.add(ended.right, f"{where}: {ended.report or ended.last_line}")


@dataclass(frozen=True)
class Case:
    """A case: what it is, how often it is done and (``quick``) at least, and the function, which gets a folder."""

    name: str
    what: str
    times: int
    quick: int
    run: Callable[[Path, int], Iterator[Count]]


def killed(folder: Path, times: int) -> Iterator[Count]:
    """Kill processes while they compile; then every entry is whole, nobody is left, and the next process is right."""
    count = Count()
    chance = random.Random(13)
    variables = caches(folder)
    started = time.monotonic()
    with fork(variables, folder, 0) as (_, wait):
        count.add_ended(wait(), "before any was killed")
    whole = time.monotonic() - started
    number = died = 0
    while died < times:
        number += 1
        with fork(variables, folder, number) as (process, _):
            process.join(chance.uniform(0, whole))
            compiling = process.exitcode is None
            died += compiling
            process.kill()
            process.join()
            left = group_is_alive(process.pid, 40)
        damaged = [file.name for file in _entries(folder) if not _whole(file)]
        if compiling:
            count.add(not damaged and not left, f"kill {died}: damaged {damaged}, children left: {left}")
        if number % 10 == 0 or died == times:
            with fork(variables, folder, number) as (_, wait):
                count.add_ended(wait(), f"after kill {number}")
        yield count


def together(folder: Path, times: int) -> Iterator[Count]:
    """Eight processes compile the same models from an empty cache."""
    count = Count()
    for turn in range(times):
        with ExitStack() as stack:
            variables = caches(folder / str(turn))
            waits = [stack.enter_context(fork(variables, folder, turn))[1] for _ in range(8)]
            for wait in waits:
                count.add_ended(wait(), f"turn {turn}")
        left = [file.name for file in (folder / str(turn)).rglob("*.tmp")]
        count.add(not left and all(map(_whole, _entries(folder / str(turn)))), f"turn {turn}: left {left}")
        yield count


def read_only(folder: Path, times: int) -> Iterator[Count]:
    """The cache's file system is read-only: filled before, and empty."""
    yield from _mounted(folder, times, "mount -o remount,ro {}", filled=True)


def full(folder: Path, times: int) -> Iterator[Count]:
    """The disk of torchport's and Triton's caches is full."""
    yield from _mounted(folder, times, "dd if=/dev/zero of={}/full bs=4k 2>/dev/null", filled=False)


def _mounted(folder: Path, times: int, command: str, *, filled: bool) -> Iterator[Count]:
    count = Count()
    place = folder / "mounted"
    place.mkdir()
    inside = {name: place / name for name in CACHES[:2]}
    for turn in range(times):
        for warm in (True, False) if filled else (False,):
            fill = f"cp -a {folder}/warm/. {place}/ && " if warm else ""
            if warm:
                interpret(caches(folder / "warm", TORCHINDUCTOR_CACHE_DIR=folder / "fill"))
            script = (
                f'mount -t tmpfs -o size=1m,mode=700 none {place} && {fill}{{ {command.format(place)}; exec "$@"; }}'
            )
            prefix = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh"]
            if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
                count.notes.append("left out: this user cannot mount a file system")
                yield count
                return
            ended = interpret(caches(folder / f"{turn}{warm}", **inside), prefix=prefix)
            count.add_ended(ended, f"warm: {warm}")
            served = ended.report.get("cached", 0) == ended.report.get("kernels") if warm else True
            count.add(served, f"only {ended.report.get('cached')} kernels came from the cache")
            warned = len(ended.report.get("warnings", ())) == (not warm)
            count.add(warned, f"warnings: {ended.report.get('warnings')}")
            yield count


def foreign(folder: Path, times: int) -> Iterator[Count]:
    """Each object in the cache is replaced: by another one's, by one for another CPU, by one of another ABI."""
    count = Count()
    variables = caches(folder)
    with fork(variables, folder, 0) as (_, wait):
        count.add_ended(wait(), "to fill the cache")
    for turn in range(times):
        for change in (_exchange, _other_level, _other_abi):
            change(list(_entries(folder)))
            shutil.rmtree(variables["TRITON_CACHE_DIR"], ignore_errors=True)
            with fork(variables, folder, 0) as (_, wait):
                ended = wait()
            count.add_ended(ended, f"{change.__name__}, turn {turn}")
            count.add(ended.report.get("cached") == 0, f"{change.__name__}: a foreign object was used")
            yield count


def odd_environments(folder: Path, times: int) -> Iterator[Count]:
    """OMP_NUM_THREADS that is none, interpreters with -O, -OO and -I, no home folder, one CPU."""
    count = Count()
    variables = caches(folder)
    odd: list[tuple[str, Mapping[str, str], tuple[str, ...]]] = [
        *(
            (f"OMP_NUM_THREADS={value!r}", {"OMP_NUM_THREADS": value}, ())
            for value in ("", "x", "0", "-3", "1.5", "2,2")
        ),
        *((f"python {flag}", {}, (flag,)) for flag in ("-O", "-OO", "-I")),
        ("no home", {"HOME": "", "TORCHPORT_CACHE_DIR": ""}, ()),
    ]
    cpu = min(os.sched_getaffinity(0))
    for turn in range(times):
        for number, (name, environment, flags) in enumerate(odd):
            salt = turn * len(odd) + number  # new kernels each time
            count.add_ended(interpret({**variables, **environment}, *flags, salt=salt), name)
            yield count
        one = interpret(variables, salt=1000 + turn, prepare=lambda: os.sched_setaffinity(0, {cpu}))
        count.add_ended(one, "one CPU")
        yield count


def little_memory(folder: Path, times: int) -> Iterator[Count]:
    """The address space is limited: the process is right, or ends with an error that says so, and by no signal."""
    count = Count()
    words = ("memory", "allocate", "failed to map", "load shared object", "can't start new thread")
    for turn in range(times):
        for mebibytes in (512, 1024, 2048, 4096, 8192):
            limit = limited(resource.RLIMIT_AS, mebibytes * 2**20)
            ended = interpret(caches(folder), salt=turn * 10_000 + mebibytes, prepare=limit)
            clear = ended.status > 0 and any(word in ended.errors.lower() for word in words)
            count.add(ended.right, f"{mebibytes} MiB: {ended.status}, {ended.last_line}", refused=clear)
            yield count


def control_c(folder: Path, times: int) -> Iterator[Count]:
    """Ctrl-C in a long kernel: KeyboardInterrupt within 0.2 s, and the next launch is right."""
    count = Count()
    slowest = 0.0
    command = [sys.executable, worker.__file__, "interrupted"]
    for turn in range(times):
        with subprocess.Popen(
            [*command, str(turn), *filter(None, sys.path)], env={**os.environ, **caches(folder)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            if process.stdout.readline().strip() == worker.LONG:
                time.sleep(0.3)
            sent = time.time()
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=120)
        report = Ended(process.returncode, report_in(output), errors)
        seconds = report.report.get("came", 0.0) - sent
        slowest = max(slowest, seconds)
        count.add(
            report.right and 0 < seconds < 0.2, f"turn {turn}: {seconds:.3f} s, {report.report or report.last_line}"
        )
        count.notes = [f"slowest: {slowest * 1e3:.0f} ms"]
        yield count


CASES = (
    Case("killed", "kill -9 of compiling processes", 100, 3, killed),
    Case("together", "8 processes, the same models, an empty cache", 3, 1, together),
    Case("read-only", "the caches' file system is read-only", 2, 1, read_only),
    Case("full", "the caches' file system is full", 2, 1, full),
    Case("foreign", "cached objects of other kernels, CPUs and ABIs", 3, 1, foreign),
    Case("environments", "OMP_NUM_THREADS, python -O -I, no home, one CPU", 1, 1, odd_environments),
    Case("memory", "512 MiB to 8 GiB of address space", 1, 1, little_memory),
    Case("ctrl-c", "Ctrl-C in a long kernel, within 0.2 s", 20, 2, control_c),
)


def _entries(folder: Path) -> Iterable[Path]:
    return sorted((folder / CACHES[0]).rglob("*.kernel"))


def _whole(file: Path) -> bool:
    return ObjectCache(file.parent.parent, 2**30).get(file.stem) is not None


def _exchange(files: list[Path]) -> None:
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, [*contents[1:], *contents[:1]], strict=True):
        file.write_bytes(content)


def _other_level(files: list[Path]) -> None:
    _change_facts(files, {"features": ["avx10.9"]})


def _other_abi(files: list[Path]) -> None:
    _change_facts(files, {"abi": 0})


def _change_facts(files: list[Path], change: Mapping[str, object]) -> None:
    """Put containers with other facts in the place of valid ones, bound to the same keys."""
    for file in files:
        about, data = unpack(unbind(file.read_bytes(), file.stem))
        if "format" in about:  # a Binary, which holds the object
            facts, image = unpack(data)
            packed = pack(about, pack({**facts, **change}, image))
        else:
            packed = pack({**about, **change}, data)
        file.write_bytes(bind(packed, file.stem))

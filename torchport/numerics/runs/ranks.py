"""A folder of the runs of a job's ranks: ``rank0``, ``rank1`` ... and ``ranks.json`` (docs/numerics/run-format.md)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchport.errors import RunError
from torchport.files import read_json, write_whole
from torchport.locks import locked
from torchport.numerics.runs.reader import Run
from torchport.numerics.runs.schema import Info, RankEntry, RanksInfo

__all__ = ["FORMAT", "RankRuns", "folder_of", "is_ranks", "write_ranks"]

FORMAT = "torchport.ranks/1"
_FILE = "ranks.json"
_FOLDER = re.compile(r"rank(0|[1-9][0-9]{0,8})")


def folder_of(rank: int) -> str:
    """The name of a rank's run folder."""
    return f"rank{rank}"


def is_ranks(path: Path) -> bool:
    """Whether a folder holds the runs of ranks, complete or not."""
    return (path / _FILE).exists() or (not (path / "run.json").exists() and (path / folder_of(0)).is_dir())


def write_ranks(path: Path, world_size: int) -> None:
    """Write ranks.json from what the ranks' folders say now.

    Each rank does when it begins and when it ends, so that none waits for another. Goes on where the file cannot be
    written: a reader finds the same in the ranks' folders.
    """
    try:
        with locked(path / ".ranks.lock"):
            entries = [_entry(path, rank) for rank in range(world_size)]
            content: RanksInfo = {"format": FORMAT, "world_size": world_size, "ranks": entries}
            write_whole(path / _FILE, (json.dumps(content, indent=1) + "\n").encode())
    except OSError:
        return


def _entry(path: Path, rank: int) -> RankEntry:
    folder = folder_of(rank)
    about: dict[str, Any] = {}
    if (path / folder / "run.json").exists():
        try:
            about = {**read_json(path / folder / "run.json", Info, RunError)}
        except RunError:  # it is being written, or damaged: its reader says which
            about = {"complete": False}
    finished = about.get("complete") is True and "failed" not in about
    return {"folder": folder, "host": about.get("host"), "begun": bool(about), "finished": finished}


@dataclass(frozen=True)
class RankRuns:
    """The runs of a job.

    path: the folder
    world_size: how many ranks the job had
    runs: by rank, those that can be read
    missing: by rank, why there is no run
    """

    path: Path
    world_size: int
    runs: dict[int, Run]
    missing: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> RankRuns:
        """A single run as a job of one rank."""
        return cls(run.path, 1, {0: run})

    def only(self, rank: int) -> RankRuns:
        """The run of one rank alone."""
        return RankRuns(self.path, 1, {rank: self.runs[rank]})

    @classmethod
    def load(cls, path: str | Path, *, trust: bool = False) -> RankRuns:
        """Read a folder, complete or not. ``trust``: as of ``Run.load``.

        Raises RunError if it holds no run of a rank, or if its ranks are not of one job.
        """
        path = Path(path)
        size = 0
        if (path / _FILE).exists():
            info = read_json(path / _FILE, RanksInfo, RunError)
            if info["format"] != FORMAT:
                raise RunError(f"{path} has format {info['format'][:40]!r}; this version of torchport reads {FORMAT!r}")
            size = info["world_size"]
        names = [one.name for one in path.iterdir() if one.is_dir()] if path.is_dir() else []
        found = {int(name[4:]) for name in names if _FOLDER.fullmatch(name)}
        if strange := sorted(number for number in found if size and number >= size):
            raise RunError(f"{path} has a folder of rank {strange[0]}, and {_FILE} says that there were {size} ranks")
        runs: dict[int, Run] = {}
        missing: dict[int, str] = {}
        for number in sorted(found | set(range(size))):
            if number not in found:
                missing[number] = f"rank {number} has no run folder: it did not begin to record"
                continue
            try:
                runs[number] = Run.load(path / folder_of(number), trust=trust)
            except RunError as error:
                missing[number] = f"rank {number} cannot be read: {error}"
        if not runs:
            raise RunError(f"{path} holds no run of a rank: {next(iter(missing.values()), 'it has no folder rank0')}")
        _check(path, runs, size)
        size = size or max(run.info.get("world_size", number + 1) for number, run in runs.items())
        absent = set(range(size)) - found - set(missing)
        missing |= {number: f"rank {number} has no run folder" for number in absent}
        return cls(path, size, runs, dict(sorted(missing.items())))


def _check(path: Path, runs: dict[int, Run], size: int) -> None:
    """Raises RunError where folders are not what their names say, or of other jobs."""
    for number, run in runs.items():
        own, count = run.info.get("rank", number), run.info.get("world_size", size or None)
        if own != number:
            raise RunError(f"{run.path} is the run of rank {own}")
        if size and count != size:
            raise RunError(f"{run.path} is of a job of {count} ranks, {path} of one of {size}")
    counts = {run.info.get("world_size") for run in runs.values()} - {None}
    if len(counts) > 1:
        raise RunError(f"{path} holds runs of jobs of {' and '.join(map(str, sorted(counts)))} ranks")  # type: ignore[type-var]

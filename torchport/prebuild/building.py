"""Builds operators in worker processes: each is run once, and what it compiled stays in the cache."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torchport.errors import OptionError
from torchport.prebuild.items import Item
from torchport.runtime.cache import object_cache
from torchport.runtime.worker import Worker, spread
from torchport.target import Target

__all__ = ["VERDICTS", "Outcome", "build", "check_cache"]

VERDICTS = ("built", "there", "unsupported", "failed")


@dataclass(frozen=True)
class Outcome:
    """What came of one item.

    verdict: one of VERDICTS.
    detail: why it is unsupported, or how it failed.
    kernels: how many were compiled.
    seconds: the time it took.
    """

    verdict: str
    detail: str = ""
    kernels: int = 0
    seconds: float = 0.0

    def as_json(self) -> str:
        """As a line that ``json.loads`` reads."""
        return json.dumps(asdict(self))


def check_cache() -> None:
    """Raise OptionError if there is no folder that keeps what is built."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it says the same
        cache = object_cache().info()
    if not cache.writable:
        where = "there is no folder for it" if cache.directory is None else f"{cache.directory} takes nothing"
        raise OptionError(
            f"what is built would be lost: {where}; point TORCHPORT_CACHE_DIR at a folder that only you can write, and "
            "leave TORCHPORT_CACHE_SIZE above 0"
        )


def build(
    target: Target, items: Sequence[Item], jobs: int, timeout: float, done: Callable[[Item, Outcome], None]
) -> None:
    """Build ``items`` for ``target`` in ``jobs`` processes. What is built already is only loaded.

    timeout: seconds after which an item has failed.
    done: called with each outcome, by one thread at a time.

    Raises TorchportError if processes cannot be started.
    """
    by_line = {item.line: item for item in items}
    environment = {**os.environ, "TORCHPORT_DEVICE_FALLBACK": "error", "TORCHPORT_PROGRESS": "0"}
    arguments = ("-m", "torchport.prebuild.worker", str(target))
    with tempfile.TemporaryDirectory(prefix="torchport-build-") as folder:

        def worker() -> Worker:
            log = Path(folder, f"{threading.get_ident()}.log")
            return Worker(arguments, environment, log, "the build of operators")

        def answered(line: str, answer: bytes | str) -> None:
            failed = isinstance(answer, str)
            done(by_line[line], Outcome("failed", str(answer)) if failed else Outcome(**json.loads(answer)))

        spread(by_line, worker, jobs, timeout, answered)

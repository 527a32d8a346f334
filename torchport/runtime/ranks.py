"""Which process of a job this is. Nothing here imports or initialises ``torch.distributed``."""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["has_group", "is_job", "local_rank", "local_world_size", "rank", "world_size"]


def has_group() -> bool:
    """Whether there is a process group, and with it threads that wait for other processes."""
    return _distributed() is not None


def rank() -> int:
    """The number of this process in its job, from 0.

    Of the default process group if there is one, else of torchrun's RANK, else 0.
    """
    group = _distributed()
    return int(group.get_rank()) if group is not None else _launched()[0]


def world_size() -> int:
    """How many processes the job has: of the default process group, else of torchrun's WORLD_SIZE, else 1."""
    group = _distributed()
    return int(group.get_world_size()) if group is not None else _launched()[1]


def is_job() -> bool:
    """Whether this process is one of a job, though it may be the only one: there is a process group, or torchrun's."""
    return _distributed() is not None or _number("WORLD_SIZE") is not None


def local_rank() -> int:
    """The number of this process on its machine: torchrun's LOCAL_RANK, else the rank, as if there were one machine."""
    number = _number("LOCAL_RANK")
    return rank() if number is None else number


def local_world_size() -> int:
    """How many processes of the job are on this machine: torchrun's LOCAL_WORLD_SIZE, else all of them."""
    return _number("LOCAL_WORLD_SIZE") or world_size()


def spare_processor() -> bool:
    """Whether each rank on this machine has a processor for a second process, and there are POSIX's processes."""
    if not hasattr(os, "fork") or not hasattr(os, "sched_getaffinity"):
        return False
    return len(os.sched_getaffinity(0)) > local_world_size()


def _distributed() -> Any:
    """``torch.distributed``, if a process group is there."""
    module = sys.modules.get("torch.distributed")
    # A build of PyTorch without it has the module, and no more than is_available().
    return module if module is not None and module.is_available() and module.is_initialized() else None


def _launched() -> tuple[int, int]:
    """Rank and number of ranks as torchrun sets them; (0, 1) unless both are there and fit each other."""
    number, count = _number("RANK"), _number("WORLD_SIZE")
    return (number, count) if number is not None and count is not None and number < count else (0, 1)


def _number(variable: str) -> int | None:
    """A variable's value; None if it is no whole number: others than torchrun use these names, too."""
    text = os.environ.get(variable, "")
    return int(text) if text.isascii() and text.isdigit() else None

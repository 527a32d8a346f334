"""Of several processes that want the same kernel one makes it: the others wait, and nothing depends on its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from torchport.container import pack
from torchport.locks import claimed
from torchport.runtime.cache import ObjectCache

if sys.platform == "win32":
    pytest.skip("there are no such locks", allow_module_level=True)

KEY = "ab" * 16
MADE = pack({}, b"made")

MAKES = f"""
import os, sys, time
from pathlib import Path
from torchport.container import pack
from torchport.runtime.cache import ObjectCache
folder, mark, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def make():
    (mark / f"made{{os.getpid()}}").touch()
    time.sleep(0.5)
    if how == "die":
        os.kill(os.getpid(), 9)
    return pack({{}}, b"made")

print(ObjectCache(folder, 2**20).made_once({KEY!r}, make) == pack({{}}, b"made"), flush=True)
"""


def making(folder: Path, how: str = "") -> subprocess.Popen[str]:
    """A process that makes an entry, unless another does. Those that do leave a mark."""
    (folder / "mark").mkdir(exist_ok=True)
    arguments = [str(folder / "cache"), str(folder / "mark"), how]
    return subprocess.Popen([sys.executable, "-c", MAKES, *arguments], stdout=subprocess.PIPE, text=True)


def marks(folder: Path) -> int:
    return len(list((folder / "mark").iterdir()))


def test_one_process_makes_an_entry_and_the_others_wait(tmp_path: Path) -> None:
    processes = [making(tmp_path) for _ in range(4)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["True\n"] * 4
    assert marks(tmp_path) == 1
    assert not list((tmp_path / "cache").rglob("*.lock"))


def test_a_maker_that_dies_frees_the_entry_and_who_may_not_wait_goes_on(tmp_path: Path) -> None:
    first = making(tmp_path, "die")
    deadline = time.monotonic() + 60
    while not marks(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ObjectCache(tmp_path / "cache", 2**20).made_once(KEY, lambda: MADE, wait=False) is None
    second = making(tmp_path)
    assert second.communicate(timeout=60)[0] == "True\n" and first.wait(60) == -9
    assert marks(tmp_path) == 2


def test_an_error_frees_the_entry(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise ArithmeticError

    cache = ObjectCache(tmp_path / "cache", 2**20)
    with pytest.raises(ArithmeticError):
        cache.made_once(KEY, fail)
    assert cache.made_once(KEY, lambda: MADE, wait=False) == MADE
    assert cache.made_once(KEY, fail) == MADE


def test_a_lock_is_free_although_a_process_that_was_forked_meanwhile_has_its_file(tmp_path: Path) -> None:
    with claimed(tmp_path / "lock", 0) as mine:
        assert mine
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with claimed(tmp_path / "lock", 0) as again:
            assert again
            with claimed(tmp_path / "lock", 0.05) as third:
                assert not third
            assert (tmp_path / "lock").exists()
        assert not (tmp_path / "lock").exists()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_an_entry_is_made_where_there_can_be_no_lock(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "cache", 2**20)
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / KEY[:2]).write_text("")  # no folder for the entry
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it cannot be written
        assert cache.made_once(KEY, lambda: MADE) == MADE
    assert cache.get(KEY) == MADE


def test_locks_that_killed_processes_left_are_swept(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "cache", 2**20)
    cache.put(KEY, MADE)
    left = tmp_path / "cache" / KEY[:2] / f".{KEY}.lock"
    left.touch()
    os.utime(left, (0, 0))
    cache.sweep()
    assert not left.exists() and cache.get(KEY) == MADE


def test_the_time_of_use_is_written_once_an_hour(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "cache", 2**20)
    cache.put(KEY, MADE)
    (file,) = (tmp_path / "cache").rglob("*.kernel")
    for age, written in ((60, False), (7200, True)):
        before = time.time() - age
        os.utime(file, (before, before))
        assert cache.get(KEY) == MADE
        assert (abs(file.stat().st_mtime - before) > 1) == written

"""The cache of compiled kernels: integrity, many processes, killed writers, disks that refuse, size, privacy."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import multiprocessing
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from torchport.container import CorruptContainer, pack, unpack
from torchport.runtime import cache_folder
from torchport.runtime.cache import ObjectCache, object_cache


def key(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def entry(text: object, size: int = 100) -> bytes:
    return pack({"name": str(text)}, str(text).encode().ljust(size, b"."))


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "kernels", 2**20)


def place(cache: ObjectCache, text: object) -> Path:
    """The file of an entry."""
    assert cache.directory is not None
    return cache_folder.CacheFolder(cache.directory, cache.limit).file(key(text))


def files(cache: ObjectCache) -> list[Path]:
    return sorted(p for p in cache.directory.rglob("*") if p.is_file())


def test_container_round_trips() -> None:
    metadata = {"name": "k", "imports": ["exp"], "cost": 1.5}
    assert unpack(pack(metadata, b"\0object")) == (metadata, b"\0object")


def test_every_damaged_byte_is_noticed() -> None:
    data = entry("k", 20)
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 1
        with pytest.raises(CorruptContainer):
            unpack(bytes(broken))
    for length in range(len(data)):
        with pytest.raises(CorruptContainer):
            unpack(data[:length])


def test_found_again_by_another_object(cache: ObjectCache) -> None:
    assert cache.get(key("a")) is None
    cache.put(key("a"), entry("a"))
    other = ObjectCache(cache.directory, cache.limit)
    assert other.get(key("a")) == entry("a")
    info = cache.info()
    assert (info.entries, info.size, info.hits, info.misses, info.writes) == (1, len(entry("a")), 0, 1, 1)
    assert info.writable


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"", lambda d: d[:60] + b"X" + d[61:]])
def test_a_damaged_file_is_removed(cache: ObjectCache, damage) -> None:
    cache.put(key("a"), entry("a"))
    (file,) = files(cache)
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get(key("a")) is None
    assert files(cache) == []
    cache.put(key("a"), entry("a"))
    assert cache.get(key("a")) == entry("a")


def test_an_object_copied_over_another_is_a_miss(cache: ObjectCache) -> None:
    for name in "ab":
        cache.put(key(name), entry(name))
    place(cache, "b").write_bytes(place(cache, "a").read_bytes())
    assert cache.get(key("b")) is None and not place(cache, "b").exists()
    assert cache.get(key("a")) == entry("a")
    cache.put(key("b"), entry("b"))
    assert cache.get(key("b")) == entry("b")


def test_a_container_without_a_key_is_a_miss(cache: ObjectCache) -> None:
    cache.put(key("a"), entry("a"))
    place(cache, "a").write_bytes(entry("a"))
    assert cache.get(key("a")) is None


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_folder_or_pipe_in_the_place_of_an_entry_is_a_miss(cache: ObjectCache, make: Callable[[Path], None]) -> None:
    cache.put(key("b"), entry("b"))
    place(cache, "a").parent.mkdir(exist_ok=True, mode=0o700)
    make(place(cache, "a"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.get(key("a")) is None
        cache.put(key("a"), entry("a"))
        cache.put(key("c"), entry("c"))
    assert cache.get(key("a")) == entry("a") and cache.get(key("b")) == entry("b")
    assert place(cache, "c").is_file() and cache.info().writable


@pytest.mark.parametrize("fault", ["writable", "file", "link"])
def test_a_subfolder_that_cannot_be_trusted_is_not_read(cache: ObjectCache, tmp_path: Path, fault: str) -> None:
    for name in "ab":
        cache.put(key(name), entry(name))
    subfolder = place(cache, "a").parent
    assert subfolder != place(cache, "b").parent
    if fault == "writable":
        subfolder.chmod(0o777)
    else:
        subfolder.rename(tmp_path / "elsewhere")
        subfolder.symlink_to(tmp_path / "elsewhere") if fault == "link" else subfolder.touch()
    other = ObjectCache(cache.directory, cache.limit)
    with pytest.warns(RuntimeWarning, match=f"has a subfolder, {subfolder.name}, that") as caught:
        assert other.get(key("a")) is None
        other.put(key("a"), entry("new"))
        assert other.get(key("a")) == entry("new")
    assert len(caught) == 1
    assert other.get(key("b")) == entry("b") and other.info().writable


def test_after_a_failed_write_the_folder_is_still_read(cache: ObjectCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(key("a"), entry("a"))

    def full(source: object, target: object) -> None:
        attempts.append(target)
        raise OSError(errno.ENOSPC, "No space left on device")

    attempts: list[object] = []
    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left") as caught:
        for name in "bcd":
            cache.put(key(name), entry(name))
    assert len(caught) == len(attempts) == 1
    assert [cache.get(key(name)) for name in "abcd"] == [entry(name) for name in "abcd"]
    assert not cache.info().writable


def test_the_folder_may_be_removed_while_it_is_in_use(cache: ObjectCache) -> None:
    cache.put(key("a"), entry("a"))
    shutil.rmtree(str(cache.directory))
    assert cache.get(key("a")) is None
    cache.put(key("a"), entry("a"))
    assert place(cache, "a").is_file() and cache.info().writable


def _fill(directory: Path, limit: int, seed: int, largest: multiprocessing.Queue) -> None:
    cache = ObjectCache(directory, limit)
    most = 0
    for number in range(60):
        cache.put(key((seed, number)), entry((seed, number), 10_000))
        most = max(most, on_disk(cache))
    largest.put(most)


def on_disk(cache: ObjectCache) -> int:
    """Bytes in a cache's files while others write and remove some."""
    size = 0
    for folder, _, names in os.walk(str(cache.directory)):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(folder, name)).st_size
    return size


def test_eight_writers_keep_the_limit(cache: ObjectCache) -> None:
    context = multiprocessing.get_context("fork")
    limit, largest = 2 * 2**20, context.Queue()
    processes = [context.Process(target=_fill, args=(cache.directory, limit, seed, largest)) for seed in range(8)]
    for process in processes:
        process.start()
    sizes = [largest.get(timeout=120) for _ in processes]  # 4.8 MB written in all
    for process in processes:
        process.join(60)
    assert 0.8 * limit < max(sizes) <= 1.1 * limit


def test_the_first_write_counts_a_part_of_a_large_folder(cache: ObjectCache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.directory is not None
    for number in range(256):
        folder = cache.directory / f"{number:02x}"
        folder.mkdir(mode=0o700, parents=True)
        for file in range(4):
            (folder / f"{number:02x}{file:062x}.kernel").write_bytes(b"." * 1000)
    cache.directory.chmod(0o700)
    counted: list[Path] = []
    monkeypatch.setattr(cache_folder, "_COUNTING_SECONDS", 0.0)
    monkeypatch.setattr(
        cache_folder, "_tidied", lambda folder, real=cache_folder._tidied: counted.append(folder) or real(folder)
    )
    cache.put(key("a"), entry("a", 1000))
    assert len(counted) == 2  # its own and another one, whose files tell that 1.02 MB of 1.05 are in use
    small = ObjectCache(cache.directory, 2**19)
    small.put(key("b"), entry("b", 1000))
    assert small.info().size <= 2**19
    assert small.get(key("b")) == entry("b", 1000)


def test_folder_and_files_are_private(cache: ObjectCache) -> None:
    cache.put(key("a"), entry("a"))
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    assert files(cache)[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_folder_others_can_write_is_refused(cache: ObjectCache, mode: int) -> None:
    cache.put(key("a"), entry("a"))
    cache.directory.chmod(mode)
    other = ObjectCache(cache.directory, cache.limit)
    with pytest.warns(RuntimeWarning, match=f"can be written by others \\(mode {mode:o}\\).*TORCHPORT_CACHE_DIR"):
        assert other.get(key("a")) is None
    other.put(key("b"), entry("b"))
    assert other.get(key("b")) == entry("b")
    assert len(files(cache)) == 1


def test_a_folder_of_another_user_is_refused(cache: ObjectCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        cache.put(key("a"), entry("a"))
    assert cache.get(key("a")) == entry("a")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_refuses_warns_once_and_memory_serves(
    cache: ObjectCache, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.warns(RuntimeWarning, match=os.strerror(code)):
        cache.put(key("a"), entry("a"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(key("b"), entry("b"))
        assert cache.get(key("a")) == entry("a")
        assert cache.get(key("b")) == entry("b")
    assert files(cache) == []
    assert not cache.info().writable


def test_a_disk_that_fills_while_writing_leaves_nothing(cache: ObjectCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        cache.put(key("a"), entry("a"))
    assert files(cache) == []
    assert cache.get(key("a")) == entry("a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_still_serves(cache: ObjectCache) -> None:
    cache.put(key("a"), entry("a"))
    for folder in (*cache.directory.iterdir(), cache.directory):
        folder.chmod(0o500)
    other = ObjectCache(cache.directory, cache.limit)
    assert other.get(key("a")) == entry("a")
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        other.put(key("zz"), entry("zz"))


def test_a_path_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = ObjectCache(tmp_path / "file" / "kernels", 2**20)
    with pytest.warns(RuntimeWarning, match="cannot be made"):
        cache.put(key("a"), entry("a"))
    assert cache.get(key("a")) == entry("a")


def test_least_recently_used_go_first(cache: ObjectCache) -> None:
    small = ObjectCache(cache.directory, 10 * len(entry(10, 1000)))
    for i in range(10, 20):
        small.put(key(i), entry(i, 1000))
        os.utime(place(small, i), (i, i))
    assert small.get(key(10)) is not None  # used: now the youngest
    small.put(key(20), entry(20, 1000))
    small.sweep()
    left = [i for i in range(10, 21) if small.get(key(i)) is not None]
    assert left == [10, 13, 14, 15, 16, 17, 18, 19, 20]
    assert small.info().size <= small.limit


def test_size_zero_keeps_nothing_on_disk(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "kernels", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(key("a"), entry("a"))
    assert cache.get(key("a")) == entry("a")
    assert not (tmp_path / "kernels").exists()


def test_clear(cache: ObjectCache) -> None:
    for i in range(5):
        cache.put(key(i), entry(i))
    (cache.directory / "notes.txt").write_text("not ours")
    assert cache.clear() == 5
    assert cache.info().entries == 0
    assert [p.name for p in files(cache)] == ["notes.txt"]


def test_keys_cannot_leave_the_folder(cache: ObjectCache) -> None:
    for bad in ("../../etc/passwd", "", "A" * 64, "ab"):
        with pytest.raises(ValueError, match="hexadecimal"):
            cache.put(bad, entry("a"))


def test_stale_temporaries_go_and_fresh_ones_stay(cache: ObjectCache) -> None:
    cache.put(key("a"), entry("a"))
    folder = files(cache)[0].parent
    stale, fresh = folder / f".{key('b')}.1.0.tmp", folder / f".{key('c')}.2.0.tmp"
    for path in (stale, fresh):
        path.write_bytes(b"half")
    old = time.time() - 3600
    os.utime(stale, (old, old))
    cache.sweep()
    assert not stale.exists()
    assert fresh.exists()


def _write_and_die(directory: Path) -> None:
    def die(source: object, target: object) -> None:
        os.kill(os.getpid(), 9)

    os.replace = die  # type: ignore[assignment]
    ObjectCache(directory, 2**20).put(key("a"), entry("a"))


def _hammer(directory: Path, seed: int, failures: multiprocessing.Queue) -> None:
    cache = ObjectCache(directory, 40 * len(entry(0, 1000)))
    for turn in range(300):
        number = (turn * 7 + seed) % 60
        found = cache.get(key(number))
        if found is None:
            cache.put(key(number), entry(number, 1000))
        elif found != entry(number, 1000):
            failures.put(number)
        if turn % 50 == 0:
            cache.sweep()


def test_a_killed_writer_leaves_no_entry(cache: ObjectCache) -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_write_and_die, args=(cache.directory,))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    (left,) = files(cache)
    assert left.suffix == ".tmp"
    assert cache.get(key("a")) is None
    cache.put(key("a"), entry("a"))
    assert cache.get(key("a")) == entry("a")


def test_many_processes_at_once(cache: ObjectCache) -> None:
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    processes = [context.Process(target=_hammer, args=(cache.directory, i * 13, failures)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert failures.empty()
    assert not [p for p in files(cache) if p.suffix == ".tmp"]
    cache.sweep()
    found = [number for number in range(60) if cache.get(key(number)) is not None]
    assert len(found) == len(files(cache)) > 30


def test_the_environment_chooses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHPORT_CACHE_DIR", str(tmp_path / "here"))
    monkeypatch.setenv("TORCHPORT_CACHE_SIZE", "5M")
    assert object_cache() is object_cache()
    assert (object_cache().directory, object_cache().limit) == (tmp_path / "here", 5 * 2**20)

"""The caches of a job in one file: what was written is read, and nothing that others made of it."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from torchport.archive import MANIFEST, Writer
from torchport.container import pack
from torchport.errors import ArtifactError
from torchport.runtime import cache_archive
from torchport.runtime.cache import ObjectCache
from torchport.runtime.cache_archive import export_caches, import_caches

KEYS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]
GRAPH = "fxgraph/ab/fabc123/xyz"


def kernel(key: str) -> bytes:
    return pack({"name": key[:4]}, key.encode() * 10)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A file with three kernels and a graph; a folder of Inductor's has more than graphs."""
    cache = ObjectCache(tmp_path / "kernels", 2**20)
    for key in KEYS:
        cache.put(key, kernel(key))
    for name in (GRAPH, "fxgraph/ab/fabc123/.xyz.123.tmp", "zz/code.py"):
        place = tmp_path / "inductor" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"graph {name[::-1]}")
    moved = export_caches(tmp_path / "file", cache, tmp_path / "inductor")
    assert (moved.kernels, moved.graphs, moved.left) == (3, 1, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "inductor", "kernels"]
    return tmp_path / "file"


def take(path: Path, *, trust: bool = False) -> tuple[cache_archive.Moved, ObjectCache, Path]:
    """What an import says, and the caches that it filled."""
    cache, graphs = ObjectCache(path.parent / "other", 2**20), path.parent / "graphs"
    return import_caches(path, cache, trust=trust, graphs=graphs), cache, graphs


def test_kernels_are_taken_and_graphs_only_with_trust(exported: Path) -> None:
    moved, cache, graphs = take(exported)
    assert (moved.kernels, moved.graphs, moved.left) == (3, 0, 1)
    assert [cache.get(key) for key in KEYS] == [kernel(key) for key in KEYS]
    assert not graphs.exists()
    moved, _, graphs = take(exported, trust=True)
    assert (moved.kernels, moved.graphs, moved.left) == (3, 1, 0)
    assert (graphs / GRAPH).read_text() == f"graph {GRAPH[::-1]}"
    assert [p.name for p in graphs.rglob("*") if p.is_file()] == ["xyz"]


def test_the_same_caches_make_the_same_file(exported: Path) -> None:
    again = exported.with_name("again")
    export_caches(again, ObjectCache(exported.parent / "kernels", 2**20), exported.parent / "inductor")
    assert again.read_bytes() == exported.read_bytes()


def test_every_damaged_byte_is_noticed(exported: Path) -> None:
    data = exported.read_bytes()
    found = zipfile.ZipFile(exported)
    for name in found.namelist():
        begin = data.index(found.read(name))
        for place in (begin, begin + found.getinfo(name).file_size - 1):
            damaged = bytearray(data)
            damaged[place] ^= 1
            exported.write_bytes(damaged)
            with pytest.raises(ArtifactError, match=r"damaged|not the bytes"):
                take(exported, trust=True)
    exported.write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="no cache, or damaged"):
        take(exported)
    assert not (exported.parent / "graphs").exists()
    assert not ObjectCache(exported.parent / "other", 2**20).keys()


def forged(exported: Path, parts: dict[str, bytes], **changes: Any) -> Path:
    """A file with digests that fit, of what nobody exports."""
    path = exported.with_name("forged")
    writer = Writer(path, "cache")
    for name, content in parts.items():
        writer.add(name, [content])
    written = {name: {"bytes": part.bytes, "sha256": part.sha256} for name, part in writer.parts.items()}
    manifest = {
        "schema": cache_archive.SCHEMA, "torch": "2.13.0",
        "kernels": {n.removeprefix("kernels/"): p for n, p in written.items() if n.startswith("kernels/")},
        "graphs": {n.removeprefix("graphs/"): p for n, p in written.items() if n.startswith("graphs/")},
    }  # fmt: skip
    writer.finish(json.dumps({**manifest, **changes}).encode())
    return path


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/x", "fxgraph/../../x", "fxgraph/./x", "fxgraph//x", "other/x", "fxgraph", "fxgraph/..",
     "fxgraph/a\\b", "fxgraph/a\n", "fxgraph/" + "a" * 101],
)  # fmt: skip
def test_no_graph_leaves_its_folder(exported: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="not text of the form"):
        take(forged(exported, {f"graphs/{name}": b"x"}), trust=True)
    assert not (exported.parent / "graphs").exists()


@pytest.mark.parametrize("key", ["../" + KEYS[0], "ab", KEYS[0].upper(), "g" * 64])
def test_no_kernel_has_another_kind_of_key(exported: Path, key: str) -> None:
    with pytest.raises(ArtifactError, match="not text of the form"):
        take(forged(exported, {f"kernels/{key}": kernel(KEYS[0])}))


def test_a_kernel_must_be_one(exported: Path) -> None:
    with pytest.raises(ArtifactError, match=r"kernel \w+ is not a compiled kernel"):
        take(forged(exported, {f"kernels/{KEYS[0]}": b"x" * 100}))


def test_another_schema_is_refused(exported: Path) -> None:
    with pytest.raises(ArtifactError, match=r"schema is 'torchport\.cache/9'"):
        take(forged(exported, {}, schema="torchport.cache/9"))


def test_nothing_is_unpacked(exported: Path) -> None:
    bomb = exported.with_name("bomb")
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"kernels/{KEYS[0]}", bytes(2**20))
        archive.writestr(MANIFEST, b"{}")
    with pytest.raises(ArtifactError, match="is compressed"):
        take(bomb)
    huge = forged(exported, {}, kernels={KEYS[0]: {"bytes": 2**60, "sha256": "0" * 64}})
    with pytest.raises(ArtifactError):
        take(huge)


def test_a_package_is_no_cache(exported: Path) -> None:
    path = exported.with_name("package")
    Writer(path).finish(b"{}")
    with pytest.raises(ArtifactError, match="no cache of torchport"):
        take(path)


def test_a_file_that_others_can_write_needs_trust(exported: Path) -> None:
    exported.chmod(0o666)
    with pytest.raises(ArtifactError, match="can be written by others"):
        take(exported)
    assert take(exported, trust=True)[0].kernels == 3


def test_a_cache_that_cannot_be_written_is_an_error(exported: Path) -> None:
    (exported.parent / "other").write_text("")
    with pytest.raises(OSError, match="cannot be written"), pytest.warns(RuntimeWarning, match="cannot be made"):
        take(exported)


def test_an_export_that_fails_leaves_what_was_there(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = exported.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        export_caches(exported, ObjectCache(exported.parent / "kernels", 2**20), exported.parent / "inductor")
    assert exported.read_bytes() == before
    assert sorted(p.name for p in exported.parent.iterdir()) == ["file", "inductor", "kernels"]


def test_a_full_disk_names_the_file_and_leaves_nothing(exported: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache, target = ObjectCache(exported.parent / "kernels", 2**20), exported.parent / "full"
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # a write beyond it fails, as one beyond the disk does
    try:
        with pytest.raises(OSError, match="full") as caught:
            export_caches(target, cache, exported.parent / "inductor")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(target)
    assert sorted(p.name for p in exported.parent.iterdir()) == ["file", "inductor", "kernels"]


def test_a_folder_that_is_missing_is_named_with_the_file(exported: Path) -> None:
    with pytest.raises(OSError, match="none/file") as caught:
        export_caches(exported.parent / "none" / "file", ObjectCache(exported.parent / "kernels", 2**20))
    assert caught.value.filename == str(exported.parent / "none" / "file")

"""The caches of a job in one file (docs/distributed.md): kernels, and what Inductor keeps of graphs.

The file is a ``torchport.archive``. Its manifest names each part, its size and its digest. Kernels are checked as the
cache checks them, and stored under their keys. Inductor's files are pickles: nothing here reads them, and they are
written to Inductor's folder only if the caller trusts who made the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch

from torchport.archive import MANIFEST, Archive, Part, Writer
from torchport.compat import inductor_cache_dir
from torchport.container import CorruptContainer, unpack
from torchport.errors import ArtifactError
from torchport.files import parse_json, read_bytes, write_whole
from torchport.runtime.cache import ObjectCache

__all__ = ["SCHEMA", "Moved", "export_caches", "import_caches"]

SCHEMA: Literal["torchport.cache/1"] = "torchport.cache/1"
GRAPHS = ("fxgraph", "aotautograd")
"""The folders in Inductor's that hold compiled graphs."""

_Key = Annotated[str, re.compile(r"[0-9a-f]{16,128}")]
_PLACE = re.compile(r"(?:fxgraph|aotautograd)(?:/[A-Za-z0-9_][A-Za-z0-9_-]{0,99}){1,4}")
_File = Annotated[str, _PLACE]


@dataclass(frozen=True)
class _Manifest:
    """``kernels``: parts by key. ``graphs``: parts by their place in Inductor's folder. ``torch``: who made these."""

    schema: Literal["torchport.cache/1"]
    torch: str
    kernels: Mapping[_Key, Part]
    graphs: Mapping[_File, Part]


@dataclass(frozen=True)
class Moved:
    """What was written to a file, or read from it.

    kernels: how many kernels.
    graphs: how many files of Inductor's.
    left: how many files of Inductor's were not taken, as nobody said that they may.
    bytes: the size of all that was moved.
    """

    kernels: int
    graphs: int
    left: int
    bytes: int


def export_caches(path: str | Path, cache: ObjectCache, graphs: Path | None = None) -> Moved:
    """Write all kernels of ``cache``, and the graphs in Inductor's folder (``graphs``, default: this process's).

    The file appears complete or not at all. Raises OSError.
    """
    path = Path(path)
    folder = Path(inductor_cache_dir()) if graphs is None else graphs
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _naming(path, temporary):
        writer = Writer(temporary, "cache")
    try:
        with _naming(path, temporary):
            parts = _write(writer, cache, folder)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
    size = sum(part.bytes for part in writer.parts.values())
    return Moved(len(parts["kernels"]), len(parts["graphs"]), 0, size)


def import_caches(path: str | Path, cache: ObjectCache, *, trust: bool = False, graphs: Path | None = None) -> Moved:
    """Store the kernels of a file in ``cache`` and, with ``trust``, its graphs in Inductor's folder.

    All parts that are taken are checked before the first is stored. ``trust``: also take a file that another user than
    this one or root owns or may write.

    Raises ArtifactError if the file is not intact, or others' without ``trust``, and OSError if the cache cannot be
    written.
    """
    path = Path(path)
    archive = Archive(path, trust=trust, kind="cache")
    manifest = parse_json(bytes(archive.read(MANIFEST)), _Manifest, f"{path}: {MANIFEST}")
    kernels = {}
    for key, part in manifest.kernels.items():
        data = bytes(archive.checked(f"kernels/{key}", {f"kernels/{key}": part}))
        try:
            unpack(data)
        except CorruptContainer as error:
            raise ArtifactError(f"{path}: kernel {key} is {error}") from error
        kernels[key] = data
    taken = manifest.graphs if trust else {}
    files = {name: archive.checked(f"graphs/{name}", {f"graphs/{name}": part}) for name, part in taken.items()}
    for key, data in kernels.items():
        cache.put(key, data)
    if kernels and not cache.info().writable:
        raise OSError(f"the cache {cache.directory} cannot be written")
    folder = Path(inductor_cache_dir()) if graphs is None else graphs
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(place, bytes(content))
    size = sum(map(len, kernels.values())) + sum(map(len, files.values()))
    return Moved(len(kernels), len(files), len(manifest.graphs) - len(files), size)


def _write(writer: Writer, cache: ObjectCache, folder: Path) -> dict[str, dict[str, Part]]:
    """Write all parts and the manifest. Returns the parts of each kind."""
    for key in sorted(cache.keys()):
        if (packed := cache.get(key)) is not None:
            writer.add(f"kernels/{key}", [packed])
    for name in sorted(_graph_files(folder)):
        with contextlib.suppress(FileNotFoundError):  # a job that runs removed it
            writer.add(f"graphs/{name}", [read_bytes(folder / name)])
    parts = {kind: _of_kind(writer.parts, kind) for kind in ("kernels", "graphs")}
    manifest = _Manifest(SCHEMA, torch.__version__, **parts)
    writer.finish(json.dumps(asdict(manifest), separators=(",", ":")).encode())
    return parts


@contextlib.contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Errors of the temporary file name the one that was asked for; a full disk's name none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary), temporary):
            error.filename, error.filename2 = str(path), None
        raise


def _of_kind(parts: Mapping[str, Part], kind: str) -> dict[str, Part]:
    return {name.removeprefix(f"{kind}/"): part for name, part in parts.items() if name.startswith(f"{kind}/")}


def _graph_files(folder: Path) -> Iterator[str]:
    """Places of Inductor's files of graphs, below its folder; not those that are being written."""
    for kind in GRAPHS:
        for place, _, names in os.walk(folder / kind):
            for name in names:
                relative = (Path(place) / name).relative_to(folder).as_posix()
                if _PLACE.fullmatch(relative):
                    yield relative

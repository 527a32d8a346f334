"""Files of checked parts: a zip archive that compresses nothing, with the digest of its manifest as its comment.

Packages and caches of a job are such files. What is read is mapped, not unpacked: a part is no larger than the file,
and no name of a part becomes a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, cast

from torchport.errors import ArtifactError

__all__ = ["ALIGNMENT", "MANIFEST", "Archive", "Digest", "Part", "Size", "Writer", "checked", "map_file"]

ALIGNMENT = 64
MANIFEST = "manifest.json"
Digest = Annotated[str, re.compile(r"[0-9a-f]{64}")]
Size = Annotated[int, range(2**48)]


@dataclass(frozen=True)
class Part:
    """A file of the archive, or beside it."""

    bytes: Size
    sha256: Digest


_LOCAL = struct.Struct("<4s22xHH")  # of a local header: signature, lengths of the name and of the extra field
_EXTRA = struct.Struct("<HH")
_PADDING = 0xD935  # the extra field of Android's zipalign: readers skip it
_TIME = (1980, 1, 1, 0, 0, 0)  # the same model makes the same file


class Writer:
    """Writes the parts of a file, then its manifest. ``kind``: what it is a file of: package or cache."""

    def __init__(self, path: Path, kind: str = "package") -> None:
        self._kind = kind
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self.parts: dict[str, Part] = {}

    def add(self, name: str, pieces: Iterable[Any]) -> None:
        """Write one part, aligned so that it can be mapped. ``pieces``: its bytes."""
        entry = zipfile.ZipInfo(name, _TIME)
        assert self._zip.fp is not None
        begin = self._zip.fp.tell() + _LOCAL.size + len(name.encode()) + 20  # 20: the field of 64-bit sizes
        padding = -(begin + _EXTRA.size) % ALIGNMENT
        entry.extra = _EXTRA.pack(_PADDING, padding) + bytes(padding)
        digest, length = hashlib.sha256(), 0
        with self._zip.open(entry, "w", force_zip64=True) as out:
            for piece in pieces:
                out.write(piece)
                digest.update(piece)
                length += len(piece)
        self.parts[name] = Part(length, digest.hexdigest())

    def finish(self, manifest: bytes) -> str:
        """Write the manifest and close the file. Returns the manifest's SHA-256."""
        digest = hashlib.sha256(manifest).hexdigest()
        self._zip.writestr(zipfile.ZipInfo(MANIFEST, _TIME), manifest)
        self._zip.comment = f"torchport.{self._kind} sha256={digest}".encode()
        self._zip.close()
        return digest

    def close(self) -> None:
        """Close the file, finished or not. That an unfinished one does not reach a full disk is no further error."""
        with contextlib.suppress(OSError):
            self._zip.close()


class Archive:
    """A file that is mapped into memory. Changes of the memory do not reach the file.

    ``digest``: SHA-256 of the manifest, as the archive's comment has it.
    """

    def __init__(self, path: Path, *, trust: bool, kind: str = "package") -> None:
        """Map the file. Raises ArtifactError if it is none of its kind, or others' (``fault_of``) without ``trust``."""
        self.path = path
        self.data = map_file(path, trust=trust)
        self._places: dict[str, tuple[int, int]] = {}
        try:
            with zipfile.ZipFile(cast("IO[bytes]", self.data.obj)) as archive:  # not the path, which may have changed
                comment = re.fullmatch(f"torchport.{kind} sha256=([0-9a-f]{{64}})".encode(), archive.comment)
                for entry in archive.infolist():
                    self._places[entry.filename] = self._place(entry)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            UnicodeDecodeError,
            struct.error,
            OSError,
            ValueError,
        ) as error:
            raise ArtifactError(f"{path} is no {kind}, or damaged: {error}") from error
        if comment is None:
            raise ArtifactError(f"{path} is no {kind} of torchport, or damaged: the digest of the manifest is missing")
        self.digest = comment[1].decode()
        if hashlib.sha256(self.read(MANIFEST)).hexdigest() != self.digest:
            raise ArtifactError(f"{path} is damaged: its manifest is not the one that was written")

    def _place(self, entry: zipfile.ZipInfo) -> tuple[int, int]:
        """Where the bytes of an entry begin and end. Raises ValueError."""
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"{entry.filename!r:.80} is compressed")
        signature, name, extra = _LOCAL.unpack_from(self.data, entry.header_offset)
        begin = entry.header_offset + _LOCAL.size + name + extra
        end = begin + entry.file_size
        if signature != b"PK\x03\x04" or not 0 <= begin <= end <= len(self.data):
            raise ValueError(f"{entry.filename!r:.80} is not where the archive says")
        return begin, end

    def read(self, name: str) -> memoryview:
        """The bytes of a part; nothing is copied. Raises ArtifactError if there is none of this name."""
        if name not in self._places:
            raise ArtifactError(f"{self.path} is damaged: it has no part {name[:80]!r}")
        begin, end = self._places[name]
        return self.data[begin:end]

    def checked(self, name: str, parts: Mapping[str, Part]) -> memoryview:
        """The bytes of a part, which must be those of the manifest. Raises ArtifactError."""
        return checked(self.read(name), parts.get(name), f"{self.path}: {name}")


def checked(data: memoryview, part: Part | None, where: str) -> memoryview:
    """``data``, if it has the part's digest. Raises ArtifactError."""
    if part is None or len(data) != part.bytes or hashlib.sha256(data).hexdigest() != part.sha256:
        raise ArtifactError(f"{where} is damaged: these are not the bytes that were written")
    return data


def map_file(path: Path, *, trust: bool) -> memoryview:
    """A file's bytes, mapped; what is written to them stays in this process. Raises ArtifactError.

    trust: also take a file that another user than this one or root owns, or that others may write.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        status = os.fstat(descriptor)
        fault = fault_of(status)
        if fault and not trust:
            raise ArtifactError(f"{path} {fault}, and its kernels are code that would run; say trust=True if you do")
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            raise ArtifactError(f"{path} is empty or not a regular file")
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(descriptor)


def fault_of(status: os.stat_result) -> str | None:
    """Why a file cannot be taken for this user's own; None if it can."""
    if hasattr(os, "geteuid") and status.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    if status.st_mode & stat.S_IWOTH:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None

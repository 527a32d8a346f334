"""Writes a run folder: files appear whole, tensors are named by content, and the disk may be full."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from torchport.errors import RecordingError
from torchport.files import write_whole

__all__ = ["FORMAT", "STORABLE", "Store", "content_hash"]

FORMAT = "torchport.run/1"

_BUFFERED = 1 << 16
"""Bytes of launches that are buffered in memory while a graph runs."""


def content_hash(dtype: str, data: bytes | memoryview) -> str:
    """The name of a stored tensor: SHA-256 of ``dtype``, a zero byte and the elements' bytes."""
    digest = hashlib.sha256(f"{dtype}\0".encode())
    digest.update(data)
    return digest.hexdigest()


class Store:
    """A run folder that is being written. Methods may be called from several threads.

    The first file that cannot be written ends the recording; later calls do nothing.

    path: the folder
    budget: limit for the bytes of tensors
    stored: bytes of tensors in the folder
    tensors: number of tensors in the folder
    ended: why the recording ended early, or None
    notes: what is missing from the folder, and how often
    about: further members of run.json

    Raises RecordingError if the folder is not empty or cannot be made.
    """

    def __init__(self, path: Path, budget: int, about: dict[str, Any]) -> None:
        self.path = path
        self.budget = budget
        self.stored = 0
        self.tensors = 0
        self.ended: str | None = None
        self.notes: dict[str, int] = {}
        self.about = about
        self._lock = threading.Lock()
        self._known: dict[str, bool] = {}
        self._waiting: list[str] = []
        self._waiting_bytes = 0
        try:
            if path.exists() and any(path.iterdir()):
                raise RecordingError(f"{path} is not empty; give torchport.record a new folder")
            for name in ("graphs", "kernels", "tensors"):
                (path / name).mkdir(parents=True, exist_ok=True)
            self._launches = os.open(path / "launches.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._write_run(complete=False, counts={})
        except OSError as error:
            raise RecordingError(f"cannot record into {path}: {error}") from error

    def note(self, text: str) -> None:
        """Note in run.json that something is missing; repeated notes are counted."""
        with self._lock:
            self.notes[text] = self.notes.get(text, 0) + 1

    def put_json(self, kind: str, name: str, value: Any, again: bool = False) -> None:
        """Write ``value`` as ``<kind>/<name>.json`` unless it exists. ``again``: replace it."""
        with self._lock:
            if (key := f"{kind}/{name}") in self._known and not again:
                return
            self._known[key] = True
            self._write(self.path / f"{key}.json", _json(value))

    def put_tensor(self, dtype: str, data: bytes) -> str | None:
        """Store the elements of a storage. ``dtype``: torch's name of the element type.

        Returns the hash, None if the budget is exceeded or the recording has ended.
        """
        name = content_hash(dtype, data)
        with self._lock:
            known = self._known.get(name)
            if known is not None:
                return name if known else None
            if self.ended is not None or self.stored + len(data) > self.budget:
                return None
            packed = save({"data": _elements(dtype, data)})
            self._known[name] = written = self._write(self.path / "tensors" / f"{name}.safetensors", packed)
            if written:
                self.stored += len(data)
                self.tensors += 1
            return name if written else None

    def fits(self, nbytes: int) -> bool:
        """Whether ``nbytes`` more of tensors are within the budget."""
        return self.ended is None and self.stored + nbytes <= self.budget

    def append(self, lines: Sequence[str], flush: bool = False) -> None:
        """Add lines to launches.jsonl, buffered unless ``flush``."""
        with self._lock:
            self._waiting += lines
            self._waiting_bytes += sum(map(len, lines))
            if flush or self._waiting_bytes > _BUFFERED:
                self._flush()

    def close(self, counts: dict[str, Any]) -> None:
        """Write buffered launches, and run.json with ``counts``."""
        with self._lock:
            self._flush()
            os.close(self._launches)
            ended, self.ended = self.ended, None
            if ended is not None:
                self.notes[f"recording ended early: {ended}"] = 1
            try:
                self._write_run(complete=ended is None, counts=counts)
            except OSError:  # the first run.json stays, which says that the folder is incomplete
                self.ended = ended

    def _flush(self) -> None:
        data = "".join(f"{line}\n" for line in self._waiting).encode()
        self._waiting, self._waiting_bytes = [], 0
        if self.ended is not None:
            return
        try:
            while data:
                data = data[os.write(self._launches, data) :]
        except OSError as error:
            self._end(error)

    def _write(self, path: Path, data: bytes) -> bool:
        if self.ended is not None:
            return False
        try:
            write_whole(path, data)
        except OSError as error:
            self._end(error)
            return False
        return True

    def _end(self, error: OSError) -> None:
        self.ended = f"{error.strerror or error} ({error.filename or self.path})"

    def _write_run(self, complete: bool, counts: dict[str, Any]) -> None:
        notes = [{"note": note, "times": times} for note, times in self.notes.items()]
        content = {"format": FORMAT, **self.about, "complete": complete, "notes": notes, "counts": counts}
        write_whole(self.path / "run.json", _json(content))


STORABLE = frozenset(
    getattr(torch, name)
    for name in (
        "bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "bfloat16",
        "float32", "float64", "float8_e4m3fn", "float8_e5m2", "complex64",
    )
)  # fmt: skip
"""Element types that every supported version of safetensors can store."""


def _elements(dtype: str, data: bytes | bytearray) -> torch.Tensor:
    kind = getattr(torch, dtype)
    return torch.frombuffer(bytearray(data), dtype=kind) if data else torch.empty(0, dtype=kind)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()

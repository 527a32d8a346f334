"""The state of an evaluation: one file a cell, written whole, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from torchport.errors import ArtifactError
from torchport.evaluation.suite import ModelSpec, Suite
from torchport.evaluation.targets import Column
from torchport.files import read_json, write_whole
from torchport.plugin import GROUP

__all__ = ["Cell", "State", "cells_of"]


@dataclass(frozen=True)
class Cell:
    """A model on a target.

    key: identifies what would be measured: a cell of another key is measured anew.
    """

    model: ModelSpec
    column: Column
    key: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.model.label} on {self.column.name}"


def cells_of(suite: Suite, columns: tuple[Column, ...], settings: Mapping[str, Any]) -> list[Cell]:
    """Every cell: the reference's of a model first, since others load the kernels that it compiles.

    settings: what else results depend on.
    """
    about = {"settings": dict(settings), "reference": suite.reference, "rounds": suite.rounds, "versions": _versions()}
    ordered = sorted(columns, key=lambda column: column.name != suite.reference)
    found = []
    for model in suite.models:
        for column in ordered:
            what = {**about, "model": vars(model), "files": _stamps(model), "target": column.name}
            text = json.dumps(what, sort_keys=True).encode()
            found.append(Cell(model, column, hashlib.sha256(text).hexdigest()[:24]))
    return found


@functools.cache
def _versions() -> dict[str, str]:
    """What measures: a cell that other versions measured is measured anew."""
    import torch
    import triton

    import torchport

    return {
        "torchport": torchport.__version__,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "sources": _sources(),
    }


_SHOWN = frozenset({"cli", "conformance"})
"""Folders of torchport that measure nothing of a cell."""


def _sources() -> str:
    """Hash of the code that measures and compiles: torchport, its passes, and every backend's package."""
    backends = {point.value.partition(":")[0].partition(".")[0] for point in entry_points(group=GROUP)}
    digest = hashlib.sha256()
    for name in sorted({"torchport", "torchport_passes", "torchport_simt", *backends}):
        spec = importlib.util.find_spec(name)
        for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
            for file in sorted(folder.rglob("*")):
                if file.suffix in _SUFFIXES and file.relative_to(folder).parts[0] not in _SHOWN:
                    digest.update(file.read_bytes())
    return digest.hexdigest()


_SUFFIXES = frozenset({".py", ".h", ".cpp", ".wgsl", ".json"})


def _stamps(model: ModelSpec) -> list[list[Any]]:
    """Sizes and times of a model's own files."""
    places = (model.make.rpartition(":")[0], model.weights, model.data, model.checkpoint)
    found = []
    for place in filter(None, places):
        path = Path(place)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [[str(one), *((s := one.stat()).st_size, s.st_mtime_ns)] for one in files if one.is_file()]
    return found


@dataclass(frozen=True)
class State:
    """The folder of an evaluation's cells."""

    folder: Path

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell; None if there is none, or one of something else."""
        path = self._path(cell)
        if not path.is_file():
            return None
        try:
            found: dict[str, Any] = read_json(path, dict[str, Any])
        except ArtifactError:
            return None  # it was damaged: the cell is measured again
        return found if found.get("key") == cell.key else None

    def write(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Keep a result. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"key": cell.key, "model_name": cell.model.label, "target": cell.column.name, **result}
        write_whole(self._path(cell), json.dumps(content, allow_nan=False).encode())

    def _path(self, cell: Cell) -> Path:
        name = hashlib.sha256(f"{cell.model.label}\0{cell.column.name}".encode()).hexdigest()[:16]
        return self.folder / f"{name}.json"

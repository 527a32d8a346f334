"""Writes and reads folders of artifacts: one file of machine code each, and a manifest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypedDict

from torchport.errors import ArtifactError
from torchport.files import read_bytes, read_json, write_whole
from torchport.inductor.kernels import Grid
from torchport.offline.compilation import Artifact
from torchport.plugin import Binary, Resources

__all__ = ["SCHEMA", "describe", "read", "read_manifest", "write", "write_whole"]

SCHEMA = "torchport.artifacts/2"
_MANIFEST = "manifest.json"


def write(folder: Path, artifacts: Sequence[Artifact], about: Mapping[str, Any]) -> Path:
    """Write the binaries, then the manifest, so that a folder with a manifest is complete. Returns its path.

    ``about``: facts on the model, the environment and the targets, as JSON values. Kernels that did not compile are
    listed with their error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for artifact in artifacts:
        entry = describe(artifact)
        if artifact.binary is not None:
            data = artifact.binary.data
            digest = hashlib.sha256(data).hexdigest()
            file = Path(artifact.target.replace(":", "-")) / f"{artifact.kernel}.{digest[:12]}.{artifact.binary.format}"
            (folder / file).parent.mkdir(exist_ok=True)
            write_whole(folder / file, data)
            entry |= {"file": str(file), "sha256": digest, "metadata": dict(artifact.binary.metadata)}
        entries.append(entry)
    manifest = folder / _MANIFEST
    content = {"schema": SCHEMA, **about, "artifacts": entries}
    write_whole(manifest, (json.dumps(content, indent=1) + "\n").encode())
    return manifest


def describe(artifact: Artifact) -> dict[str, Any]:
    """An artifact without its machine code, as JSON values."""
    binary = artifact.binary
    return {
        "kernel": artifact.kernel,
        "key": artifact.key,
        "target": artifact.target,
        "operations": list(artifact.operations),
        "error": artifact.error,
        "format": binary.format if binary is not None else "",
        "symbol": binary.symbol if binary is not None else "",
        "bytes": len(binary.data) if binary is not None else 0,
        "resources": asdict(binary.resources) if binary is not None else None,
        "blocks": dict(artifact.blocks),
        "simd_groups": artifact.simd_groups,
        "types": dict(artifact.types),
        "grid": asdict(artifact.grid) if artifact.grid is not None else None,
        "sizes": list(artifact.sizes),
        "limits": list(artifact.limits),
        "notes": list(artifact.notes),
        "cache_key": artifact.cache_key,
        "seconds": round(artifact.seconds, 4),
    }


class _Grid(TypedDict):
    sizes: list[Annotated[int, range(2**16)]]
    blocks: list[Annotated[int, range(1, 2**31)]]
    overflow: bool


class _Entry(TypedDict):
    kernel: str
    key: str
    target: str
    operations: tuple[str, ...]
    error: str
    format: Annotated[str, re.compile(r"\w{0,16}")]
    symbol: Annotated[str, re.compile(r"[\w.$]{0,4096}")]
    resources: Resources | None
    blocks: dict[str, int]
    simd_groups: int
    types: dict[str, str]
    grid: _Grid | None
    sizes: tuple[int, ...]
    limits: tuple[str, ...]
    notes: tuple[str, ...]
    cache_key: Annotated[str, re.compile(r"(?:[0-9a-f]{16,128})?")]
    seconds: float


class _Built(_Entry, total=False):
    """An entry; one that was compiled has all three."""

    file: str
    sha256: str
    metadata: dict[str, Any]


class _Target(TypedDict, total=False):
    compiler: str | None


class _About(TypedDict):
    schema: str


class Manifest(_About, total=False):
    """manifest.json, as far as it is read back."""

    targets: dict[str, _Target]
    artifacts: list[_Built]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder. Raises ArtifactError if it is missing, foreign or damaged."""
    manifest = folder / _MANIFEST
    if (schema := read_json(manifest, _About)["schema"]) != SCHEMA:
        raise ArtifactError(f"{manifest} has schema {schema[:40]!r}, not {SCHEMA!r}; build it again")
    return read_json(manifest, Manifest)


def read(folder: Path, target: str | None = None) -> list[Artifact]:
    """The artifacts in a folder, of one target or all. Those that did not compile have no binary.

    Raises ArtifactError for a missing or foreign manifest and for a file that does not match it.
    """
    entries = read_manifest(folder).get("artifacts", [])
    return [_artifact(folder, entry) for entry in entries if target is None or entry["target"] == target]


def _artifact(folder: Path, entry: _Built) -> Artifact:
    grid = entry["grid"]
    if grid is not None and (len(grid["sizes"]) != len(grid["blocks"]) or not 1 <= len(grid["sizes"]) <= 3):
        raise ArtifactError(f"{folder / _MANIFEST} is damaged: the grid of {entry['kernel']} has no 1 to 3 axes")
    if grid is not None and max(grid["sizes"]) >= len(entry["types"]):
        raise ArtifactError(f"{folder / _MANIFEST} is damaged: the grid of {entry['kernel']} needs more arguments")
    return Artifact(
        entry["kernel"],
        entry["target"],
        entry["operations"],
        entry["key"],
        error=entry["error"],
        binary=_binary(folder, entry) if "file" in entry else None,
        blocks=entry["blocks"],
        simd_groups=entry["simd_groups"],
        types=entry["types"],
        grid=Grid(tuple(grid["sizes"]), tuple(grid["blocks"]), grid["overflow"]) if grid is not None else None,
        sizes=entry["sizes"],
        limits=entry["limits"],
        notes=entry["notes"],
        cache_key=entry["cache_key"],
        seconds=entry["seconds"],
    )


def _binary(folder: Path, entry: _Built) -> Binary:
    file = folder / entry["file"]
    resources = entry["resources"]
    if Path(entry["file"]).is_absolute() or ".." in Path(entry["file"]).parts:
        raise ArtifactError(f"{folder / _MANIFEST} names a file outside its folder: {entry['file']}")
    if resources is None or "sha256" not in entry or "metadata" not in entry:
        raise ArtifactError(f"{folder / _MANIFEST} is damaged: kernel {entry['kernel']} is not described whole")
    try:
        data = read_bytes(file)
    except OSError as error:
        raise ArtifactError(f"{file} is missing: {error.strerror or error}; build it again") from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ArtifactError(f"{file} was changed since it was built; build it again")
    return Binary(data, entry["format"], entry["symbol"], resources, entry["metadata"])

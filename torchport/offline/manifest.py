"""Writes and reads folders of artifacts: one file of machine code each, and a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchport.errors import ArtifactError
from torchport.files import write_whole
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


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder. Raises ArtifactError if it is missing or foreign."""
    manifest = folder / _MANIFEST
    try:
        content = json.loads(manifest.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{manifest} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ArtifactError(f"{manifest} is not a manifest of this torchport (schema {SCHEMA}); build it again")
    return content


def read(folder: Path, target: str | None = None) -> list[Artifact]:
    """The artifacts in a folder, of one target or all. Those that did not compile have no binary.

    Raises ArtifactError for a missing or foreign manifest and for a file that does not match it.
    """
    content = read_manifest(folder)
    try:
        return [_artifact(folder, e) for e in content["artifacts"] if target is None or e["target"] == target]
    except (KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ArtifactError(f"{folder / _MANIFEST} is damaged ({what}); build it again") from error


def _artifact(folder: Path, entry: Mapping[str, Any]) -> Artifact:
    grid = entry["grid"]
    return Artifact(
        entry["kernel"],
        entry["target"],
        tuple(entry["operations"]),
        entry["key"],
        error=entry["error"],
        binary=_binary(folder, entry) if "file" in entry else None,
        blocks=entry["blocks"],
        simd_groups=entry["simd_groups"],
        types=entry["types"],
        grid=Grid(tuple(grid["sizes"]), tuple(grid["blocks"]), grid["overflow"]) if grid is not None else None,
        sizes=tuple(entry["sizes"]),
        limits=tuple(entry["limits"]),
        notes=tuple(entry["notes"]),
        cache_key=entry["cache_key"],
        seconds=entry["seconds"],
    )


def _binary(folder: Path, entry: Mapping[str, Any]) -> Binary:
    file = folder / entry["file"]
    if Path(entry["file"]).is_absolute() or ".." in Path(entry["file"]).parts:
        raise ArtifactError(f"{folder / _MANIFEST} names a file outside its folder: {entry['file']}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{file} is missing: {error.strerror}; build it again") from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ArtifactError(f"{file} was changed since it was built; build it again")
    return Binary(data, entry["format"], entry["symbol"], Resources(**entry["resources"]), entry["metadata"])

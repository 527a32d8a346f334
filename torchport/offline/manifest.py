"""Artifacts in a folder: one file of machine code each, and a manifest that says what they are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchport.errors import ArtifactError
from torchport.offline.compilation import Artifact

__all__ = ["SCHEMA", "describe", "read", "write", "write_whole"]

SCHEMA = "torchport.artifacts/1"
_MANIFEST = "manifest.json"


def write(folder: Path, artifacts: Sequence[Artifact], about: dict[str, Any]) -> Path:
    """Write the binaries, then the manifest (last and at once: a folder with one is complete). Returns its path.

    ``about``: facts on the model and the environment, JSON values. Kernels that did not compile are listed with their
    error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for artifact in artifacts:
        entry = describe(artifact)
        if artifact.binary:
            digest = hashlib.sha256(artifact.binary).hexdigest()
            file = Path(artifact.target.replace(":", "-")) / f"{artifact.kernel}.{digest[:12]}.{artifact.format}"
            (folder / file).parent.mkdir(exist_ok=True)
            write_whole(folder / file, artifact.binary)
            entry |= {"file": str(file), "sha256": digest, "bytes": len(artifact.binary)}
        entries.append(entry)
    manifest = folder / _MANIFEST
    content = {"schema": SCHEMA, **about, "artifacts": entries}
    write_whole(manifest, (json.dumps(content, indent=1) + "\n").encode())
    return manifest


def describe(artifact: Artifact) -> dict[str, Any]:
    """An artifact without its machine code, as JSON values."""
    return {name: value for name, value in asdict(artifact).items() if name != "binary"}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def read(folder: Path) -> list[dict[str, Any]]:
    """The manifest's entries; each with a file has its bytes as ``binary``.

    Raises ArtifactError for a missing or foreign manifest and for a file that is not what the manifest says.
    """
    manifest = folder / _MANIFEST
    try:
        content = json.loads(manifest.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{manifest} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ArtifactError(f"{manifest} is no list of artifacts of this torchport (schema {SCHEMA}); build it again")
    entries: list[dict[str, Any]] = content["artifacts"]
    for entry in entries:
        if "file" in entry:
            try:
                binary = (folder / entry["file"]).read_bytes()
            except OSError as error:
                raise ArtifactError(f"{folder / entry['file']} is missing: {error.strerror}; build it again") from error
            if hashlib.sha256(binary).hexdigest() != entry["sha256"]:
                raise ArtifactError(f"{folder / entry['file']} was changed since it was built; build it again")
            entry["binary"] = binary
    return entries

"""``torchport new-backend``: a package with a working backend, as a start for a vendor's own."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from torchport.errors import OptionError

__all__ = ["Kind", "new_backend", "write"]

Kind: TypeAlias = Literal["c", "triton", "linalg"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def new_backend(name: str, output: Path | None, *, kind: Kind) -> None:
    """Write the package and print the next steps."""
    folder = write(name, output or Path(f"torchport-{name}"), kind=kind)
    print(f"{folder} holds a working backend. Next:\n")
    print(f"  pip install --no-build-isolation -e {folder}\n  torchport targets\n  pytest {folder}/tests\n")
    print("Its README.md says what to change; docs/vendor-guide.md explains it.")


def write(name: str, folder: Path, *, kind: Kind = "c") -> Path:
    """Write a package for a backend called ``name`` to ``folder``, which must not exist.

    ``kind``: ``c`` is the integration path `simt` of docs/plugins.md, ``triton`` the path `triton`, ``linalg`` is for
    compilers that take linalg (docs/linalg.md).
    Raises OptionError for a name that is invalid or taken, or a folder that exists.
    """
    from jinja2 import Environment, StrictUndefined

    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise OptionError(f"{name!r} cannot be a backend's name: at most 40 of a-z, 0-9 and _, a letter first")
    _check_taken(name)
    if folder.exists() or folder.is_symlink():
        raise OptionError(f"{folder} is there already: give another folder with --output, or remove it")
    # Programs are full of braces, so templates use other marks.
    environment = Environment(
        variable_start_string="«", variable_end_string="»", undefined=StrictUndefined, keep_trailing_newline=True
    )
    words = {"name": name, "kind": "".join(part.capitalize() for part in name.split("_") if part) + "Backend"}
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for template in (files("torchport.cli") / "templates" / kind).iterdir():
            path = staging / _place(template.name.removesuffix(".j2"), name)
            path.parent.mkdir(exist_ok=True)
            text = environment.from_string(template.read_text(encoding="utf-8")).render(words)
            path.write_text(text, encoding="utf-8")
        staging.chmod(0o755)  # mkdtemp makes folders for one user only
        os.rename(staging, folder)
    except BaseException:
        shutil.rmtree(staging)
        raise
    return folder


def _check_taken(name: str) -> None:
    from torchport.plugin import registry

    if name in registry().names:
        raise OptionError(f"backend {name!r} is there already, from {registry().package(name)}: choose another name")
    if find_spec(f"torchport_{name}") is not None:
        raise OptionError(f"a package torchport_{name} exists already and is not a backend: choose another name")


def _place(file: str, name: str) -> str:
    """Where a template's file goes in the distribution."""
    if file == "test.py":
        return f"tests/test_{name}.py"
    return f"torchport_{name}/{file}" if file.endswith(".py") else file

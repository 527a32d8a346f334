"""``torchport new-backend``: a distribution with a backend that works, to be changed into a vendor's own."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from torchport.errors import OptionError

__all__ = ["new_backend", "write"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def new_backend(name: str, output: Path | None, *, triton: bool) -> None:
    """Write the distribution and say what to do with it."""
    folder = write(name, output or Path(f"torchport-{name}"), triton=triton)
    print(f"{folder} holds a backend that works; next:\n")
    print(f"  pip install --no-build-isolation -e {folder}\n  torchport targets\n  pytest {folder}/tests\n")
    print("Its README.md says what to change; docs/vendor-guide.md explains it.")


def write(name: str, folder: Path, *, triton: bool = False) -> Path:
    """Write a distribution for a backend called ``name`` into ``folder``, which must not exist; it appears whole.

    ``triton``: for a vendor with a Triton compiler (way a of docs/plugins.md), else for one with a language like C.
    Raises OptionError for a name that is not valid or taken, or a folder that is there.
    """
    from jinja2 import Environment, StrictUndefined

    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise OptionError(
            f"{name!r} cannot be a backend's name: small letters, digits and underscores, a letter first, at most 40"
        )
    _check_taken(name)
    if folder.exists() or folder.is_symlink():
        raise OptionError(f"{folder} is there already: give another folder with --output, or remove it")
    # Programs are full of braces: templates have other marks.
    environment = Environment(
        variable_start_string="«", variable_end_string="»", undefined=StrictUndefined, keep_trailing_newline=True
    )
    words = {"name": name, "kind": "".join(part.capitalize() for part in name.split("_") if part) + "Backend"}
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for template in (files("torchport.cli") / "templates" / ("triton" if triton else "c")).iterdir():
            path = staging / _place(template.name.removesuffix(".j2"), name)
            path.parent.mkdir(exist_ok=True)
            text = environment.from_string(template.read_text(encoding="utf-8")).render(words)
            path.write_text(text, encoding="utf-8")
        staging.chmod(0o755)  # mkdtemp's folders are for one user alone
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
        raise OptionError(f"there is a package torchport_{name} already, which is no backend: choose another name")


def _place(file: str, name: str) -> str:
    """Where a template's file goes in the distribution."""
    if file == "test.py":
        return f"tests/test_{name}.py"
    return f"torchport_{name}/{file}" if file.endswith(".py") else file

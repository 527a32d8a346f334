"""Facts about the installed PyTorch that need no import of it, which takes seconds."""

from __future__ import annotations

import functools
import runpy
from importlib.util import find_spec
from pathlib import Path

__all__ = ["built_for"]


@functools.cache
def built_for(platform: str) -> str | None:
    """The version of ``cuda`` or ``hip`` that the installed PyTorch was built for.

    None if it was built without, or if PyTorch is not installed.
    """
    spec = find_spec("torch")
    file = Path(spec.origin).parent / "version.py" if spec is not None and spec.origin is not None else None
    if file is None or not file.is_file():
        return None
    version: str | None = runpy.run_path(str(file)).get(platform)  # it only assigns constants
    return version

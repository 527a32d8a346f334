"""Where a package is written: checked before the work begins, and complete or not there at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchport.errors import OptionError

__all__ = ["check_files", "partial_files"]


def check_files(path: Path, beside: Path | None) -> None:
    """Raise OptionError if a package cannot be written to ``path``, with its weights in ``beside``."""
    if not path.parent.is_dir():
        raise OptionError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.is_dir() or (beside is not None and beside.is_dir()):
        raise OptionError(f"{path if path.is_dir() else beside} is a folder; name a file in it, such as model.tpz")
    if beside is None:
        return
    if beside.resolve().parent != path.resolve().parent:
        raise OptionError(f"{beside} must be in the folder of {path}, where it is looked for")
    if beside.name == path.name:
        raise OptionError(f"{path} cannot be the package and the file of its weights; give the weights another name")


@contextmanager
def partial_files(path: Path, beside: Path | None) -> Iterator[tuple[Path, Path]]:
    """Names for the package and the weights until they are complete; another process may write them at the same time.

    What is there when the context closes is removed. Raises OSError, which names ``path``.
    """
    label = secrets.token_hex(4)
    partial = [one.with_name(f".{one.name}.{label}.partial") for one in (path, beside or path.with_suffix(".weights"))]
    try:
        yield partial[0], partial[1]
    except OSError as error:  # such as a full disk
        if error.filename is None or Path(error.filename) in partial:
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        for one in partial:
            one.unlink(missing_ok=True)

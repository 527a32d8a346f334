"""A user's model or function, named FILE.py:FUNCTION."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torchport.errors import OptionError

__all__ = ["load_function", "load_model"]


def load_model(model: str) -> tuple[Any, Sequence[Any]]:
    """Call FUNCTION of FILE.py; returns a module or function, and its inputs. Raises OptionError."""
    result = load_function(model)()
    if not (
        isinstance(result, tuple) and len(result) == 2 and callable(result[0]) and isinstance(result[1], (tuple, list))
    ):
        raise OptionError(f"{model} must return (model, inputs): a module or function, and a tuple of its inputs")
    return result[0], result[1]


def load_function(place: str) -> Callable[..., Any]:
    """The function FUNCTION of FILE.py. Raises OptionError."""
    file, _, name = place.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise OptionError(f"{place!r} names no file; expected FILE.py:FUNCTION, such as models/bert.py:make")
    function = getattr(_import(path), name, None)
    if not callable(function):
        raise OptionError(f"{path} has no function {name!r}")
    return cast(Callable[..., Any], function)


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and Dynamo look a class's module up there
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module

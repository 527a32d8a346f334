"""The compilers that are compared: which are here, and how a model or a function is compiled with one."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EAGER, INDUCTOR, TORCHPORT, OPENVINO = "eager", "inductor", "torchport", "openvino"
BACKENDS = (EAGER, INDUCTOR, TORCHPORT, OPENVINO)
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR")


def missing(backend: str) -> str | None:
    """Why a backend cannot be measured on this machine; None where it can."""
    if backend == INDUCTOR and not any(shutil.which(c) for c in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        return "no C++ compiler on PATH: Inductor's C++ backend needs one"
    package = {TORCHPORT: "torchport.compile", OPENVINO: "openvino.torch"}.get(backend)
    if package is None:
        return None
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    return None if found else f"{package.split('.')[0]} is not installed"


def cache_environment(folder: Path) -> dict[str, str]:
    """Environment variables that put every compiler cache under `folder`."""
    return {name: str(folder / name.removesuffix("_CACHE_DIR").lower()) for name in CACHES}


@contextmanager
def caches(folder: str | None) -> Iterator[None]:
    """Point this process's compilers at the caches under `folder` for a while."""
    before = {name: os.environ.get(name) for name in CACHES}
    if folder is not None:
        os.environ.update(cache_environment(Path(folder)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def compiled(backend: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled by `backend`; eager's is the function itself."""
    import torch

    if backend == EAGER:
        return function
    if backend == OPENVINO:
        import openvino.torch  # noqa: F401  (registers the backend)
    return torch.compile(function, backend=backend)

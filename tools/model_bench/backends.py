"""The compilers that are compared: which are here, and how a model or a function is compiled with one."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EAGER, INDUCTOR, TORCHPORT, OPENVINO, FLOOR = "eager", "inductor", "torchport", "openvino", "floor"
BACKENDS = (EAGER, INDUCTOR, TORCHPORT, OPENVINO)
"""Those measured if nothing is asked for. FLOOR is Dynamo and AOTAutograd alone, the graph run eagerly."""
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


PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""OpenVINO's names. It takes the fastest type of the CPU if none is asked for, whatever the model's type."""


def compiled(backend: str, function: Callable[..., Any], dtype: str, threads: int) -> Callable[..., Any]:
    """`function` compiled by `backend`; eager's is the function itself.

    `dtype` and `threads` are what OpenVINO computes in and with; the others follow the tensors and torch's threads.
    """
    import torch

    if backend == EAGER:
        return function
    if backend == OPENVINO:
        import openvino.torch  # noqa: F401  (registers the backend)

        hints = {"INFERENCE_PRECISION_HINT": PRECISIONS[dtype], "INFERENCE_NUM_THREADS": threads}
        # Without AOTAutograd it fails on images and on Llama: torch 2.13's Dynamo has no parameters in the graph.
        return torch.compile(function, backend=backend, options={"aot_autograd": True, "config": hints})
    return torch.compile(function, backend="aot_eager" if backend == FLOOR else backend)


def left_to_torch() -> list[str]:
    """What OpenVINO did not compute in the calls so far: its backend hands it to eager PyTorch without a word."""
    from openvino.frontend.pytorch.torchdynamo import execute

    if not execute.partitioned_modules:
        return ["OpenVINO computed nothing of it: its backend gave the graph to Inductor"]
    lines = []
    for module in execute.partitioned_modules.values():
        nodes = list(module.graph.nodes)
        called = [str(node.target) for node in nodes if node.op in ("call_function", "call_method")]
        eager = sorted({name for name in called if "getitem" not in name})
        parts = [module.get_submodule(node.target) for node in nodes if node.op == "call_module"]
        failed = sum(bool(getattr(part, "perm_fallback", True)) for part in parts)
        if eager or failed or not parts:
            lines.append(
                f"OpenVINO left {failed} of {len(parts)} parts to eager PyTorch, and {', '.join(eager) or 'no'} calls"
            )
    return lines

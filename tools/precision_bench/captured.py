"""Problems out of real models: kernels that torchport generated for them, on the activations that went through them."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from model_zoo import build

import torchport
from precision_bench.problems import Problem
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.causes import functions_of
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.numerics.verdicts.replay import Replay

__all__ = ["launches_of", "model", "problem_of", "record", "shape_of"]

_LONGEST = 1 << 20
"""Elements of a launch's largest storage, at most: beyond, a problem takes minutes."""


def model(name: str, dtype: torch.dtype, train: bool) -> Callable[[], None]:
    """A call of a model of the zoo, compiled by torchport."""
    torch._dynamo.reset()
    built = build(name, "small", dtype)
    return functools.partial(built.step, torch.compile(built.module, backend="torchport", dynamic=False), train)


def record(call: Callable[[], object], folder: Path) -> Run:
    """A run of one call, with all that went through its kernels."""
    call()
    with torchport.record(folder, "full", budget="8G"):
        call()
    return Run.load(folder)


def launches_of(run: Run) -> Iterator[Launch]:
    """Launches of kernels that write floats: one of each kernel with these shapes, and none of the largest."""
    seen = set()
    for launch in run.launches:
        written = [arg for arg in launch.args if arg.role in ("out", "inout")]
        shapes = tuple(arg.shape for arg in launch.args)
        if launch.kind != "kernel" or (launch.kernel, shapes) in seen:
            continue
        floats = any(getattr(torch, str(arg.dtype)).is_floating_point for arg in written)
        if floats and max(math.prod(arg.shape) for arg in launch.args if arg.dtype is not None) <= _LONGEST:
            seen.add((launch.kernel, shapes))
            yield launch


def problem_of(run: Run, launch: Launch, source: str) -> Problem:
    """The launch as a problem. Raises NotReplayable where something was not kept."""
    replay, storages, outputs = replay_of(run, launch)
    text = replay.ttir
    traits = {"gradient"} | {name for name, op in (("sum", "tt.reduce"), ("dot", "tt.dot")) if op in text}
    shorter = _shorter(text)
    return Problem(
        f"{source}: {run.kernels[str(launch.kernel)]['function']}",
        replay,
        storages,
        tuple(outputs),
        frozenset(traits),
        shorter=Replay(shorter, replay.arguments, replay.grid) if shorter is not None else None,
        functions=tuple(sorted(functions_of(text) - {"div", "sqrt"})),
    )


def shape_of(problem: Problem) -> tuple[int, int]:
    """Elements of the largest output, and terms of a sum that makes one (what is read over what is written)."""
    written = max(math.prod(one.shape) for one in problem.outputs)
    read = max(math.prod(one.shape) for one in problem.replay.arguments if one.storage is not None)
    return written, max(1, read // written)


def _shorter(text: str) -> str | None:
    """The kernel with its first mask that is a comparison with a constant one element short; None without a mask."""
    limits: Mapping[str, tuple[int, str]] = {
        name: (int(value), type_)
        for name, value, type_ in re.findall(r"(%\S+) = arith\.constant dense<(\d+)> : (tensor<\S+xi(?:32|64)>)", text)
    }
    for found in re.finditer(r"^(\s*%\S+ = arith\.cmpi slt, %\S+, )(%\S+) :.*$", text, re.MULTILINE):
        if found[2] in limits:
            value, type_ = limits[found[2]]
            line = f"%one_less = arith.constant dense<{value - 1}> : {type_}\n"
            return text[: found.start()] + line + found[1] + "%one_less" + text[found.end(2) :]
    return None

"""Each kernel of a model of the zoo, with two block sizes."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from model_zoo import build

import torchport
from torchport.errors import TorchportError
from torchport.inductor.codegen import choices
from torchport.inductor.quarantined import fitted
from torchport.numerics.algebra.equivalence import NOT_PROVABLE, Equivalence, equivalence
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.numerics.runs.reader import Launch, Run
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.precision.case import case_of, with_blocks
from torchport.triton.source import triton_kernel
from torchport.triton.ttir import ttir_from

__all__ = ["Compared", "compared", "kernels", "recorded"]


@dataclass(frozen=True)
class Compared:
    """A kernel with two block sizes. ``how``: where the second came from; ``seconds``: of processor time."""

    function: str
    how: str
    found: Equivalence
    seconds: float


def recorded(name: str, folder: Path, *, other: bool = False, dtype: torch.dtype = torch.float32) -> Run:
    """A forward pass of a small model, all of it. ``other``: reductions loop, and blocks are a quarter."""
    torch._dynamo.reset()
    built = build(name, "small", dtype)
    state = copy.deepcopy(built.module.state_dict())
    compiled = torch.compile(built.module, backend="torchport", options={"target": "cpu"}, dynamic=False)
    with ExitStack() as stack:
        if other:
            stack.enter_context(mock.patch.object(choices, "PERSISTENT", 0))
            stack.enter_context(mock.patch.object(choices, "POINTWISE", choices.POINTWISE // 4))
            stack.enter_context(torch._inductor.config.patch(force_disable_caches=True))
        built.step(compiled, False)
    built.module.load_state_dict(state)
    torch.manual_seed(0)
    with torchport.record(folder, "full", budget="16G", overhead=math.inf):
        built.step(compiled, False)
    return Run.load(folder, trust=True)


def kernels(run: Run) -> Iterator[Launch]:
    """The first launch of each kernel."""
    seen = set()
    for launch in sorted(run.launches, key=lambda launch: launch.seq):
        if launch.kernel is not None and launch.kernel not in seen:
            seen.add(launch.kernel)
            yield launch


def compared(name: str, seeds: int = 1) -> Iterator[Compared]:
    """Each kernel of a model with its largest block halved, or, where it has none, from the other recording."""
    with tempfile.TemporaryDirectory() as folder:
        run = recorded(name, Path(folder) / "a")
        others: dict[frozenset[str], Launch] | None = None
        for launch in kernels(run):
            start = time.process_time()
            function = run.kernels[str(launch.kernel)]["function"]
            try:
                how, found = "half", _halved(run, launch, seeds)
                if found is None:
                    if others is None:
                        other = recorded(name, Path(folder) / "b", other=True)
                        others = {frozenset(one.nodes): one for one in kernels(other)}
                        start = time.process_time()
                    how, found = "looped", _looped(run, launch, other, others.get(frozenset(launch.nodes)), seeds)
            except TorchportError as error:
                found = Equivalence(NOT_PROVABLE, str(error))
            yield Compared(function, how, found, time.process_time() - start)


def _halved(run: Run, launch: Launch, seeds: int) -> Equivalence | None:
    """Its largest block halved; None if it has no block."""
    case = case_of(run, launch)
    kernel = triton_kernel(case.function, case.source)
    blocks = fitted(kernel.blocks, 1)
    if blocks == dict(kernel.blocks):
        return None
    smaller = with_blocks(case, blocks)
    ttir = ttir_from(kernel.source(blocks), kernel.options)
    variant = AlgebraLaunch(ttir, smaller.arguments, smaller.grid, case.storages)
    return equivalence(AlgebraLaunch.of(case.replay, case.storages), variant, seeds)


def _looped(run: Run, launch: Launch, other: Run, variant: Launch | None, seeds: int) -> Equivalence:
    """The kernel that computes the same nodes in another recording."""
    if variant is None:
        return Equivalence(NOT_PROVABLE, "no other kernel computes the same nodes")
    first, second = (replay_of(*pair) for pair in ((run, launch), (other, variant)))
    a, b = (AlgebraLaunch.of(replay, storages) for replay, storages, _ in (first, second))
    if [(one.name, one.storage) for one in a.arguments] != [(one.name, one.storage) for one in b.arguments]:
        return Equivalence(NOT_PROVABLE, "the other kernel has other arguments")
    return equivalence(a, b, seeds)

"""Exports every kernel of models of the zoo as linalg, runs each launch on both lowerings, and counts.

    python tools/linalg_coverage.py [--models bert,swin] [--train] [--iree PATH] [--ascend PATH]

Each launch of a model's first run on the CPU target is repeated on copies of its arguments by target ``linalg``:
equal (bits), close (floats within a bound of their type, relative to the largest), different, or refused with a reason.
``--iree`` and ``--ascend``: ``iree-opt`` reads ``linalg``, ``triton-adapter-opt`` ``linalg:ascend`` of each kernel.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).parent))

from model_zoo import build, entries

from torchport.errors import TorchportError, UnsupportedOperation
from torchport.inductor import kernels
from torchport.inductor.capture import without_graph_caches
from torchport.plugin import Binary

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@dataclass
class Counts:
    """What was found. ``accesses``: verdicts by operation and reason; ``worst``: kernels that are different."""

    verdicts: Counter[str] = field(default_factory=Counter)
    accesses: Counter[tuple[str, str]] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    worst: list[str] = field(default_factory=list)


class Second:
    """One kernel on the second lowering."""

    def __init__(self, counts: Counts, tools: dict[str, str], name: str, types: Any, grid: Any, source: str) -> None:
        self.counts, self.name = counts, name
        self.launch: Any = None
        try:
            packed = kernels.compile_kernel(name, source, "linalg")
            binary = Binary.unpack(packed)
            for operation, reason, count in binary.metadata["accesses"]:
                counts.accesses[operation, reason] += count
            for target, command in tools.items():
                text = Binary.unpack(kernels.compile_kernel(name, source, target)).data
                done = subprocess.run([command, "-"], input=text, capture_output=True, check=False)
                counts.tools[f"{target}: {'read' if done.returncode == 0 else 'not read'}"] += 1
                if done.returncode:
                    counts.worst.append(f"{name}: {done.stderr.decode()[:300]}")
            launcher, function = kernels._load(packed, "linalg", types)
            self.launch = kernels.bound_launch(launcher, function, grid)
        except UnsupportedOperation as error:
            counts.verdicts[f"refused: {error.operation}: {error.reason}"] += 1
        except TorchportError as error:
            counts.verdicts["fails"] += 1
            counts.worst.append(f"{name}: {str(error)[:300]}")

    def judge(self, before: list[Any], after: list[Any]) -> None:
        """Launch on the arguments before the other launch, and compare with what they are after it."""
        self.launch(*before)
        verdict = "equal"
        for one, other in zip(after, before, strict=True):
            if isinstance(one, torch.Tensor) and not _same(one, other):
                bound = BOUNDS.get(one.dtype)
                a, b = one.double(), other.double()
                error = (a - b).abs().nan_to_num(0.0, 0.0).max().item() if bound else torch.inf
                size = a.abs().nan_to_num(0.0, 0.0, 0.0).max().item()
                placed = torch.equal(a.isfinite(), b.isfinite())
                verdict = "close" if bound and placed and error <= bound * max(size, 1e-30) else "different"
                if verdict == "different":
                    self.counts.worst.append(f"{self.name}: {one.dtype} error {error:.3g} of {size:.3g}")
                    break
        self.counts.verdicts[verdict] += 1


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the bits are the same, NaN included."""
    bytes_ = [one.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8) for one in (a, b)]
    return torch.equal(*bytes_)


def _copied(args: Any) -> list[Any]:
    """The arguments with each storage copied once, so that what shares memory goes on sharing it."""
    storages: dict[int, torch.Tensor] = {}

    def copied(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        storage = value.untyped_storage()
        if storage.data_ptr() not in storages:
            whole = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),))
            storages[storage.data_ptr()] = whole.clone()
        held = storages[storage.data_ptr()].untyped_storage()
        made = torch.empty(0, dtype=value.dtype)
        return made.set_(held, value.storage_offset(), value.shape, value.stride())

    return [copied(value) for value in args]


def run(name: str, train: bool, dtype: torch.dtype, tools: dict[str, str]) -> Counts:
    """One model's kernels."""
    counts, original, seen = Counts(), kernels.load_kernel, set()

    def load(kernel: str, key: str, target: str, types: Any, grid: Any, source: str) -> Any:
        loaded = original(kernel, key, target, types, grid, source)
        if key not in seen:
            seen.add(key)
            second, launch = Second(counts, tools, kernel, types, grid, source), loaded.launch
            judged = [second.launch is None]

            def both(*args: Any) -> None:
                before = None if judged[0] else _copied(args)
                launch(*args)
                if before is not None:
                    judged[0] = True
                    second.judge(before, [a.detach() if isinstance(a, torch.Tensor) else a for a in args])

            loaded.launch = both
        return loaded

    torch._dynamo.reset()
    with mock.patch.object(kernels, "load_kernel", load), without_graph_caches():
        built = build(name, "small", dtype, train=train)
        compiled = torch.compile(built.module, backend="torchport", options={"target": "cpu"}, dynamic=False)
        built.step(compiled, train)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--iree", default="")
    parser.add_argument("--ascend", default="")
    options = parser.parse_args()
    tools = {target: path for target, path in (("linalg", options.iree), ("linalg:ascend", options.ascend)) if path}
    total = Counts()
    for name in options.models.split(",") if options.models else entries():
        counts = run(name, options.train, getattr(torch, options.dtype), tools)
        print(name, dict(counts.verdicts), dict(counts.tools), *counts.worst, sep="\n  ", flush=True)
        total.verdicts += counts.verdicts
        total.accesses += counts.accesses
        total.tools += counts.tools
    number = sum(total.verdicts.values())
    print(f"\n{number} kernels")
    for verdict, count in total.verdicts.most_common():
        print(f"{count:5} {100 * count / number:5.1f} %  {verdict}")
    for (operation, reason), count in total.accesses.most_common():
        print(f"{count:5}  {operation}: {reason or 'structured'}")
    print(*(f"{count:5}  {tool}" for tool, count in total.tools.items()), sep="\n")


if __name__ == "__main__":
    main()

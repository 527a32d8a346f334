"""Cases of determinism: the same input must give the same bits, in this process and in others."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from torchport.compat import reset_dynamo
from torchport.conformance.case import Bench, Case, Measured, Wrong
from torchport.conformance.cases.graphs import compiled
from torchport.conformance.values import draw
from torchport.plugin import backend_for
from torchport.target import Target

__all__ = ["cases", "main"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "pointwise": lambda x, y: torch.exp(x) * torch.sin(y) / (1 + y * y),
    "reduction": lambda x, y: (x * y).sum() + x.sum(0) + y.mean(),
    "softmax": lambda x, y: torch.softmax(x, 1) @ y.t(),
    "layer_norm": lambda x, y: torch.nn.functional.layer_norm(x + y, (257,)),
}
_SHAPE = (67, 257)
_REPEATS = 10


def cases() -> Iterator[Case]:
    """All cases of this file."""
    for op in FUNCTIONS:
        yield Case("determinism", f"{op}_again", "fp32", _SHAPE, "randn", _again(op), ("fp32",))
        full = "full"
        yield Case("determinism", f"{op}_recompiled", "fp32", _SHAPE, "randn", _recompiled(op), ("fp32",), full)
        yield Case("determinism", f"{op}_other_process", "fp32", _SHAPE, "randn", _other_process(op), ("fp32",), full)


def _digest(bench: Bench, op: str) -> str:
    """A hash of the bits of ``op``'s result, compiled anew."""
    reset_dynamo()
    x, y = draw("fp32", _SHAPE, "randn", "x"), draw("fp32", _SHAPE, "randn", "y")
    result = compiled(bench, FUNCTIONS[op])(x, y)
    return hashlib.sha256(result.contiguous().numpy().tobytes()).hexdigest()


def _again(op: str) -> Any:
    def run(bench: Bench) -> Measured:
        x, y = draw("fp32", _SHAPE, "randn", "x"), draw("fp32", _SHAPE, "randn", "y")
        function = compiled(bench, FUNCTIONS[op])
        first = function(x, y).clone()
        for number in range(2, _REPEATS + 1):
            other = function(x, y)
            if not torch.equal(first.view(torch.int32), other.view(torch.int32)):
                raise Wrong(f"run {number} differs in {int((first != other).sum())} of {first.numel()} elements")
        return Measured()

    return run


def _recompiled(op: str) -> Any:
    def run(bench: Bench) -> Measured:
        if _digest(bench, op) != _digest(bench, op):
            raise Wrong("compiled again, the same function gave other bits")
        return Measured()

    return run


def _other_process(op: str) -> Any:
    def run(bench: Bench) -> Measured:
        threads = str(torch.get_num_threads())
        command = [sys.executable, "-m", "torchport.conformance.cases.determinism", str(bench.target), op, threads]
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        if other.returncode:
            raise Wrong(f"the other process ended with status {other.returncode}: {other.stderr.strip()[-200:]}")
        if other.stdout.split()[-1] != _digest(bench, op):
            raise Wrong("another process gave other bits")
        return Measured()

    return run


def main(arguments: list[str]) -> None:
    """Print the hash of a result. ``arguments``: TARGET OP THREADS."""
    target = Target.parse(arguments[0])
    torch.set_num_threads(int(arguments[2]))
    print(_digest(Bench(target, backend_for(target).capabilities(target)), arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])

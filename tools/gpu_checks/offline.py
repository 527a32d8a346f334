"""Kernels that were compiled offline, launched, and compared bit by bit with what is predicted.

The kernels are captured on the CPU, compiled for the target, written, loaded, and run without a compiler. Where
``predict --bits`` knows the bits they must be equal; elsewhere the distance is listed. Exit status 1: a bit differs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from gpu_checks.rows import Rows, arguments
from gpu_checks.running import SKIPPED
from torchport.offline import capture, compile_kernel, load, write
from torchport.precision.bits import predict_bits
from torchport.target import Target

_FAR = 1e-2  # of the largest result: bfloat16's rounding, which one case has, is 2^-8 of it
_Function = Callable[..., torch.Tensor]
CASES: dict[str, tuple[_Function, tuple[tuple[int, ...], ...]]] = {
    "sum and relu": (lambda x, y: (x + y).relu(), ((48, 33), (48, 33))),
    "broadcast": (lambda x, y: x - y, ((48, 33), (33,))),
    "transpose": (lambda x: x.t().contiguous() + 1, ((48, 33),)),
    "half": (lambda x: (x + 1).half().float(), ((1000,),)),
    "bfloat16": (lambda x: x.bfloat16().float() - x, ((1000,),)),
    "largest": (lambda x: x.amax(-1), ((64, 257),)),
    "sum of rows": (lambda x: x.sum(-1), ((64, 257),)),
    "softmax": (lambda x: torch.softmax(x, -1), ((64, 257),)),
    "layer norm": (lambda x: torch.nn.functional.layer_norm(x, (257,)), ((64, 257),)),
}


def _refuse(*arguments: Any, **keywords: Any) -> Any:
    raise AssertionError("something was compiled")


def measured(function: _Function, inputs: Sequence[torch.Tensor], target: Target, device: str) -> torch.Tensor | str:
    """The function's one kernel, compiled offline and launched; or why it cannot be launched so."""
    captured = capture(function, tuple(inputs))
    if len(captured.kernels) != 1:
        return f"{len(captured.kernels)} kernels"
    wanted = function(*inputs)
    with tempfile.TemporaryDirectory() as folder:
        artifact = compile_kernel(captured.kernels[0], target)
        write(Path(folder), [artifact], {})
        with mock.patch("triton.compile", _refuse), mock.patch("triton.compiler.compiler.compile", _refuse):
            (kernel,) = load(folder, target).values()
            moved = [one.to(device) for one in inputs]
            out = torch.full_like(wanted, torch.nan, device=device)
            kernel.launch(*moved, out, *kernel.artifact.sizes)
    return out.cpu()


def row(name: str, chosen: Any) -> dict[str, Any]:
    """What is predicted and measured of a case."""
    function, shapes = CASES[name]
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    [chip] = predict_bits(function, inputs, [chosen.profile])
    [predicted] = chip.outputs
    found = measured(function, inputs, Target.parse(chosen.target), chosen.device)
    if isinstance(found, str):
        return {"skipped": found}
    bits = torch.tensor([int(one, 16) for one in predicted.bits], dtype=torch.int64)
    own = found.contiguous().view(torch.int32).flatten().long() & 0xFFFFFFFF
    exact = function(*(one.double() for one in inputs)).flatten()
    scale = exact.abs().max()
    return {
        "known": predicted.known,
        "unknown": list(predicted.unknown),
        "same": int((bits == own).sum()),
        "of": bits.numel(),
        "furthest_from_float64": float(((found.flatten().double() - exact).abs() / scale).max()),
    }


def _is_wrong(one: dict[str, Any]) -> bool:
    differs = one.get("known") and one["same"] != one["of"]
    return "error" in one or bool(differs) or one.get("furthest_from_float64", 0.0) > _FAR


def main(given: Sequence[str] | None = None) -> int:
    """Run the cases that are not in the file yet. Returns the exit status."""
    chosen = arguments(__doc__, given)
    rows = Rows(chosen.out)
    if not chosen.profile:
        rows.write(skipped=f"no profile describes the arithmetic of {chosen.target}")
        return SKIPPED
    for name in list(CASES)[: 3 if chosen.quick else None]:
        if name in rows:
            continue
        try:
            rows.put(name, row(name, chosen))
        except Exception as error:  # noqa: BLE001 a target's compiler or launcher can raise anything; others go on
            rows.put(name, {"error": f"{type(error).__name__}: {error}"[:400]})
        print(name, rows.rows[name], flush=True)
    wrong = [name for name, one in rows.rows.items() if _is_wrong(one)]
    launched = sum("of" in one for one in rows.rows.values())
    known = sum(bool(one.get("known")) for one in rows.rows.values())
    rows.write(summary=f"{launched} kernels launched, {known} with known bits")
    if wrong:
        rows.write(failed=f"{', '.join(wrong)}: not what is predicted")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

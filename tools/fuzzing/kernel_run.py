"""Compile and launch a random kernel, and compare all memory that it may write with the reference."""

from __future__ import annotations

import contextlib
import linecache
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fuzzing.formats import FLOATS, to_numpy, to_torch, torch_dtype
from fuzzing.kernel_program import Program
from fuzzing.outcome import DIFFERS, ERROR, REFUSED, SAME, UNKNOWN, Outcome
from fuzzing.values import Unknown, Value, difference


def build(source: str) -> Any:
    """The Triton function of a text whose last function is `kernel`."""
    import triton
    import triton.language as tl
    from triton.language.extra import libdevice

    name = f"<fuzz {abs(hash(source))}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"tl": tl, "triton": triton, "libdevice": libdevice, "__name__": __name__}
    exec(compile(source, name, "exec"), scope)
    return scope["kernel"]


@contextlib.contextmanager
def _target(name: str, sanitized: bool) -> Iterator[None]:
    import torchport

    with contextlib.ExitStack() as stack:
        if name != "cpu":
            stack.enter_context(torchport.use(name))
        if sanitized:
            stack.enter_context(torchport.sanitize())
        yield


def run(program: Program, target: str, sanitized: bool = False) -> Outcome:
    """What the kernel does on a target."""
    from triton.errors import TritonError

    from torchport.errors import TorchportError

    try:
        wanted = expected(program)
    except Unknown as reason:
        return Outcome(UNKNOWN, str(reason))
    inputs = {i.name: to_torch(i.storage, i.dtype) for i in program.used_inputs()}
    scratches = [torch.zeros(size, dtype=torch_dtype(dtype)) for dtype, size in program.scratches().values()]
    outputs = [
        inputs[o.name] if o.in_place else to_torch(_initial(o.dtype, _count(program, o)), o.dtype)
        for o in program.outputs
    ]
    written = [t for t, o in zip(outputs, program.outputs, strict=True) if not o.in_place]
    try:
        with _target(target, sanitized):
            build(program.source())[(program.grid,)](
                *inputs.values(), *scratches, *written, *program.numbers().values()
            )
    except (TorchportError, TritonError) as error:
        return Outcome(REFUSED, _reason(error))
    except Exception:  # noqa: BLE001 - any exception is a finding
        return Outcome(ERROR, traceback.format_exc()[-1500:])
    for output, got, want in zip(program.outputs, outputs, wanted, strict=True):
        if wrong := difference(want, to_numpy(got)):
            return Outcome(DIFFERS, f"{output.name} ({output.dtype}): {wrong}")
    return Outcome(SAME)


def _reason(error: BaseException) -> str:
    """The innermost error's last line, which is the cause in Triton's errors, too."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]


def _count(program: Program, output: Any) -> int:
    return int(output.layout.size * (program.grid if output.atomic else 1))


def _initial(dtype: str, count: int) -> Any:
    """What outputs hold before the launch."""
    if dtype in FLOATS:
        return np.full(count, 7.0)
    return np.ones(count, bool) if dtype == "int1" else np.full(count, 7, np.dtype(dtype))


ATOMICS = {
    "add": np.add, "max": np.maximum, "min": np.minimum, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}  # fmt: skip


def expected(program: Program) -> list[Value]:
    """The outputs' storages after the launch."""
    environments = program.evaluate()
    values = []
    for output in program.outputs:
        count = _count(program, output)
        data, error = _initial(output.dtype, count), np.zeros(count)
        if output.in_place:
            data = next(i.storage for i in program.inputs if i.name == output.name).copy()
            error = np.zeros(data.size)
        for pid, environment in enumerate(environments):
            value = environment[output.value]
            if output.atomic is not None:
                assert output.index is not None
                index = (environment[output.index].exact & (output.layout.size - 1)).astype(np.int64)
                with np.errstate(over="ignore"):
                    ATOMICS[output.atomic].at(data, index + pid * output.layout.step.value, value.exact)
                continue
            inside = output.layout.inside()
            data[output.layout.positions(pid)[inside]] = value.data[inside]
            error[output.layout.positions(pid)[inside]] = value.errors[inside]
        values.append(Value(output.dtype, data, error))
    return values

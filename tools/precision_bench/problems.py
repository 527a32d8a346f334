"""Problems to be judged: a kernel with the arguments of one launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from torchport.numerics.verdicts.replay import Argument, Replay
from torchport.plugin import backend_for
from torchport.target import Target

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8e4nv": torch.float8_e4m3fn}
DISTRIBUTIONS = ("randn", "positive", "heavy", "ill")


def draw(shape: Sequence[int], dtype: torch.dtype, distribution: str, generator: torch.Generator) -> torch.Tensor:
    """Values of one of DISTRIBUTIONS, rounded to ``dtype``."""
    normal = torch.randn(*shape, generator=generator)
    if distribution == "positive":
        normal = torch.rand(*shape, generator=generator)
    elif distribution == "heavy":  # Student's t with 3 degrees of freedom, kept within 8-bit floats
        scale = torch.randn(3, *shape, generator=generator).square().mean(0).sqrt()
        normal = (normal / scale).clamp(-100, 100)
    elif distribution == "ill":  # sums that nearly vanish, variances of values far from 0
        normal = (4.0 + normal / 16) * torch.where(torch.rand(*shape, generator=generator) < 0.5, -1.0, 1.0)
    return normal.to(dtype)


@dataclass(frozen=True)
class Problem:
    """A launch to be judged.

    storages: by number, before the launch.
    outputs: arguments that it writes.
    traits, functions: which faults it can have.
    narrow: the kernel without its upcast to fp32.
    shorter: the same launch with one element too few.
    """

    name: str
    replay: Replay
    storages: Mapping[int, torch.Tensor]
    outputs: tuple[Argument, ...]
    traits: frozenset[str] = frozenset()
    narrow: Replay | None = None
    shorter: Replay | None = None
    functions: tuple[str, ...] = ()


@cache
def ttir(function: str, types: tuple[tuple[str, str], ...], constants: tuple[tuple[str, Any], ...]) -> str:
    """TTIR of one of ``precision_bench.kernels``."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from precision_bench import kernels

    target = Target("cpu")
    compiler: Any = backend_for(target).compiler(target)
    signature = {**dict(types), **{name: "constexpr" for name, _ in constants}}
    source = ASTSource(getattr(kernels, function), signature, dict(constants))
    compiled = triton.compile(source, target=GPUTarget(compiler.backend, compiler.architecture, compiler.simd_width))
    return str(compiled.asm["ttir"])


def problem(
    name: str,
    function: str,
    tensors: Mapping[str, torch.Tensor],
    scalars: Mapping[str, int],
    constants: Mapping[str, Any],
    grid: tuple[int, int, int],
    outputs: Sequence[str],
    *,
    traits: Sequence[str] = (),
    functions: Sequence[str] = (),
    tail: str | None = None,
) -> Problem:
    """A launch of ``function``. ``tail``: the scalar that is one less in ``shorter``. Outputs hold NaN before it."""
    triton_types = {v: k for k, v in DTYPES.items()} | {torch.int64: "i64"}
    types = {one: f"*{triton_types[tensor.dtype]}" for one, tensor in tensors.items()} | dict.fromkeys(scalars, "i32")
    arguments = [
        Argument(one, types[one], storage=number, dtype=tensor.dtype, shape=tuple(tensor.shape), stride=tensor.stride())
        for number, (one, tensor) in enumerate(tensors.items())
    ]
    storages = {number: tensor.reshape(-1).clone() for number, tensor in enumerate(tensors.values())}

    def replay(values: Mapping[str, int], **changed: Any) -> Replay:
        text = ttir(function, tuple(types.items()), tuple({**constants, **changed}.items()))
        return Replay(text, [*arguments, *(Argument(s, "i32", value=v) for s, v in values.items())], grid)

    narrow = tensors[next(iter(tensors))].dtype.itemsize <= 2
    return Problem(
        name,
        replay(scalars),
        storages,
        tuple(one for one in arguments if one.name in outputs),
        frozenset(traits),
        replay(scalars, UPCAST=False) if narrow and "UPCAST" in constants else None,
        replay({**scalars, tail: scalars[tail] - 1}) if tail else None,
        tuple(functions),
    )

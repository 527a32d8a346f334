"""Bits of ``tl.dot`` predicted against bits measured: by type, block, steps of K and distribution.

The same kernel runs on the chip, and on the CPU in the chip's arithmetic. Exit status 1: a bit differs where the
profile says what the instruction does; 77: the profile is not known.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from unit_models.inputs import DISTRIBUTIONS, DTYPES, Dots, draw

from gpu_checks.rows import Rows, arguments
from gpu_checks.running import SKIPPED
from torchport.arithmetic.profile import Profile
from torchport.triton.active_target import use

_BLOCKS = ((64, 64, 64), (128, 128, 64), (32, 32, 32), (16, 16, 128))
_STEPS = (1, 3)
_KINDS = {"e4m3": "f8", "e5m2": "f8", "e4m3fnuz": "f8", "e5m2fnuz": "f8"}
_FORMATS = {"e4m3": "f8E4M3FN", "e5m2": "f8E5M2", "e4m3fnuz": "f8E4M3FNUZ", "e5m2fnuz": "f8E5M2FNUZ"}
_INSTRUCTION = re.compile(r"\b(wgmma\.mma_async[\w.:]*|tcgen05\.mma[\w.:]*|mma\.sync[\w.:]*|v_mfma_\w+|v_wmma_\w+)")
_INTEGERS = {2: torch.int16, 4: torch.int32}


@triton.jit
def dots_kernel(
    a, b, c, out, m, n, k,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr, IMPRECISE: tl.constexpr,
):  # fmt: skip
    """out = a @ b + c, [m, k], [k, n], [m, n] in blocks of [M, N], K terms a step; k is a multiple of K."""
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    at = rows[:, None] * n + columns[None, :]
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    total = tl.load(c + at, inside, 0.0)
    for start in range(0, k, K):
        terms = start + tl.arange(0, K)
        left = tl.load(a + rows[:, None] * k + terms[None, :], rows[:, None] < m, 0.0)
        right = tl.load(b + terms[:, None] * n + columns[None, :], columns[None, :] < n, 0.0)
        total = tl.dot(
            left, right, total, input_precision=PRECISION, max_num_imprecise_acc=IMPRECISE,
            out_dtype=c.dtype.element_ty,
        )  # fmt: skip
    tl.store(out + at, total, inside)


def launched(
    dots: Dots, block: tuple[int, int, int], target: str, device: str, arithmetic: str, *, tf32: bool
) -> tuple[torch.Tensor, list[str]]:
    """The result in c's type on the host, and the matrix instructions of the code. ``arithmetic``: for the CPU only."""
    (m, k), n = dots.a.shape, dots.b.shape[1]
    moved = [one.to(device) for one in (dots.a, dots.b, dots.c)]
    out = torch.empty_like(moved[2])
    options: dict[str, Any] = {"arithmetic": arithmetic} if arithmetic else {"num_warps": 4}
    where: AbstractContextManager[Any] = use(target) if device == "cpu" else nullcontext()
    with where:
        compiled = dots_kernel[(triton.cdiv(m, block[0]), triton.cdiv(n, block[1]))](
            *moved, out, m, n, k, M=block[0], N=block[1], K=block[2], PRECISION="tf32" if tf32 else "ieee",
            IMPRECISE=None, **options,
        )  # fmt: skip
    code = "\n".join(str(compiled.asm[kind]) for kind in ("ptx", "amdgcn") if kind in getattr(compiled, "asm", {}))
    return out.cpu(), sorted(set(_INSTRUCTION.findall(code)))


def types_of(profile: Profile) -> Iterator[str]:
    """Operands, as ``unit_models.inputs.draw`` takes them, whose instruction the profile knows to the bit."""
    for name in DTYPES:
        known = profile.instruction(_KINDS.get(name, name))
        if known is not None and (not known.formats or _FORMATS.get(name) in known.formats):
            yield name


def compared(measured: torch.Tensor, predicted: torch.Tensor) -> dict[str, Any]:
    """How many bits agree, and the first elements that do not."""
    kind = _INTEGERS[measured.element_size()]
    ours, theirs = measured.contiguous().view(kind), predicted.contiguous().view(kind)
    same = (ours == theirs) | (measured.isnan() & predicted.isnan())
    width = 2 * measured.element_size()
    wrong = [
        {
            "at": place,
            "measured": f"{int(ours[tuple(place)]) % (1 << 4 * width):0{width}x}",
            "predicted": f"{int(theirs[tuple(place)]) % (1 << 4 * width):0{width}x}",
        }
        for place in (~same).nonzero()[:5].tolist()
    ]
    nans = int(((ours != theirs) & measured.isnan() & predicted.isnan()).sum())
    return {"same": int(same.sum()), "of": same.numel(), "nans_of_other_bits": nans, "first": wrong}


def main(given: Sequence[str] | None = None) -> int:
    """Measure what is not in the file yet. Returns the exit status."""
    chosen = arguments(__doc__, given)
    rows = Rows(chosen.out)
    if not chosen.profile:
        rows.write(skipped=f"no profile describes the arithmetic of {chosen.target}")
        return SKIPPED
    profile = Profile.load(chosen.profile)
    size = (64, 64) if chosen.quick else (256, 256)
    for type_ in types_of(profile):
        for block in _BLOCKS[:1] if chosen.quick else _BLOCKS:
            if (known := profile.instruction(_KINDS.get(type_, type_))) is None or block[0] < known.rows:
                continue
            for steps in _STEPS:
                for distribution in list(DISTRIBUTIONS)[: 2 if chosen.quick else None]:
                    key = f"{type_} {'x'.join(map(str, block))} K*{steps} {distribution}"
                    if key in rows:
                        continue
                    dots = draw(distribution, type_, (*size, block[2] * steps), seed=1)
                    tf32, arithmetic = type_ == "tf32", profile.arithmetic()
                    predicted, _ = launched(dots, block, "cpu", "cpu", arithmetic, tf32=tf32)
                    try:
                        measured, code = launched(
                            dots, block, chosen.target, chosen.device, arithmetic if chosen.stand_in else "", tf32=tf32
                        )
                    except Exception as error:  # noqa: BLE001 a vendor's compiler can raise anything; others go on
                        rows.put(key, {"error": f"{type(error).__name__}: {error}"[:400]})
                        continue
                    rows.put(key, {**compared(measured, predicted), "instructions": code})
                    print(key, rows.rows[key], flush=True)
    wrong = [key for key, row in rows.rows.items() if row.get("same") != row.get("of") or "error" in row]
    dots_of = sum(row.get("of", 0) for row in rows.rows.values())
    rows.write(summary=f"{len(rows.rows) - len(wrong)} of {len(rows.rows)} kinds agree in every bit, {dots_of} dots")
    if wrong:
        rows.write(failed=f"{len(wrong)} of {len(rows.rows)} kinds differ: {', '.join(wrong[:5])}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

"""Published figures of matrix units that emulation has to reproduce: ``tools/precision_cases.py`` prints them.

Relative L2 errors at K = 4096 follow from MMA-Sim's models (Xie, Wang, Yang and Yang, arXiv 2511.10909). The last case
is of FTTN's kind (Li et al., arXiv 2403.00232, abstract): one matrix product, five chips, these answers. FTTN's own
matrix is not public; ``five_answers`` was constructed to give its answers on MMA-Sim's models of the chips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from torchport.arithmetic.profile import Profile
from torchport.numerics.emulation.products import product

__all__ = ["CASES", "FIVE_ANSWERS", "PublishedError", "five_answers", "measure"]


@dataclass(frozen=True)
class PublishedError:
    """A published relative L2 error of a matrix unit.

    profile: the chip's.
    dtype: of the operands.
    data: distribution of the operands: ``randn`` or ``positive``.
    truncates: whether results are biased towards zero.
    """

    profile: str
    dtype: torch.dtype
    data: str
    error: float
    truncates: bool


_HALF, _EIGHT = torch.float16, torch.float8_e4m3fn
CASES = (
    PublishedError("v100", _HALF, "randn", 2.1e-6, False),
    PublishedError("a100", _HALF, "randn", 6.7e-6, False),
    PublishedError("h100", _HALF, "randn", 4.9e-6, False),
    PublishedError("mi300x", _HALF, "randn", 3.9e-7, False),
    PublishedError("h100", _EIGHT, "randn", 1.5e-3, False),
    PublishedError("b200", _EIGHT, "randn", 5.8e-8, False),
    PublishedError("v100", _HALF, "positive", 9.0e-5, True),
    PublishedError("a100", _HALF, "positive", 5.0e-5, True),
    PublishedError("h100", _HALF, "positive", 2.6e-5, True),
    PublishedError("mi300x", _HALF, "positive", 3.5e-7, False),
    PublishedError("h100", _EIGHT, "positive", 7.0e-2, True),
)
FIVE_ANSWERS = {"v100": 0.0, "a100": 0.0, "mi210": 0.0, "mi100": 255.875, "h100": 191.875}


def measure(case: PublishedError, size: int = 48, terms: int = 4096, seed: int = 0) -> tuple[float, float]:
    """Relative L2 error of (size x terms) @ (terms x size) against f64, and the mean sign of error times result."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn if case.data == "randn" else torch.rand
    a = draw(size, terms, generator=generator).to(case.dtype)
    b = draw(terms, size, generator=generator).to(case.dtype)
    exact = a.double() @ b.double()
    error = product(Profile.load(case.profile).arithmetic(), a, b, dtype=torch.float32).double() - exact
    return float(error.norm() / exact.norm()), float((error.sign() * exact.sign()).mean())


def five_answers() -> tuple[torch.Tensor, torch.Tensor]:
    """A row and a column of f16 whose product the chips of FIVE_ANSWERS give different values; exactly, it is 255.875.

    In every four terms a large product 2^E is taken away again; the others are small, of a factor that is subnormal in
    f16. CDNA2 takes subnormals for zeros. CDNA1 adds pairs in f32, so that nothing is lost. Volta and Ampere lose what
    is below 2^(E - 24); Hopper, with one bit more, keeps 2^(E - 25), but none of the 64 terms that stand beside 2^26.
    """
    row, column = [], []
    for power, small in _quads():
        row += [2.0**12, -(2.0**12), *(2.0**-15 * (s > 0) for s in small)]
        column += [2.0 ** (power - 12), 2.0 ** (power - 12), *(s * 2.0**15 for s in small)]
    return torch.tensor([row], dtype=_HALF), torch.tensor(column, dtype=_HALF).unsqueeze(1)


def _quads() -> Iterator[tuple[int, tuple[float, float]]]:
    """E and the two small terms of each four; sixteen terms, Hopper's step, have one E."""
    for power, unit, count in ((26, 1.0, 64), (25, 1.0, 191), (24, 0.5, 1), (23, 0.25, 1), (22, 0.125, 1)):
        slots = -(-count // 8) * 8
        terms = [unit] * count + [0.0] * (slots - count)
        for i in range(0, slots, 2):
            yield power, (terms[i], terms[i + 1])

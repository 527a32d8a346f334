"""Compares emulated matrix units with models written apart from them, bit for bit: python tools/unit_agreement.py.

Each figure is the share of dots whose result has the same bits, in percent; a kernel computes them by ``tl.dot``.
Ends with status 1 if one differs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from unit_models.inputs import DISTRIBUTIONS, draw
from unit_models.kernel import tl_dot
from unit_models.models import UNITS

from torchport.arithmetic.profile import Profile

__all__ = ["agreement", "main"]


def agreement(chip: str, type_: str, distribution: str, dots: int, terms: int = 64, seed: int = 0) -> tuple[int, int]:
    """How many of ``dots`` (at least) dots of ``terms`` terms agree, and of how many. ``type_``: as in UNITS."""
    unit, operands = UNITS[chip, type_], type_.removesuffix("-f16")
    rows = max(1, math.isqrt(dots))
    shape = (rows, -(-dots // rows), terms)
    drawn = draw(distribution, operands, shape, seed, half=unit.half)
    found = tl_dot(drawn, Profile.load(chip).arithmetic(), tf32=operands == "tf32")
    same = unit.same(found, unit.dots(*drawn.exact(cut=operands == "tf32")))
    return int(same.sum()), same.size


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the status is 0 if all agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dots", type=int, default=10_000, help="of each type and distribution (default: 10000)")
    parser.add_argument("--chips", default="", help="profiles, with commas between (default: all that have a model)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    chips = set(filter(None, given.chips.split(",")))
    print(f"| chip | operands | {' | '.join(DISTRIBUTIONS)} |\n|---|---|{'---|' * len(DISTRIBUTIONS)}")
    agree = True
    for chip, type_ in UNITS:
        if chips and chip not in chips:
            continue
        counts = [agreement(chip, type_, one, given.dots, seed=given.seed) for one in DISTRIBUTIONS]
        agree = agree and all(same == count for same, count in counts)
        shares = " | ".join("100" if same == count else f"{100 * same / count:.3f}" for same, count in counts)
        print(f"| {chip} | {type_.replace('-f16', ', sums in f16').replace(' e', ' with e')} | {shares} |", flush=True)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())

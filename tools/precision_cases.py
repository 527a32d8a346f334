"""Prints published figures of matrix units beside those of their emulation: python tools/precision_cases.py."""

from __future__ import annotations

import torch

from torchport.arithmetic.profile import Profile
from torchport.numerics.emulation.products import product
from torchport.numerics.emulation.published import CASES, FIVE_ANSWERS, five_answers, measure


def main() -> None:
    print("| chip | operands | data | published | emulated | sign of the error |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        error, sign = measure(case)
        type_ = str(case.dtype).removeprefix("torch.")
        print(f"| {case.profile} | {type_} | {case.data} | {case.error:.1e} | {error:.2e} | {sign:+.2f} |")
    print("\n| chip | published | emulated |\n|---|---|---|")
    row, column = five_answers()
    for name, answer in FIVE_ANSWERS.items():
        found = product(Profile.load(name).arithmetic(), row, column, dtype=torch.float32).item()
        print(f"| {name} | {answer} | {found} |")


if __name__ == "__main__":
    main()

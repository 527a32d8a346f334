"""Tensors of payloads: drawn at random, and compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from torchport.arithmetic.payload.field import FINITE, INFINITY, MINUS_INFINITY, NAN, P, Q

__all__ = ["alike", "drawn", "drawn_like", "shown"]


def drawn(storages: Mapping[int, torch.Tensor], seed: int) -> dict[int, torch.Tensor]:
    """Storages in which every float is a random payload, by number. Those of other types are the same.

    The draw of a storage depends on its number and the seed alone. Numbers that are not finite stay what they are:
    masks are made of infinities.
    """
    return {number: drawn_like(storage, seed * 1000003 + number) for number, storage in storages.items()}


def drawn_like(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """Random payloads (int64) in place of a tensor's floats; a tensor of another type unchanged."""
    if not tensor.is_floating_point():
        return tensor
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(1, modulus, tensor.shape, generator=generator) for modulus in (P, Q))
    x = a | (b << 32)
    real = tensor if tensor.element_size() > 1 else tensor.float()
    for special, test in ((NAN, real.isnan()), (INFINITY, real.isposinf()), (MINUS_INFINITY, real.isneginf())):
        x.masked_fill_(test, special)
    return x


def alike(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Where results are the same algebra: one of both residues agrees, or both are the same infinity or NaN.

    Each residue alone follows from the rules: that modulo P does not know sums of logarithms, that modulo Q no products
    of powers.
    """
    finite = (a >= 0) & (a < FINITE) & (b >= 0) & (b < FINITE)
    return (a == b) | (finite & (((a ^ b) & 0xFFFFFFFF == 0) | ((a ^ b) >> 32 == 0)))


def shown(payload: int) -> str:
    """A payload for a reader."""
    names = {NAN: "NaN", INFINITY: "inf", MINUS_INFINITY: "-inf"}
    return names.get(payload, f"{payload & 0xFFFFFFFF} mod {P}")

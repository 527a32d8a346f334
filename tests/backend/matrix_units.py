"""A matrix unit, written a second time."""

import numpy as np
import torch


def _power(x, least):
    _, exponent = np.frexp(x)
    return np.where(x == 0, -1000, np.maximum(exponent - 1, least))


def unit_sums(a, b, group, fraction, bits):
    """a @ b by MMA-Sim's truncated fused dot-product-add, in numpy, one step at a time: f32.

    a: [m, k], b: [k, n], f64 numbers of f16; ``group`` terms a step, ``fraction`` bits kept of each, ``bits`` of sums.
    """
    total = np.zeros((a.shape[0], b.shape[1]))
    for k in range(0, a.shape[1], group):
        products = a[:, k : k + group, None] * b[None, k : k + group]
        exponents = _power(a, -14)[:, k : k + group, None] + _power(b, -14)[None, k : k + group]
        largest = np.maximum(exponents.max(1), _power(total, -126))
        cut = np.trunc(np.ldexp(products, fraction - largest[:, None])).sum(1)
        total = np.ldexp(cut + np.trunc(np.ldexp(total, fraction - largest)), largest - fraction)
        unit = np.maximum(np.frexp(total)[1] - 1, -126) - bits
        total = np.ldexp(np.trunc(np.ldexp(total, -unit)), unit)
    return torch.from_numpy(total).float()

"""Cells of LSTM and GRU, which torch asks of every device but the CPU as one operator each.

Gates and gradients are those of torch.nn.LSTM's and torch.nn.GRU's documentation.
"""

from __future__ import annotations

import torch

__all__ = ["gru_cell", "gru_cell_backward", "lstm_cell", "lstm_cell_backward"]

Tensor = torch.Tensor


def lstm_cell(
    input_gates: Tensor, hidden_gates: Tensor, cx: Tensor, input_bias: Tensor | None, hidden_bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """``aten._thnn_fused_lstm_cell``: the new hidden and cell state, and the activated gates for the gradient."""
    i, f, g, o = _sum(input_gates, hidden_gates, input_bias, hidden_bias).chunk(4, 1)
    gates = torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], 1)
    i, f, g, o = gates.chunk(4, 1)
    cy = f * cx + i * g
    return o * cy.tanh(), cy, gates


def lstm_cell_backward(
    grad_hy: Tensor | None, grad_cy: Tensor | None, cx: Tensor, cy: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """``aten._thnn_fused_lstm_cell_backward_impl``: gradients by the gates, the cell state, and the biases."""
    if grad_hy is None and grad_cy is None:
        return None, None, None
    i, f, g, o = workspace.chunk(4, 1)
    squashed = cy.tanh()
    by_cell = torch.zeros_like(cy) if grad_cy is None else grad_cy
    by_output = torch.zeros_like(cy)
    if grad_hy is not None:
        by_cell = by_cell + grad_hy * o * (1 - squashed * squashed)
        by_output = grad_hy * squashed
    gates = torch.cat(
        [by_cell * g * i * (1 - i), by_cell * cx * f * (1 - f), by_cell * i * (1 - g * g), by_output * o * (1 - o)], 1
    )
    return gates, by_cell * f, gates.sum(0) if has_bias else None


def gru_cell(
    input_gates: Tensor, hidden_gates: Tensor, hx: Tensor, input_bias: Tensor | None, hidden_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``aten._thnn_fused_gru_cell``: the new hidden state, and what the gradient needs."""
    inputs = input_gates if input_bias is None else input_gates + input_bias
    hidden = hidden_gates if hidden_bias is None else hidden_gates + hidden_bias
    (ir, iz, new), (hr, hz, hn) = inputs.chunk(3, 1), hidden.chunk(3, 1)
    r, z = (ir + hr).sigmoid(), (iz + hz).sigmoid()
    n = (new + r * hn).tanh()
    return n + z * (hx - n), torch.cat([r, z, n, hx, hn], 1)


def gru_cell_backward(
    grad_hy: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """``aten._thnn_fused_gru_cell_backward``: gradients by both gates, the hidden state, and both biases."""
    r, z, n, hx, hn = workspace.chunk(5, 1)
    by_new = grad_hy * (1 - z) * (1 - n * n)
    by_update = grad_hy * (hx - n) * z * (1 - z)
    by_reset = by_new * hn * r * (1 - r)
    inputs = torch.cat([by_reset, by_update, by_new], 1)
    hidden = torch.cat([by_reset, by_update, by_new * r], 1)
    return inputs, hidden, grad_hy * z, inputs.sum(0) if has_bias else None, hidden.sum(0) if has_bias else None


def _sum(a: Tensor, b: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
    total = a + b
    for bias in (first, second):
        if bias is not None:
            total = total + bias
    return total

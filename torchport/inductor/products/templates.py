"""Kernels of products with few rows as templates (Jinja, as Inductor renders it).

X [M, K] times W [K, N], added up in float32 and rounded once. All weights are read once, so memory sets the time: the
sums of ROWS columns of W by all rows of X stay in registers, and an element of W is widened once for all rows of X.

M_BLOCK is the power of two that holds M; rows of X beyond it are its last one, and their sums are dropped. BIASED says
that BIAS, of any strides, is added before the result is rounded. ALPHA and BETA scale the product and the bias.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "DOT", "ROWS"]

_HEAD = """
{{def_kernel("X", "W", *(("BIAS",) if BIASED else ()))}}
    M = {{size("X", 0)}}
    N = {{size("W", 1)}}
    K = {{size("X", 1)}}
    stride_xm, stride_xk = {{stride("X")}}
    stride_wk, stride_wn = {{stride("W")}}
    m = tl.minimum(tl.arange(0, M_BLOCK), M - 1)
    column = tl.program_id(0).to(tl.int64) * XBLOCK + tl.arange(0, XBLOCK)
    n = tl.minimum(column, N - 1)
"""

_TAIL = """
    {%- if ALPHA != 1 %}
    found = found * ALPHA
    {%- endif %}
    row, column = tl.arange(0, M_BLOCK)[:, None], column[None, :]
    kept = (row < M) & (column < N)
    {%- if BIASED %}
    bias_at = row * {{stride("BIAS", 0)}} + column * {{stride("BIAS", 1)}}
    found += tl.load(BIAS + bias_at, kept, 0.0).to(tl.float32){% if BETA != 1 %} * BETA{% endif %}
    {%- endif %}
    {{store_output(("row", "column"), "found", "kept", val_shape=("M_BLOCK", "XBLOCK"))}}
"""

ROWS = f"""{_HEAD}
    k = tl.arange(0, BLOCK)
    x_at = X + m[None, :, None] * stride_xm + k[None, None, :] * stride_xk
    w_at = W + n[:, None, None] * stride_wn + k[None, None, :] * stride_wk
    total = tl.zeros((XBLOCK, M_BLOCK, BLOCK), tl.float32)
    for start in range(0, K // BLOCK * BLOCK, BLOCK):
        x, w = tl.load(x_at + start * stride_xk).to(tl.float32), tl.load(w_at + start * stride_wk).to(tl.float32)
        total = tl.fma(tl.broadcast_to(w, total.shape), tl.broadcast_to(x, total.shape), total)
    {{%- if REST %}}
    start = K // BLOCK * BLOCK
    inside = (start + k < K)[None, None, :]
    x = tl.load(x_at + start * stride_xk, inside, 0.0).to(tl.float32)
    w = tl.load(w_at + start * stride_wk, inside, 0.0).to(tl.float32)
    total = tl.fma(tl.broadcast_to(w, total.shape), tl.broadcast_to(x, total.shape), total)
    {{%- endif %}}
    found = tl.trans(tl.sum(total, 2))
{_TAIL}"""
"""Where neighbours of W are terms of one sum (a linear layer's weight). Grid: blocks of XBLOCK columns."""

COLUMNS = f"""{_HEAD}
    x_at = X + m[:, None] * stride_xm
    w_at = W + n[None, :] * stride_wn
    found = tl.zeros((M_BLOCK, XBLOCK), tl.float32)
    for k in range(0, K):
        x, w = tl.load(x_at + k * stride_xk).to(tl.float32), tl.load(w_at + k * stride_wk).to(tl.float32)
        found = tl.fma(tl.broadcast_to(w, found.shape), tl.broadcast_to(x, found.shape), found)
{_TAIL}"""
"""Where neighbours of W belong to neighbouring sums. Grid: blocks of XBLOCK columns."""

DOT = f"""{_HEAD}
    k = tl.arange(0, BLOCK)
    x_at = X + m[:, None] * stride_xm + k[None, :] * stride_xk
    w_at = W + n[:, None] * stride_wn + k[None, :] * stride_wk
    found = tl.zeros((M_BLOCK, XBLOCK), tl.float32)
    for start in range(0, K // BLOCK * BLOCK, BLOCK):
        x, w = tl.load(x_at + start * stride_xk), tl.load(w_at + start * stride_wk)
        found = tl.dot(x, tl.trans(w), found, input_precision="ieee")
    {{%- if REST %}}
    start = K // BLOCK * BLOCK
    inside = (start + k < K)[None, :]
    x, w = tl.load(x_at + start * stride_xk, inside, 0.0), tl.load(w_at + start * stride_wk, inside, 0.0)
    found = tl.dot(x, tl.trans(w), found, input_precision="ieee")
    {{%- endif %}}
{_TAIL}"""
"""``ROWS`` with so many rows of X that a block's product pays. Grid: blocks of XBLOCK columns."""

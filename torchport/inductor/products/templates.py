"""Kernels of matrix products as templates (Jinja, as Inductor renders it).

X [M, K] times W [K, N], added up in float32 and rounded once. ROWS and COLUMNS are for few rows, where reading W sets
the time: the sums of XBLOCK columns of W by all rows of X stay in registers, and an element of W is widened once for
all rows of X. DOT is for more.

SPREAD: a block's columns lie as many from each other as there are blocks. So each is one stream through memory, which
the next block goes on with: what follows is prefetched into the second cache.

M_BLOCK is a block of rows, of DOT XBLOCK. Rows of X beyond M are its last one, and their sums are dropped; columns of W
likewise.
BIASED says that BIAS, of any strides, is added before the result is rounded. ALPHA and BETA scale the product and the
bias.
"""

from __future__ import annotations

from torchport.triton.source import PAIRS_LINE

__all__ = ["COLUMNS", "COMPUTED", "DOT", "ROWS", "UNPACKED", "WINDOWS"]

_HEAD = """
{%- set axis = 0 -%}
{{def_kernel("X", "W", *(("BIAS",) if BIASED else ()))}}
    M = {{size("X", 0)}}
    N = {{size("W", 1)}}
    K = {{size("X", 1)}}
    stride_xm, stride_xk = {{stride("X")}}
    stride_wk, stride_wn = {{stride("W")}}
    m = tl.minimum(tl.arange(0, M_BLOCK), M - 1)
    {%- if SPREAD %}
    column = tl.program_id(0).to(tl.int64) + tl.arange(0, XBLOCK).to(tl.int64) * ((N + XBLOCK - 1) // XBLOCK)
    n = tl.minimum(column, N - 1)
    {%- else %}
    first_column = tl.program_id(0).to(tl.int64) * XBLOCK
    {%- if COLUMNS_BACK %}
    column = tl.minimum(first_column, N - XBLOCK) + tl.arange(0, XBLOCK)
    n = column
    {%- else %}
    column = first_column + tl.arange(0, XBLOCK)
    n = tl.minimum(column, N - 1)
    {%- endif %}
    {%- endif %}
"""

_SCALED = """
    {%- if ALPHA != 1 %}
    found = found * ALPHA
    {%- endif %}
    kept = (row < M) & (column < N)
    {%- if COLUMNS_BACK is defined and COLUMNS_BACK %}
    kept &= column >= first_column
    {%- endif %}
    {%- if BIASED %}
    bias_at = row * {{stride("BIAS", axis)}} + column * {{stride("BIAS", axis + 1)}}
    found += tl.load(BIAS + bias_at, kept, 0.0).to(tl.float32){% if BETA != 1 %} * BETA{% endif %}
    {%- endif %}
"""

_TAIL = f"""
    row, column = tl.arange(0, M_BLOCK)[:, None], column[None, :]
{_SCALED}
    {{{{store_output(("row", "column"), "found", "kept", val_shape=("M_BLOCK", "XBLOCK"))}}}}
"""

ROWS = f"""{_HEAD}
    k = tl.arange(0, BLOCK)
    x_at = X + m[None, :, None] * stride_xm + k[None, None, :] * stride_xk
    w_at = W + n[:, None, None] * stride_wn + k[None, None, :] * stride_wk
    total = tl.zeros((XBLOCK, M_BLOCK, BLOCK), tl.float32)
    for start in range(0, K // BLOCK * BLOCK, BLOCK):
        x = tl.load(x_at + start * stride_xk).to(tl.float32)
        w = tl.load(w_at + start * stride_wk{{{{', cache_modifier=".cg"' if SPREAD else ''}}}}).to(tl.float32)
        total = tl.fma(tl.broadcast_to(w, total.shape), tl.broadcast_to(x, total.shape), total)
    {{%- if REST %}}
    start = K // BLOCK * BLOCK
    inside = (start + k < K)[None, None, :]
    x = tl.load(x_at + start * stride_xk, inside, 0.0).to(tl.float32)
    w = tl.load(w_at + start * stride_wk, inside, 0.0).to(tl.float32)
    total = tl.fma(tl.broadcast_to(w, total.shape), tl.broadcast_to(x, total.shape), total)
    {{%- endif %}}
    {{%- if INTEGER %}}
    total = total.to(tl.int32)
    {{%- endif %}}
    found = tl.trans(tl.sum(total, 2))
{_TAIL}"""
"""Where neighbours of W are terms of one sum (a linear layer's weight). Grid: blocks of XBLOCK columns."""

COMPUTED = f"""
{{%- set axis = 0 -%}}
{{{{def_kernel("X", *((("BIAS",) if BIASED else ()) + READS))}}}}
    M = {{{{size("X", 1)}}}}
    J = {{{{size("X", 2)}}}}
    N = {{{{size(None, 1)}}}}
    stride_xp, stride_xm, stride_xj = {{{{stride("X")}}}}
    m = tl.minimum(tl.arange(0, M_BLOCK), M - 1)[None, :, None]
    column = tl.program_id(0).to(tl.int64) * XBLOCK + tl.arange(0, XBLOCK)
    n = tl.minimum(column, N - 1)[:, None, None]
    lane = tl.arange(0, BLOCK)[None, None, :]
    x_at = X + m * stride_xm
    total = tl.zeros((XBLOCK, M_BLOCK, BLOCK), tl.float32)
    {{%- set places = dict(
        column=("n", ("XBLOCK", "1", "1")), group=("group", ()), term=("term", ("1", "1", "BLOCK"))) %}}
    {{%- if GROUPS > 1 %}}
    for group in range(0, GROUPS):
        first = group * LENGTH
        stop = {{{{"LENGTH" if WHOLE else "tl.minimum(LENGTH, J - first)"}}}}
    {{%- else %}}
    group, first, stop = 0, 0, J
    {{%- endif %}}
    {{%- filter indent(4 if GROUPS > 1 else 0) %}}
    {{{{modification(0, None, "", each=False, **places) | indent}}}}
    {{%- if LENGTH >= BLOCK %}}
    for start in range(0, stop // BLOCK * BLOCK, BLOCK):
        term = start + lane
        {{{{modification(0, None, "", each=True, **places) | indent(8)}}}}
        {{%- for part in range(PARTS) %}}
        x = tl.load(x_at + {{{{part}}}} * stride_xp + (first + term) * stride_xj).to(tl.float32)
        total = tl.fma(tl.broadcast_to(weight{{{{part}}}}, total.shape), tl.broadcast_to(x, total.shape), total)
        {{%- endfor %}}
    {{%- endif %}}
    {{%- if REST %}}
    term = stop // BLOCK * BLOCK + lane
    inside = term < stop
    {{{{modification(0, None, "inside", each=True, **places) | indent}}}}
    {{%- for part in range(PARTS) %}}
    x = tl.load(x_at + {{{{part}}}} * stride_xp + (first + term) * stride_xj, inside, 0.0).to(tl.float32)
    w = tl.where(inside, weight{{{{part}}}}, 0.0)
    total = tl.fma(tl.broadcast_to(w, total.shape), tl.broadcast_to(x, total.shape), total)
    {{%- endfor %}}
    {{%- endif %}}
    {{%- endfilter %}}
    found = tl.trans(tl.sum(total, 2))
{_TAIL}"""
"""As ROWS, of a weight that is computed (``weights.Weight``), READS from tensors. X is [PARTS, M, J].

Terms of a part are in GROUPS of LENGTH. What a weight's elements of one group share is computed once for it.
"""

UNPACKED = """
{{def_kernel(*READS)}}
    N = {{size(None, 0)}}
    n = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    {%- set places = dict(column=("n", ()), group=("group", ()), term=("term", ("BLOCK",))) %}
    for group in range(0, GROUPS):
        first = group * LENGTH
        {{modification(0, None, "", each=False, **places) | indent(8)}}
        for start in range(0, LENGTH, BLOCK):
            term = start + lane
            {%- if REST %}
            inside = (term < LENGTH) & (first + term < TERMS)
            {%- endif %}
            {{modification(0, None, "inside" if REST else "", each=True, **places) | indent(12)}}
            {%- for part in range(PARTS) %}
            part{{part}} = weight{{part}}.to({{TYPE}})
            {%- endfor %}
            {%- for one, left, right in JOINS %}
            {{one}} = tl.interleave({{left}}, {{right}})
            {%- endfor %}
            at = start * PARTS + tl.arange(0, BLOCK * PARTS)
            k = first * PARTS + at
            {%- if REST %}
            stored = (at < LENGTH * PARTS) & (k < TERMS * PARTS)
            {%- else %}
            stored = tl.full([BLOCK * PARTS], True, tl.int1)
            {%- endif %}
            {{store_output(("n", "k"), "whole", "stored", indent_width=12, val_shape=("BLOCK * PARTS",))}}
"""
"""The weight of COMPUTED itself, [N, K], in TYPE: PARTS are packed, and JOINS interleaves them. Grid: rows."""

COLUMNS = f"""{_HEAD}
    x_at = X + m[:, None] * stride_xm
    w_at = W + n[None, :] * stride_wn
    found = tl.zeros((M_BLOCK, XBLOCK), tl.float32)
    for start in range(0, K, BLOCK):
        part = tl.zeros((M_BLOCK, XBLOCK), tl.float32)
        for k in range(start, tl.minimum(start + BLOCK, K)):
            x, w = tl.load(x_at + k * stride_xk).to(tl.float32), tl.load(w_at + k * stride_wk).to(tl.float32)
            part = tl.fma(tl.broadcast_to(w, part.shape), tl.broadcast_to(x, part.shape), part)
        found += part
{_TAIL}"""
"""Where neighbours of W belong to neighbouring sums. Grid: blocks of XBLOCK columns, which N is not less than.

The last block begins earlier, so that neighbours are read together (``COLUMNS_BACK`` of DOT). Each BLOCK of terms is
added up by itself, so that rounding errors of long sums stay small.
"""

_AT = """    {%- if X_BY_COLUMN %}
    x_at = X + m[None, :] * {{stride("X", axis)}} + k[:, None] * stride_xk
    {%- else %}
    x_at = X + m[:, None] * {{stride("X", axis)}} + k[None, :] * stride_xk
    {%- endif %}
    {%- if W_BY_COLUMN %}
    w_at = W + n[:, None] * {{stride("W", axis + 1)}} + k[None, :] * stride_wk
    {%- else %}
    w_at = W + n[None, :] * {{stride("W", axis + 1)}} + k[:, None] * stride_wk
    {%- endif %}
"""

DOT = (
    """
{%- set axis = 1 if BATCHED else 0 -%}
{%- set left, right = "tl.trans(x)" if X_BY_COLUMN else "x", "tl.trans(w)" if W_BY_COLUMN else "w" -%}
{{def_kernel("X", "W", *(("BIAS",) if BIASED else ()))}}
    {%- if PAIRS %}
    {{PAIRED}}
    {%- endif %}
    M = {{size("X", axis)}}
    N = {{size("W", axis + 1)}}
    K = {{size("X", axis + 1)}}
    row = tl.program_id(0).to(tl.int64) * XBLOCK + tl.arange(0, XBLOCK)
    column = tl.program_id(1).to(tl.int64) * N_BLOCK + tl.arange(0, N_BLOCK)
    {%- if COLUMNS_BACK %}
    first_column = tl.program_id(1).to(tl.int64) * N_BLOCK
    column = tl.minimum(first_column, N - N_BLOCK) + tl.arange(0, N_BLOCK)
    {%- endif %}
    m = {{"row" if WHOLE_ROWS else "tl.minimum(row, M - 1)"}}
    n = {{"column" if WHOLE_COLUMNS or COLUMNS_BACK else "tl.minimum(column, N - 1)"}}
    k = tl.arange(0, BLOCK)
    {%- if BATCHED %}
    batch = tl.program_id(2).to(tl.int64)
    X += batch * {{stride("X", 0)}}
    W += batch * {{stride("W", 0)}}
    {%- if BIASED %}
    BIAS += batch * {{stride("BIAS", 0)}}
    {%- endif %}
    {%- endif %}
    stride_xk, stride_wk = {{stride("X", axis + 1)}}, {{stride("W", axis)}}
{AT}    found = tl.zeros((XBLOCK, N_BLOCK), {{"tl.int32" if INTEGER else "tl.float32"}})
    for start in range(0, K // BLOCK * BLOCK, BLOCK):
        x, w = tl.load(x_at + start * stride_xk), tl.load(w_at + start * stride_wk)
        {%- if INTEGER %}
        x, w = x.to(tl.float32), w.to(tl.float32)
        found += tl.dot({{left}}, {{right}}, input_precision="ieee").to(tl.int32)
        {%- elif APART %}
        found += tl.dot({{left}}, {{right}}, input_precision="ieee", max_num_imprecise_acc=BLOCK)
        {%- else %}
        found = tl.dot({{left}}, {{right}}, found, input_precision="ieee")
        {%- endif %}
    {%- for start, terms in PARTS %}
    k = {{start}} + tl.arange(0, {{terms}})
    {%- if X_BY_COLUMN %}
    x = tl.load(X + m[None, :] * {{stride("X", axis)}} + k[:, None] * stride_xk)
    {%- else %}
    x = tl.load(X + m[:, None] * {{stride("X", axis)}} + k[None, :] * stride_xk)
    {%- endif %}
    {%- if W_BY_COLUMN %}
    w = tl.load(W + n[:, None] * {{stride("W", axis + 1)}} + k[None, :] * stride_wk)
    {%- else %}
    w = tl.load(W + n[None, :] * {{stride("W", axis + 1)}} + k[:, None] * stride_wk)
    {%- endif %}
    found = tl.dot({{left}}, {{right}}, found, input_precision="ieee")
    {%- endfor %}
    {%- if REST %}
    k = tl.arange(0, REST)
{AT}    for start in range(K // BLOCK * BLOCK, K, REST):
        inside = k < K - start
        x = tl.load(x_at + start * stride_xk, inside[{{":, None" if X_BY_COLUMN else "None, :"}}], 0.0)
        w = tl.load(w_at + start * stride_wk, inside[{{"None, :" if W_BY_COLUMN else ":, None"}}], 0.0)
        {%- if INTEGER %}
        x, w = x.to(tl.float32), w.to(tl.float32)
        found += tl.dot({{left}}, {{right}}, input_precision="ieee").to(tl.int32)
        {%- else %}
        found = tl.dot({{left}}, {{right}}, found, input_precision="ieee")
        {%- endif %}
    {%- endif %}
    row, column = row[:, None], column[None, :]
{SCALED}
    {{store_output(("batch", "row", "column") if BATCHED else ("row", "column"), "found", "kept",
                   val_shape=("XBLOCK", "N_BLOCK"))}}
""".replace("{SCALED}", _SCALED)
    .replace("{AT}", _AT)
    .replace("{{PAIRED}}", PAIRS_LINE.strip())
)
"""A product of any size, of one matrix or of BATCHED ones, whose sums are those of ``tl.dot``: in order of k.

PAIRS: products of bfloat16 may take denormals for zeros (docs/options.md).

INTEGER: operands are 8-bit integers, each BLOCK of whose products is added up in float32, exactly, and then in int32.

APART: each BLOCK of terms is added up from zero, so that rounding errors of long sums stay small.

X_BY_COLUMN, W_BY_COLUMN: neighbours in memory belong to one column. COLUMNS_BACK: a block that would reach beyond the
last column begins earlier, so that neighbours in memory are read together, and stores its own columns alone. PARTS:
terms that no BLOCK holds, as blocks of their own (first term, how many). Grid: blocks of XBLOCK rows, blocks of N_BLOCK
columns, matrices. Rows come first: threads take neighbours of the grid, and so share the blocks that are not full.
"""

WINDOWS = """
{%- set right = "tl.trans(w)" if W_BY_COLUMN else "w" -%}
{%- set axis = 0 -%}
{{def_kernel("X", "W", *((("ZEROS",) if PADDED else ()) + (("BIAS",) if BIASED else ())))}}
    {%- if PAIRS %}
    {{PAIRED}}
    {%- endif %}
    row = tl.program_id(0).to(tl.int64) * XBLOCK + tl.arange(0, XBLOCK)
    column = tl.program_id(1).to(tl.int64) * N_BLOCK + tl.arange(0, N_BLOCK)
    place = {{"row" if WHOLE_ROWS else "tl.minimum(row, M - 1)"}}.to(tl.int32)
    n = {{"column" if WHOLE_COLUMNS else "tl.minimum(column, N - 1)"}}
    k = tl.arange(0, BLOCK)
    line = place // OUT_W
    left = place % OUT_W * STRIDE_W - PAD_W
    top = line % OUT_H * STRIDE_H - PAD_H
    x_at = X + (line // OUT_H).to(tl.int64) * {{stride("X", 0)}}
    x_at += top.to(tl.int64) * {{stride("X", 2)}} + left.to(tl.int64) * {{stride("X", 3)}}
    {%- if W_BY_COLUMN %}
    w_at = W + n[:, None] * W_OUT + k[None, :]
    {%- else %}
    w_at = W + n[None, :] + k[:, None] * W_IN
    {%- endif %}
    found = tl.zeros((XBLOCK, N_BLOCK), tl.float32)
    for step in range(0, WINDOW * (CHANNELS // BLOCK)):
        tap, start = step // (CHANNELS // BLOCK), step % (CHANNELS // BLOCK) * BLOCK
        tap_h, tap_w = tap // WINDOW_W, tap % WINDOW_W
        down, across = tap_h * DILATION_H, tap_w * DILATION_W
        rows = x_at + (down.to(tl.int64) * {{stride("X", 2)}} + across.to(tl.int64) * {{stride("X", 3)}} + start)
        {%- if PADDED %}
        inside = (top + down >= 0) & (top + down < IN_H) & (left + across >= 0) & (left + across < IN_W)
        rows = tl.where(inside, rows, ZEROS)
        {%- endif %}
        x, w = tl.load(rows[:, None] + k[None, :]), tl.load(w_at + (tap_h * W_H + tap_w * W_W + start * W_IN))
        {%- if APART %}
        found += tl.dot(x, {{right}}, input_precision="ieee", max_num_imprecise_acc=BLOCK)
        {%- else %}
        found = tl.dot(x, {{right}}, found, input_precision="ieee")
        {%- endif %}
    row, column = row[:, None], column[None, :]
{SCALED}
    {{store_output(("row", "column"), "found", "kept", val_shape=("XBLOCK", "N_BLOCK"))}}
""".replace("{SCALED}", _SCALED).replace("{{PAIRED}}", PAIRS_LINE.strip())
"""A convolution of images whose channels lie last: a product for each of WINDOW places of the window, in one loop.

Row m of the result is place m of the images, one after another; column n is channel n. W_BY_COLUMN: channels that are
read are neighbours in W, else those of the result are. PAIRS as in ``DOT``. ZEROS is read in place of what lies beyond
the borders.
Grid: blocks of XBLOCK places, blocks of N_BLOCK channels.
"""

"""The kernel of products of groups of rows, each with a matrix of its own, as a template."""

from __future__ import annotations

from torchport.triton.source import PAIRS_LINE

__all__ = ["GROUPED"]

GROUPED = """
{%- set right = "tl.trans(w)" if W_BY_COLUMN else "w" -%}
{%- macro at() %}
            x_at = X + m[:, None] * stride_xm + k[None, :] * stride_xk
            {%- if W_BY_COLUMN %}
            w_at = matrix + n[:, None] * stride_wn + k[None, :] * stride_wk
            {%- else %}
            w_at = matrix + n[None, :] * stride_wn + k[:, None] * stride_wk
            {%- endif %}
{%- endmacro -%}
{{def_kernel("X", "W", "ENDS")}}
    {%- if PAIRS %}
    {{PAIRED}}
    {%- endif %}
    M = {{size("X", 0)}}
    N = {{size("W", 2)}}
    K = {{size("X", 1)}}
    GROUPS = {{size("W", 0)}}
    stride_xm, stride_xk = {{stride("X")}}
    stride_wg, stride_wk, stride_wn = {{stride("W")}}
    stride_end = {{stride("ENDS", 0)}}
    first_column = tl.program_id(0).to(tl.int64) * XBLOCK
    {%- if COLUMNS_BACK %}
    column = tl.minimum(first_column, N - XBLOCK) + tl.arange(0, XBLOCK)
    {%- else %}
    column = first_column + tl.arange(0, XBLOCK)
    {%- endif %}
    n = {{"column" if WHOLE_COLUMNS or COLUMNS_BACK else "tl.minimum(column, N - 1)"}}
    column = column[None, :]
    part = tl.program_id(1).to(tl.int64) * PART
    stop = tl.minimum(part + PART, M)
    before = tl.cast(0, tl.int64)
    descends = before < 0
    for index in range(0, GROUPS):
        end = tl.load(ENDS + index * stride_end).to(tl.int64)
        descends = descends | (end < before)
        before = end
    before = tl.cast(0, tl.int64)
    for index in range(0, tl.where(descends, stop - part, GROUPS + 1)):
        low, group = before, tl.cast(index, tl.int64)
        high = tl.load(ENDS + tl.minimum(group, GROUPS - 1) * stride_end).to(tl.int64)
        high = tl.where(group < GROUPS, high, M)
        before = high
        if descends:
            low = part + index
            high = low + 1
            group = tl.cast(GROUPS, tl.int64)
            start = tl.cast(0, tl.int64)
            for other in range(0, GROUPS):
                end = tl.load(ENDS + other * stride_end).to(tl.int64)
                inside = (tl.where(start < 0, start + M, start) <= low) & (low < tl.where(end < 0, end + M, end))
                group = tl.where(inside, tl.cast(other, tl.int64), group)
                start = end
        terms = tl.where(group < GROUPS, K // BLOCK * BLOCK, 0)
        matrix = W + tl.minimum(group, GROUPS - 1) * stride_wg
        last = tl.minimum(high, stop)
        for first in range(tl.maximum(low, part), last, M_BLOCK):
            row = first + tl.arange(0, M_BLOCK)
            m = tl.minimum(row, M - 1)
            k = tl.arange(0, BLOCK)
            {{- at()}}
            found = tl.zeros((M_BLOCK, XBLOCK), tl.float32)
            for start in range(0, terms, BLOCK):
                x, w = tl.load(x_at + start * stride_xk), tl.load(w_at + start * stride_wk)
                {%- if APART %}
                found += tl.dot(x, {{right}}, input_precision="ieee", max_num_imprecise_acc=BLOCK)
                {%- else %}
                found = tl.dot(x, {{right}}, found, input_precision="ieee")
                {%- endif %}
            {%- for start, terms in PARTS %}
            k = {{start}} + tl.arange(0, {{terms}})
            {{- at()}}
            x, w = tl.load(x_at), tl.load(w_at)
            found = tl.dot(x, {{right}}, found, input_precision="ieee")
            {%- endfor %}
            {%- if REST %}
            k = K // BLOCK * BLOCK + tl.arange(0, REST)
            {{- at()}}
            inside = k < K
            x = tl.load(x_at, inside[None, :], 0.0)
            w = tl.load(w_at, inside[{{"None, :" if W_BY_COLUMN else ":, None"}}], 0.0)
            found = tl.dot(x, {{right}}, found, input_precision="ieee")
            {%- endif %}
            {%- if PARTS or REST %}
            found = tl.where(group < GROUPS, found, 0.0)
            {%- endif %}
            row = row[:, None]
            kept = (row < last) & (column < N)
            {%- if COLUMNS_BACK %}
            kept &= column >= first_column
            {%- endif %}
            {{store_output(("row", "column"), "found", "kept", indent_width=12, val_shape=("M_BLOCK", "XBLOCK"))}}
""".replace("{{PAIRED}}", PAIRS_LINE.strip())
"""Rows of X [M, K] of one group times its matrix of W [GROUPS, K, N]; the next group's rows begin where its ENDS.

Rows that belong to no group, as those behind the last end, give 0. A program has XBLOCK columns and PART rows, of
whatever groups, and stores each row once: ends that descend, or are negative, say which rows a group has as Python's
slices do, and a row belongs to the last group that has it. This is looked for row by row then.

PAIRS, APART, PARTS, REST, W_BY_COLUMN and COLUMNS_BACK are those of ``templates.DOT``. Blocks are of M_BLOCK rows.
Grid: blocks of columns, parts of the rows.
"""

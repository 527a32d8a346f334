"""The kernels of FlexAttention as templates (Jinja, as Inductor renders it): forward, and gradients in two kernels.

The structure is FlashAttention-2's (Dao, arXiv 2307.08691): a softmax with an online maximum, in powers of two; the
backward pass computes the weights anew. Each gradient is summed by one program in order. A block mask lists, for each
block of queries, the blocks of keys that are seen in part, where the mask is evaluated, and those that are seen whole;
for the gradients of keys and values it lists blocks of queries.

Names: Q, K, V are query, key and value; m and n count queries and keys; z and h are batch and query head. SUMS holds
the logarithms, base 2, of the softmax's sums. SIZE_ are head sizes, PADDED_ the powers of two that hold them, SPARSE_
the block mask's block sizes, TILES_ the kernel's blocks in one of these; ``sparse`` is the mask's block that a program
works in. Functions of the user's: 0 changes the score, 1 is the mask, 2 is the gradient of 0 with respect to the
score, 3 adds to the gradients of tensors that 0 captured.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "FORWARD", "ROWS"]

_MACROS = """
{%- macro function(number, result, score="", grad="") -%}
{{ modification(number, result, "seen",
    b=("z32", (), "int32"), h=("h32", (), "int32"),
    m=("m_at", rows[0], "int32", rows[1]), n=("n_at", columns[0], "int32", columns[1]),
    score=(score, block, ACC_TYPE[3:]), grad=(grad, block, ACC_TYPE[3:])) }}
{%- endmacro -%}

{%- macro in_mask(name) -%}
z % {{size(name, 0)}} * {{stride(name, 0)}} + h % {{size(name, 1)}} * {{stride(name, 1)}} + sparse * {{stride(name, 2)}}
{%- endmacro -%}

{%- macro over_blocks() -%}
part = tl.load(PART_COUNT + {{in_mask("PART_COUNT")}})
whole = {% if WHOLE_BLOCKS %}tl.load(WHOLE_COUNT + {{in_mask("WHOLE_COUNT")}}){% else %}0{% endif %}
for i in range(0, part + whole):
    is_whole = i >= part
    listed = tl.load(PART_LIST + {{in_mask("PART_LIST")}} + i * {{stride("PART_LIST", 3)}}, i < part, 0)
    {%- if WHOLE_BLOCKS %}
    listed += tl.load(WHOLE_LIST + {{in_mask("WHOLE_LIST")}} + (i - part) * {{stride("WHOLE_LIST", 3)}}, is_whole, 0)
    {%- endif %}
{%- endmacro -%}

{%- macro scores(left, right) -%}
raw = tl.dot({{left}}, tl.trans({{right}}), input_precision="ieee", out_dtype=ACC_TYPE) * SCALE
seen = m_used & n_used
{{ function(1, "visible") }}
seen = seen & (visible | is_whole)
{{ function(0, "changed", score="raw") }}
natural = changed.to(ACC_TYPE)
score = natural * LOG2E
score = tl.where((score == float("-inf")) & (natural != float("-inf")), LEAST, score)
score = tl.where(seen, score, float("-inf"))
{%- endmacro -%}

{%- macro gradients(left, right) -%}
grad_weights = tl.dot({{left}}, tl.trans({{right}}), input_precision="ieee", out_dtype=ACC_TYPE)
shifted = score - sums
weights = tl.where(seen, tl.exp2(tl.where(shifted < -126.0, float("-inf"), shifted)), 0.0)
grad_changed = weights * (grad_weights - delta)
{% if SCORE_USED %}
{{- function(2, "grad_score", score="raw", grad="grad_changed") }}
{%- else %}
{{- "grad_score = tl.zeros(score.shape, ACC_TYPE)" }}
{%- endif %}
grad_score = tl.where(seen, grad_score.to(ACC_TYPE), 0.0)
{%- endmacro -%}
"""

_HELPERS = """

@triton.jit
def rows_of(start, rows, inside, row_stride, stride, SIZE: tl.constexpr, PADDED: tl.constexpr):
    columns = tl.arange(0, PADDED)
    at = start + rows.to(tl.int64)[:, None] * row_stride + columns[None, :] * stride
    inside = inside[:, None]
    if SIZE != PADDED:
        inside = inside & (columns < SIZE)[None, :]
    return tl.load(at, inside, 0.0)
"""

_HEAD = """
    stride_qz, stride_qh, stride_qm, stride_qd = {{stride("Q")}}
    stride_kz, stride_kh, stride_kn, stride_kd = {{stride("K")}}
    stride_vz, stride_vh, stride_vn, stride_vd = {{stride("V")}}
    HEADS = {{size("Q", 1)}}
    QUERIES = {{size("Q", 2)}}
    KEYS = {{size("K", 2)}}
    tile = tl.program_id(0)
    z32 = tl.program_id(2)
    z = z32.to(tl.int64)
    zk = z % {{size("K", 0)}}
"""

_ROWS_FIRST = """
{%- set block = ("BLOCK_M", "BLOCK_N") -%}
{%- set rows = (("BLOCK_M", "1"), "m_used") -%}
{%- set columns = (("1", "BLOCK_N"), "n_used") -%}
"""

_COLUMNS_FIRST = """
{%- set block = ("BLOCK_N", "BLOCK_M") -%}
{%- set rows = (("1", "BLOCK_M"), "m_used") -%}
{%- set columns = (("BLOCK_N", "1"), "n_used") -%}
"""

_BLOCK_OF_QUERIES = """
    h32 = tl.program_id(1)
    h = h32.to(tl.int64)
    hk = h // GROUP
    sparse = tile // TILES_M
    m = sparse * SPARSE_M + tile % TILES_M * BLOCK_M + tl.arange(0, BLOCK_M)
    m_inside = m < tl.minimum(QUERIES, (sparse + 1) * SPARSE_M)
    m_at = tl.minimum(m, QUERIES - 1).to(tl.int32)[:, None]
    m_used = m_inside[:, None]
    sums_at = (z * HEADS + h) * QUERIES + m
    K += zk * stride_kz + hk * stride_kh
    V += zk * stride_vz + hk * stride_vh
    q = rows_of(Q + z * stride_qz + h * stride_qh, m, m_inside, stride_qm, stride_qd, SIZE_K, PADDED_K)
"""

_OVER_KEYS = """
    {{ over_blocks() | indent_except_first(1) }}
        n_start = listed * SPARSE_N
        n_end = tl.minimum(n_start + SPARSE_N, KEYS)
        for start in range(n_start, n_end, BLOCK_N):
            n = start + tl.arange(0, BLOCK_N)
            n_inside = n < n_end
            n_at = tl.minimum(n, KEYS - 1).to(tl.int32)[None, :]
            n_used = n_inside[None, :]
            k = rows_of(K, n, n_inside, stride_kn, stride_kd, SIZE_K, PADDED_K).to(q.dtype)
            v = rows_of(V, n, n_inside, stride_vn, stride_vd, SIZE_V, PADDED_V).to(q.dtype)
            {{ scores("q", "k") | indent_except_first(3) }}
"""

FORWARD = f"""{_MACROS}{_ROWS_FIRST}
{{%- set largest = ("HIGHEST",) if MAXIMA else () %}}
{{{{def_kernel("Q", "K", "V", "SUMS", "PART_COUNT", "PART_LIST", "WHOLE_COUNT", "WHOLE_LIST", *largest)}}}}
{_HEAD}{_BLOCK_OF_QUERIES}
    highest = tl.full((BLOCK_M,), float("-inf"), ACC_TYPE)
    total = tl.zeros((BLOCK_M,), ACC_TYPE)
    found = tl.zeros((BLOCK_M, PADDED_V), ACC_TYPE)
{_OVER_KEYS}
            before = highest
            highest = tl.maximum(highest, tl.max(score, 1), propagate_nan=tl.PropagateNan.ALL)
            base = tl.where(highest == float("-inf"), 0.0, highest)
            shifted = score - base[:, None]
            # Below it is not seen beside 1, and each operation on a denormal number takes a CPU 150 cycles.
            weights = tl.exp2(tl.where(shifted < -126.0, float("-inf"), shifted))
            shrunk = tl.exp2(before - base)
            total = total * shrunk + tl.sum(weights, 1)
            found = tl.dot(weights.to(v.dtype), v, found * shrunk[:, None], input_precision="ieee", out_dtype=ACC_TYPE)
    total = tl.where(total == 0.0, 1.0, total)
    found = found / total[:, None]
    tl.store(SUMS + sums_at, highest + tl.log2(total), m_inside)
    {{%- if MAXIMA %}}
    tl.store(HIGHEST + sums_at, highest, m_inside)
    {{%- endif %}}
    row = m[:, None]
    column = tl.arange(0, PADDED_V)[None, :]
    kept = m_used & (column < SIZE_V)
    {{{{store_output(("z", "h", "row", "column"), "found", "kept", val_shape=("BLOCK_M", "PADDED_V"))}}}}
{_HELPERS}"""
"""softmax(changed scores) V. Grid: blocks of queries, query heads, batch."""

ROWS = f"""{_MACROS}{_ROWS_FIRST}
{{{{def_kernel("Q", "K", "V", "SUMS", "DELTA", "GRAD", "PART_COUNT", "PART_LIST", "WHOLE_COUNT", "WHOLE_LIST")}}}}
{_HEAD}{_BLOCK_OF_QUERIES}
    stride_gz, stride_gh, stride_gm, stride_gd = {{{{stride("GRAD")}}}}
    grad = rows_of(GRAD + z * stride_gz + h * stride_gh, m, m_inside, stride_gm, stride_gd, SIZE_V, PADDED_V)
    sums = tl.load(SUMS + sums_at, m_inside, 0.0)[:, None]
    sums = tl.where(sums == float("-inf"), 0.0, sums)
    delta = tl.load(DELTA + sums_at, m_inside, 0.0)[:, None]
    found = tl.zeros((BLOCK_M, PADDED_K), ACC_TYPE)
{_OVER_KEYS}
            {{{{ gradients("grad", "v") | indent_except_first(3) }}}}
            found = tl.dot(grad_score.to(k.dtype), k, found, input_precision="ieee", out_dtype=ACC_TYPE)
            {{%- if CAPTURED %}}
            {{{{ function(3, None, score="raw", grad="grad_changed") | indent_except_first(3) }}}}
            {{%- endif %}}
    found = found * SCALE
    row = m[:, None]
    column = tl.arange(0, PADDED_K)[None, :]
    kept = m_used & (column < SIZE_K)
    {{{{store_output(("z", "h", "row", "column"), "found", "kept", val_shape=("BLOCK_M", "PADDED_K"))}}}}
{_HELPERS}"""
"""The gradient of Q, and what is added to those of captured tensors. Grid: blocks of queries, query heads, batch."""

COLUMNS = f"""{_MACROS}{_COLUMNS_FIRST}
{{{{def_kernel("Q", "K", "V", "SUMS", "DELTA", "GRAD", "GRAD_V", "PART_COUNT", "PART_LIST", "WHOLE_COUNT",
               "WHOLE_LIST")}}}}
{_HEAD}
    stride_gz, stride_gh, stride_gm, stride_gd = {{{{stride("GRAD")}}}}
    stride_wz, stride_wh, stride_wn, stride_wd = {{{{stride("GRAD_V")}}}}
    hk = tl.program_id(1).to(tl.int64)
    sparse = tile // TILES_N
    n = sparse * SPARSE_N + tile % TILES_N * BLOCK_N + tl.arange(0, BLOCK_N)
    n_inside = n < tl.minimum(KEYS, (sparse + 1) * SPARSE_N)
    n_at = tl.minimum(n, KEYS - 1).to(tl.int32)[:, None]
    n_used = n_inside[:, None]
    k = rows_of(K + zk * stride_kz + hk * stride_kh, n, n_inside, stride_kn, stride_kd, SIZE_K, PADDED_K)
    v = rows_of(V + zk * stride_vz + hk * stride_vh, n, n_inside, stride_vn, stride_vd, SIZE_V, PADDED_V)
    k_found = tl.zeros((BLOCK_N, PADDED_K), ACC_TYPE)
    v_found = tl.zeros((BLOCK_N, PADDED_V), ACC_TYPE)
    for member in range(0, GROUP):
        h = hk * GROUP + member
        h32 = h.to(tl.int32)
        {{{{ over_blocks() | indent_except_first(2) }}}}
            m_start = listed * SPARSE_M
            m_end = tl.minimum(m_start + SPARSE_M, QUERIES)
            for start in range(m_start, m_end, BLOCK_M):
                m = start + tl.arange(0, BLOCK_M)
                m_inside = m < m_end
                m_at = tl.minimum(m, QUERIES - 1).to(tl.int32)[None, :]
                m_used = m_inside[None, :]
                q = rows_of(Q + z * stride_qz + h * stride_qh, m, m_inside, stride_qm, stride_qd, SIZE_K, PADDED_K)
                grad = rows_of(
                    GRAD + z * stride_gz + h * stride_gh, m, m_inside, stride_gm, stride_gd, SIZE_V, PADDED_V
                )
                sums_at = (z * HEADS + h) * QUERIES + m
                sums = tl.load(SUMS + sums_at, m_inside, 0.0)[None, :]
                sums = tl.where(sums == float("-inf"), 0.0, sums)
                delta = tl.load(DELTA + sums_at, m_inside, 0.0)[None, :]
                {{{{ scores("k", "q") | indent_except_first(4) }}}}
                {{{{ gradients("v", "grad") | indent_except_first(4) }}}}
                v_found = tl.dot(weights.to(grad.dtype), grad, v_found, input_precision="ieee", out_dtype=ACC_TYPE)
                k_found = tl.dot(grad_score.to(q.dtype), q, k_found, input_precision="ieee", out_dtype=ACC_TYPE)
    k_found = k_found * SCALE
    row = n[:, None]
    value_column = tl.arange(0, PADDED_V)[None, :]
    grad_v_at = GRAD_V + z * stride_wz + hk * stride_wh + row.to(tl.int64) * stride_wn + value_column * stride_wd
    tl.store(grad_v_at, v_found.to(GRAD_V.dtype.element_ty), n_used & (value_column < SIZE_V))
    column = tl.arange(0, PADDED_K)[None, :]
    kept = n_used & (column < SIZE_K)
    {{{{store_output(("z", "hk", "row", "column"), "k_found", "kept", val_shape=("BLOCK_N", "PADDED_K"))}}}}
{_HELPERS}"""
"""The gradients of K and V, for each batch of Q. Grid: blocks of keys, their heads, batch."""

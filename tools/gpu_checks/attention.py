"""Attention's speed against FlashAttention through torch's SDPA, and its result: forward, backward and decoding.

Both take turns; a figure is the median of the rounds. Aims: forward at size 64, causal, at least 1.18 times as fast,
backward at least as fast. Exit status 1: an aim is missed or a result is wrong.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import torchport.ops as ops
from gpu_checks.rows import Rows, arguments

sdpa = torch.nn.functional.scaled_dot_product_attention
_LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
_TOKENS = 32768
_AIMS = {"forward": 1.18, "backward": 1.0}
_Call = Callable[[], Any]


def seconds_of(calls: Sequence[_Call], device: str, rounds: int) -> list[float]:
    """Median seconds of each call; they take turns, after each was called three times."""
    for call in calls:
        for _ in range(3):
            call()
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for times, call in zip(found, calls, strict=True):
            times.append(_once(call, device))
    return [statistics.median(times) for times in found]


def _once(call: _Call, device: str) -> float:
    if device != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def flash(device: str) -> AbstractContextManager[Any]:
    """SDPA is FlashAttention-2 inside of this, where there is one."""
    return sdpa_kernel(SDPBackend.FLASH_ATTENTION) if device == "cuda" else nullcontext()


def _apart(ours: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor) -> float:
    """Our error in units of theirs: root mean squares."""
    own, other = ((one.double() - exact).square().mean().sqrt() for one in (ours, theirs))
    return float(own / other.clamp_min(1e-30))


def whole(length: int, size: int, dtype: torch.dtype, causal: bool, device: str, rounds: int) -> dict[str, Any]:
    """Forward and backward of 16 heads, as many sequences as make 32,768 tokens."""
    batch = max(1, min(_TOKENS // length, 16)) if device == "cuda" else 1
    heads = 16 if device == "cuda" else 2
    q, k, v = (
        torch.randn(batch, heads, length, size, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
    )
    grad = torch.randn_like(q)
    with flash(device):
        with torch.no_grad():
            forward = seconds_of(
                [lambda: ops.flash_attention(q, k, v, causal=causal), lambda: sdpa(q, k, v, is_causal=causal)],
                device, rounds,
            )  # fmt: skip
        outs = ops.flash_attention(q, k, v, causal=causal), sdpa(q, k, v, is_causal=causal)
        backward = seconds_of(
            [lambda out=out: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True) for out in outs],
            device, rounds,
        )  # fmt: skip
    part = min(length, 512)
    mask = torch.ones(part, part, device=device, dtype=torch.bool).tril()
    exact = sdpa(*(one[:1, :1, :part].detach().double() for one in (q, k, v)), attn_mask=mask) if causal else None
    error = 0.0 if exact is None else _apart(*(one[:1, :1, :part].detach() for one in outs), exact)
    return {
        "forward": [*forward, forward[1] / forward[0]],
        "backward": [*backward, backward[1] / backward[0]],
        "error": error,
    }


def decoding(batch: int, context: int, dtype: torch.dtype, device: str, rounds: int) -> dict[str, Any]:
    """One token each from a cache in pages, 32 heads on 8, against SDPA on a cache that lies side by side."""
    heads, owners, size = 32, 8, 128
    pages = batch * context // 16
    caches = [torch.randn(pages, 16, owners, size, device=device, dtype=dtype) for _ in range(2)]
    tables = torch.randperm(pages, device=device).reshape(batch, -1).int()
    lengths = torch.full((batch,), context, device=device).int()
    query = torch.randn(batch, heads, size, device=device, dtype=dtype)
    k, v = (one[tables.long()].reshape(batch, context, owners, size).transpose(1, 2).contiguous() for one in caches)
    found = seconds_of(
        [
            lambda: ops.paged_attention(query, *caches, tables, lengths),
            lambda: sdpa(query[:, :, None], k, v, enable_gqa=True),
        ],
        device, rounds,
    )  # fmt: skip
    return {"decoding": [*found, found[1] / found[0]]}


def cases(*, quick: bool) -> Iterator[tuple[str, Callable[[str, int], dict[str, Any]]]]:
    """Key, and what measures the row on a device in so many rounds."""
    for dtype in (torch.float32,) if quick else (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        for size in (64,) if quick else (64, 128):
            for causal in (True,) if quick else (True, False):
                for length in (64, 128) if quick else _LENGTHS:
                    key = f"{name} size {size} {'causal' if causal else 'full'} {length}"
                    yield key, lambda device, rounds, a=(length, size, dtype, causal): whole(*a, device, rounds)
        for batch in (1,) if quick else (1, 8, 64):
            for context in (64,) if quick else (1024, 8192):
                key = f"{name} decoding batch {batch} context {context}"
                yield key, lambda device, rounds, a=(batch, context, dtype): decoding(*a, device, rounds)


def missed(key: str, row: dict[str, Any]) -> Iterator[str]:
    """The aims that a row misses."""
    if "error" in row and isinstance(row["error"], str):
        yield f"{key}: {row['error']}"
        return
    if row.get("error", 0.0) > 2.0:
        yield f"{key}: {row['error']:.1f} times the error of SDPA"
    if " size 64 causal " in key:
        for what, aim in _AIMS.items():
            if row[what][2] < aim:
                yield f"{key}: {what} {row[what][2]:.2f} times as fast, not {aim}"


def main(given: Sequence[str] | None = None) -> int:
    """Measure what is not in the file yet. Returns the exit status."""
    chosen = arguments(__doc__, given)
    rows = Rows(chosen.out)
    torch.manual_seed(0)
    for key, measure in cases(quick=chosen.quick):
        if key in rows:
            continue
        try:
            rows.put(key, measure(chosen.device, 3 if chosen.quick else 20))
        except Exception as error:  # noqa: BLE001 out of memory, no kernel of FlashAttention for a size; others go on
            rows.put(key, {"error": f"{type(error).__name__}: {error}"[:300]})
        print(key, rows.rows[key], flush=True)
    found = [] if chosen.stand_in else [line for key, row in rows.rows.items() for line in missed(key, row)]
    rows.write(aims=_AIMS, missed=found, summary=f"{len(rows.rows)} rows, {len(found)} aims missed")
    if found:
        rows.write(failed=f"{len(found)} aims missed: {found[0]}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

"""Cases of Triton's language that need whole blocks: products, shapes, atomics, control flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from torchport.capabilities import Capabilities
from torchport.conformance.bounds import accumulated, equal, within
from torchport.conformance.case import Bench, Case, Measured, Wrong
from torchport.conformance.kernels import Guarded, evaluate, launch
from torchport.conformance.values import FLOATS, TORCH, draw, exact

__all__ = ["cases"]


def cases() -> Iterator[Case]:
    """All cases of this file."""
    yield from _products()
    yield from _shapes()
    yield from _atomics()
    yield from _control()


def _case(op: str, dtype: str, shape: tuple[int, ...], distribution: str, run: Any, *types: str, **more: Any) -> Case:
    return Case("language", op, dtype, shape, distribution, run, tuple(dict.fromkeys((dtype, *types))), **more)


PRECISIONS = {"ieee": 0.0, "tf32": 2.0**-9, "tf32x3": 2.0**-20, "bf16x3": 2.0**-14, "bf16x6": 2.0**-20}
"""Relative error of a product: two operands truncated to 10 bits; for the splits, what is left out of the products."""


def _products() -> Iterator[Case]:
    for dtype in FLOATS:
        for m, n, k in ((16, 16, 16), (32, 16, 64), (64, 64, 32)):
            for values in ("randn", "positive"):
                full = (m == 64 and dtype != "fp16") or (values == "positive" and m == 32)
                run = _dot(dtype, m, n, k, values, "ieee")
                least = dtype == "fp32" and m == 16
                level = "full" if full else "quick"
                yield _case("dot", dtype, (m, n, k), values, run, level=level, required=least, needs=_fits(m, n, k, ""))
    for precision in PRECISIONS:
        if precision != "ieee":
            run = _dot("fp32", 32, 32, 32, "randn", precision)
            yield _case(f"dot_{precision}", "fp32", (32, 32, 32), "randn", run, needs=_fits(32, 32, 32, precision))
    yield _case("dot", "int8", (32, 32, 32), "special", _integer_dot, "int32", needs=_fits(32, 32, 32, ""))


def _fits(m: int, n: int, k: int, precision: str) -> Callable[[Capabilities], str]:
    def reason(able: Capabilities) -> str:
        if any(size < least for size, least in zip((m, n, k), able.dot_shapes, strict=True)):
            return f"the target's least dot is {able.dot_shapes}"
        return "" if not precision or precision in able.dot_precisions else f"the target has no dot in {precision}"

    return reason


def _dot(dtype: str, m: int, n: int, k: int, values: str, precision: str) -> Any:
    def run(bench: Bench) -> Measured:
        a, b = draw(dtype, (m, k), values, "a"), draw(dtype, (k, n), values, "b")
        out = "fp64" if dtype == "fp64" else "fp32"
        kind = "float64" if out == "fp64" else "float32"
        body = f'z = tl.dot(a, b, input_precision="{precision}", out_dtype=tl.{kind})'
        (got,) = evaluate(bench, body, {"a": a, "b": b}, {"z": ((m, n), TORCH[out])})
        wanted, shadow = exact(a) @ exact(b), np.abs(exact(a)) @ np.abs(exact(b))
        bound = accumulated(wanted, shadow, k, out, bench.able, inputs=PRECISIONS[precision])
        return within(got, wanted, bound, out, bench.able)

    return run


def _integer_dot(bench: Bench) -> Measured:
    a, b = (draw("int8", (32, 32), "special", name) for name in "ab")
    (got,) = evaluate(bench, "z = tl.dot(a, b, out_dtype=tl.int32)", {"a": a, "b": b}, {"z": ((32, 32), torch.int32)})
    return equal(got, (a.to(torch.int64) @ b.to(torch.int64)).to(torch.int32), bench.able)


SHAPES: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "trans": ("z = tl.trans(x)", lambda x: x.T),
    "reshape": ("z = tl.reshape(x, (32, 32))", lambda x: x.reshape(32, 32)),
    "permute": (
        "z = tl.permute(tl.reshape(x, (8, 16, 8)), (2, 0, 1))", lambda x: x.reshape(8, 16, 8).permute(2, 0, 1)
    ),
    "ravel": ("z = tl.ravel(x)", lambda x: x.reshape(-1)),
    "expand": ("z = tl.broadcast_to(x[:, :, None], (8, 128, 2))", lambda x: x[:, :, None].expand(8, 128, 2)),
    "join": ("z = tl.join(x, x + x)", lambda x: torch.stack([x, x + x], -1)),
    "interleave": ("z = tl.interleave(x, x + x)", lambda x: torch.stack([x, x + x], -1).reshape(8, 256)),
    "split": (
        "p, q = tl.split(tl.reshape(x, (8, 64, 2)))\nz = p - q",
        lambda x: x.reshape(8, 64, 2)[..., 0] - x.reshape(8, 64, 2)[..., 1],
    ),
    "flip": ("z = tl.flip(x, 1)", lambda x: x.flip(1)),
}  # fmt: skip


def _shapes() -> Iterator[Case]:
    for dtype in ("fp32", "fp16", "int8", "int64"):
        for op, (body, reference) in SHAPES.items():
            level = "quick" if dtype == "fp32" else "full"
            yield _case(op, dtype, (8, 128), "wide", _shape(body, reference, dtype), level=level)


def _shape(body: str, reference: Callable[[torch.Tensor], torch.Tensor], dtype: str) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw(dtype, (8, 128), "wide")
        wanted = reference(x).contiguous()
        (got,) = evaluate(bench, body, {"x": x}, {"z": (wanted.shape, x.dtype)})
        return equal(got, wanted, bench.able)

    return run


def _atomics() -> Iterator[Case]:
    operations = {
        "int32": ("add", "max", "min", "and", "or", "xor", "xchg", "cas"), "int64": ("add", "max", "min", "cas"),
        "fp16": ("add",), "bf16": ("add",), "fp32": ("add", "max", "min"), "fp64": ("add", "max", "min"),
    }  # fmt: skip
    for dtype, names in operations.items():
        for op in names:
            values = "small" if dtype.startswith("int") else "randn"
            run = _atomic(op, dtype)
            yield _case(f"atomic_{op}", dtype, (16, 64), values, run, needs=_atomic_type(dtype))


def _atomic_type(dtype: str) -> Callable[[Capabilities], str]:
    return lambda able: "" if dtype in able.atomics else f"the target has no atomics of {dtype}"


def _atomic(op: str, dtype: str) -> Any:
    """16 programs at once on the same 64 elements."""

    def run(bench: Bench) -> Measured:
        float_ = not dtype.startswith("int")
        x = draw(dtype, (16, 64), "randn" if float_ else "small")
        start = draw(dtype, (64,), "randn" if float_ else "small", "start")
        z = Guarded((64,), x.dtype, start)
        call = f"tl.atomic_{op}(z_ptr + i, x)" if op != "cas" else "tl.atomic_cas(z_ptr + i, x * 0, x)"
        source = (
            "@triton.jit\ndef kernel(x_ptr, z_ptr):\n    i = tl.arange(0, 64)\n"
            f"    x = tl.load(x_ptr + tl.program_id(0) * 64 + i)\n    {call}\n"
        )
        launch(bench, source, {"x_ptr": x, "z_ptr": z.tensor}, (16, 1, 1), 64)
        z.check("z")
        got, every = z.tensor, torch.cat([start[None], x])
        if op == "add" and float_:
            wanted = exact(every).sum(0)
            bound = accumulated(wanted, np.abs(exact(every)).sum(0), 17, dtype, bench.able, inner=dtype)
            return within(got, wanted, bound, dtype, bench.able)
        if op in ("xchg", "cas"):  # the last one there, or the first where it was zero: any of them
            allowed = every[1:] if op == "xchg" else every
            if not bool((got[None] == allowed).any(0).all()):
                raise Wrong("an element holds none of the values that were written to it")
            return Measured()
        functions: dict[str, Any] = {
            "add": np.add, "max": np.maximum, "min": np.minimum, "and": np.bitwise_and, "or": np.bitwise_or,
            "xor": np.bitwise_xor,
        }  # fmt: skip
        values = every.numpy()
        return equal(got, torch.from_numpy(functions[op].reduce(values, 0, dtype=values.dtype)), bench.able)

    return run


_CONTROL = {
    "for": ("z = x\nfor k in range(5):\n    z = z * 3 + k", lambda x: _repeat(x, 5)),
    "while": ("z = x\nk = 0\nwhile k < 5:\n    z = z * 3 + k\n    k += 1", lambda x: _repeat(x, 5)),
    "if": ("if tl.sum(x) > 1000000000:\n    z = x * 2\nelse:\n    z = x - 1", lambda x: x - 1),
    "nested": (
        "z = x\nfor k in range(3):\n    if k % 2 == 0:\n        z = z + x\n    else:\n        z = z * 2",
        lambda x: (x + x) * 2 + x,
    ),
    "static_range": ("z = x\nfor k in tl.static_range(5):\n    z = z * 3 + k", lambda x: _repeat(x, 5)),
    "reduce_in_loop": ("z = x\nfor k in range(3):\n    z = z + tl.max(z)", lambda x: _maxima(x)),
}


def _repeat(x: torch.Tensor, times: int) -> torch.Tensor:
    for k in range(times):
        x = x * 3 + k
    return x


def _maxima(x: torch.Tensor) -> torch.Tensor:
    for _ in range(3):
        x = x + x.max()
    return x


def _control() -> Iterator[Case]:
    for op, (body, reference) in _CONTROL.items():
        yield _case(f"control_{op}", "int32", (256,), "small", _shape_of_256(body, reference), required=op == "for")
    yield _case("block_pointer", "fp32", (61, 37), "randn", _block_pointer)
    yield _case("philox", "int32", (1009,), "seed", _philox)
    yield _case("program_ids", "int32", (5, 3, 2), "none", _programs, required=True)


def _shape_of_256(body: str, reference: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    def run(bench: Bench) -> Measured:
        x = draw("int32", (256,), "small")
        (got,) = evaluate(bench, body, {"x": x}, {"z": (x.shape, x.dtype)})
        return equal(got, reference(x), bench.able)

    return run


def _block_pointer(bench: Bench) -> Measured:
    """Tiles of a matrix of prime sizes, padded and masked by the pointer itself, transposed on the way."""
    x, z = draw("fp32", (61, 37), "randn"), Guarded((37, 61), torch.float32)
    source = """@triton.jit
def kernel(x_ptr, z_ptr, rows, columns):
    i, j = tl.program_id(0) * 16, tl.program_id(1) * 16
    x = tl.make_block_ptr(x_ptr, (rows, columns), (columns, 1), (i, j), (16, 16), (1, 0))
    z = tl.make_block_ptr(z_ptr, (columns, rows), (rows, 1), (j, i), (16, 16), (1, 0))
    tl.store(z, tl.trans(tl.load(x, boundary_check=(0, 1), padding_option="zero")), boundary_check=(0, 1))
"""
    arguments: dict[str, torch.Tensor | int | float] = {"x_ptr": x, "z_ptr": z.tensor, "rows": 61, "columns": 37}
    launch(bench, source, arguments, (4, 3, 1), 256)
    z.check("z")
    return equal(z.tensor, x.T.contiguous(), bench.able)


def _philox(bench: Bench) -> Measured:
    """Philox 4x32-10 with Triton's counters (the offset, then zeros), against its definition in exact integers."""
    x = torch.arange(1024, dtype=torch.int32)
    (got,) = evaluate(bench, "z = tl.randint(20261125, x)", {"x": x}, {"z": ((1024,), torch.int32)})
    c = [np.arange(1024, dtype=np.uint64), *(np.zeros(1024, np.uint64) for _ in range(3))]
    key, mask = [np.uint64(20261125), np.uint64(0)], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ key[0], b & mask, (a >> np.uint64(32)) ^ c[3] ^ key[1], a & mask]
        key = [(key[0] + np.uint64(0x9E3779B9)) & mask, (key[1] + np.uint64(0xBB67AE85)) & mask]
    return equal(got, torch.from_numpy(c[0].astype(np.uint32).view(np.int32)), bench.able)


def _programs(bench: Bench) -> Measured:
    z = Guarded((30,), torch.int32)
    source = """@triton.jit
def kernel(z_ptr):
    x, y, w = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n = (w * tl.num_programs(1) + y) * tl.num_programs(0) + x
    tl.store(z_ptr + n, x * 100 + y * 10 + w)
"""
    launch(bench, source, {"z_ptr": z.tensor}, (5, 3, 2), 1)
    z.check("z")
    wanted = [x * 100 + y * 10 + w for w in range(2) for y in range(3) for x in range(5)]
    return equal(z.tensor, torch.tensor(wanted, dtype=torch.int32), bench.able)

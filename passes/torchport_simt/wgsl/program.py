"""Completes a kernel: what its adapter has, how its buffers are bound, and the functions that access them.

A buffer may be bound once only if a kernel writes to it. Arguments that lie in one buffer share its binding, which is
known at launch: then the same kernel gets other functions to access it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Adapter", "Program", "program"]

_CALL = re.compile(r"\btp_(\w+?)_b(\d+)\(")
_PLAIN = frozenset({"get8", "get16", "get32", "get64", "put32", "put64"})
"""Accesses that need no atomic words."""


@dataclass(frozen=True)
class Adapter:
    """What of the language an adapter has.

    int64: native 64-bit integers; two words otherwise.
    float64: f64, with native 64-bit integers.
    fused: whether its own ``fma`` was found to round once.
    exact: whether its own division and square root were found to be rounded correctly.
    """

    int64: bool
    float64: bool
    fused: bool
    exact: bool


@dataclass(frozen=True)
class Program:
    """A complete WGSL module.

    text: its source.
    bound: the numbers of the buffers at bindings 0, 1 ... of group 0; group 1 is the uniform block.
    writable: for each of these, whether the kernel writes to it.
    """

    text: str
    bound: tuple[int, ...]
    writable: tuple[bool, ...]


def program(text: str, lanes: int, shared: Sequence[int], adapter: Adapter) -> Program:
    """Complete the kernel ``text`` for work-groups of ``lanes`` lanes.

    ``shared``: for each buffer of the kernel, the number of the first one that is the same buffer.
    """
    calls = list(dict.fromkeys((name, int(number)) for name, number in _CALL.findall(text)))
    bound = tuple(sorted({shared[number] for _, number in calls}))
    atomic = {shared[number] for name, number in calls if name not in _PLAIN}
    writes = {shared[number] for name, number in calls if not name.startswith("get")}
    parts = [f"const TP_LANES: u32 = {lanes}u;", "@group(1) @binding(0) var<uniform> tp_args: tp_Arguments;"]
    for position, number in enumerate(bound):
        access = "read_write" if number in writes else "read"
        word = "atomic<u32>" if number in atomic else "u32"
        parts.append(f"@group(0) @binding({position}) var<storage, {access}> m{number}: array<{word}>;")
    parts += [_text(name) for name in _parts(text, adapter)]
    parts += [_accessor(name, number, f"m{shared[number]}", shared[number] in atomic) for name, number in calls]
    return Program("\n".join([*parts, text]), bound, tuple(number in writes for number in bound))


def _parts(text: str, adapter: Adapter) -> list[str]:
    names = ["common", "int64_native" if adapter.int64 else "int64_emulated", "int64_common"]
    if adapter.float64:
        names.append("float64")
    names.append("fma_native" if adapter.fused else "fma_float64" if adapter.float64 else "fma_integer")
    names.append("rounding_native" if adapter.exact else "rounding_corrected")
    return names


@cache
def _text(name: str) -> str:
    return (Path(__file__).parent / f"{name}.wgsl").read_text()


_SWAPPED = {  # the new value of what was seen, for operations that WGSL has no atomic of
    "max32": "bitcast<u32>(max(bitcast<i32>(seen), bitcast<i32>(v)))",
    "min32": "bitcast<u32>(min(bitcast<i32>(seen), bitcast<i32>(v)))",
    "fadd_f32": "bitcast<u32>(tp_add_f32(bitcast<f32>(seen), bitcast<f32>(v)))",
}
_PARTIAL = {  # the same for a part of a word
    "put8": "v", "put16": "v",
    "fadd_f16": "tp_f32_to_f16(tp_add_f32(tp_f16_to_f32(part), tp_f16_to_f32(v)))",
    "fadd_bf16": "tp_f32_to_bf16(tp_add_f32(tp_bf16_to_f32(part), tp_bf16_to_f32(v)))",
}  # fmt: skip
_NATIVE = {
    "add32": "atomicAdd", "and32": "atomicAnd", "or32": "atomicOr", "xor32": "atomicXor", "umax32": "atomicMax",
    "umin32": "atomicMin", "xchg32": "atomicExchange",
}  # fmt: skip


def _accessor(name: str, number: int, buffer: str, atomic: bool) -> str:
    """The function ``name`` of a buffer. ``p`` is a byte offset, ``v`` what is stored or combined."""
    head = f"fn tp_{name}_b{number}"
    place = f"{buffer}[p >> 2u]"
    if name.startswith(("get", "volatile")):
        bits = int(name.removeprefix("get").removeprefix("volatile"))
        word, next_ = (f"atomicLoad(&{w})" if atomic else w for w in (place, f"{buffer}[(p >> 2u) + 1u]"))
        value = {
            8: f"({word} >> ((p & 3u) * 8u)) & 0xffu", 16: f"({word} >> ((p & 2u) * 8u)) & 0xffffu", 32: word,
            64: f"tp_u64_of({word}, {next_})",
        }[bits]  # fmt: skip
        return f"{head}(p: u32) -> {'tp_u64' if bits == 64 else 'u32'} {{ return {value}; }}"
    if name == "put32":
        return f"{head}(p: u32, v: u32) {{ {_write(place, 'v', atomic)} }}"
    if name == "put64":
        second = _write(f"{buffer}[(p >> 2u) + 1u]", "tp_high(v)", atomic)
        return f"{head}(p: u32, v: tp_u64) {{ {_write(place, 'tp_low(v)', atomic)} {second} }}"
    if name in _NATIVE:
        return f"{head}(p: u32, v: u32) -> u32 {{ return {_NATIVE[name]}(&{place}, v); }}"
    if name in _SWAPPED:
        return f"{head}(p: u32, v: u32) -> u32 {{ {_swap(place, _SWAPPED[name])} return seen; }}"
    if name == "cas32":
        stop = "if (seen != e) { break; }"
        return f"{head}(p: u32, e: u32, v: u32) -> u32 {{ {_swap(place, 'v', stop)} return seen; }}"
    wide = not name.endswith("8")
    shift = f"let shift = (p & {'2' if wide else '3'}u) * 8u; let mask = {'0xffff' if wide else '0xff'}u;"
    part = "let part = (seen >> shift) & mask;"
    if name == "cas16":
        stop = f"{part} if (part != e) {{ break; }}"
        body = _swap(place, "(seen & ~(mask << shift)) | (v << shift)", stop)
        return f"{head}(p: u32, e: u32, v: u32) -> u32 {{ {shift} {body} return (seen >> shift) & mask; }}"
    body = _swap(place, f"(seen & ~(mask << shift)) | (({_PARTIAL[name]}) << shift)", part)
    if name.startswith("put"):
        return f"{head}(p: u32, v: u32) {{ {shift} {body} }}"
    return f"{head}(p: u32, v: u32) -> u32 {{ {shift} {body} return (seen >> shift) & mask; }}"


def _write(place: str, value: str, atomic: bool) -> str:
    return f"atomicStore(&{place}, {value});" if atomic else f"{place} = {value};"


def _swap(place: str, value: str, before: str = "") -> str:
    """Replace a word by ``value`` of what was ``seen`` in it, until no other lane comes in between."""
    return (
        f"var seen = atomicLoad(&{place}); loop {{ {before} let wanted = {value}; "
        f"let swapped = atomicCompareExchangeWeak(&{place}, seen, wanted); "
        "if (swapped.exchanged) { break; } seen = swapped.old_value; }"
    )

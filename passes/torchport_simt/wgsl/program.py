"""Completes a kernel: what its adapter has, how its buffers are bound, and the functions that access them.

A buffer may be bound once only if a kernel writes to it. Arguments that lie in one buffer share its binding, which is
known at launch: then the same kernel gets other functions to access it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["FUNCTIONS", "IN_FLOAT32", "Adapter", "Program", "bound_kernel", "in_fours", "prelude", "program", "uneven"]

_CALL = re.compile(r"\btp_(\w+?)_b(\d+)\(")
_PLAIN = frozenset({"get8", "get16", "get32", "get64", "get128", "put32", "put64", "put128"})
"""Accesses that need no atomic words."""


@dataclass(frozen=True)
class Adapter:
    """What of the language an adapter has.

    float64: f64; needs int64.
    fused: whether its own ``fma`` was found to round once.
    int64: 64-bit integers; they are two words without.
    short: without ``fused`` and ``float64``, take the short ``fma`` that is not exact for all numbers.
    """

    float64: bool
    fused: bool
    int64: bool = True
    short: bool = False

    @property
    def fma(self) -> str:
        """How ``a * b + c`` with one rounding is computed."""
        if self.fused or self.float64:
            return "native" if self.fused else "float64"
        return "pair" if self.short else "words"


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


def program(text: str, lanes: int, shared: Sequence[int], adapter: Adapter, scattered: Sequence[int] = ()) -> Program:
    """Complete the kernel ``text`` for work-groups of ``lanes`` lanes.

    ``shared``: for each buffer of the kernel, the number of the first one that is the same buffer. ``scattered``: the
    numbers of those that ``uneven`` names.
    """
    bound_text, bound, writable = bound_kernel(text, lanes, shared, scattered)
    return Program("\n".join([prelude(text, adapter), bound_text]), bound, writable)


def in_fours(text: str) -> frozenset[int]:
    """The buffers of the kernel ``text`` of which it accesses four words at once."""
    return frozenset(int(number) for name, number in _CALL.findall(text) if name.endswith("128"))


def uneven(fours: Collection[int], offsets: Sequence[int]) -> tuple[int, ...]:
    """Those of the buffers ``fours`` of whose vectors a kernel's four words are none.

    Kernels are written for arguments at multiples of 16 bytes; ``offsets`` are those that they are launched with.
    """
    return tuple(number for number, offset in enumerate(offsets) if offset % 16 and number in fours)


def bound_kernel(
    text: str, lanes: int, shared: Sequence[int], scattered: Sequence[int] = ()
) -> tuple[str, tuple[int, ...], tuple[bool, ...]]:
    """The kernel with its bindings, but without ``prelude``, which depends on the adapter; the rest as in Program."""
    calls = list(dict.fromkeys((name, int(number)) for name, number in _CALL.findall(text)))
    bound = tuple(sorted({shared[number] for _, number in calls}))
    atomic = {shared[number] for name, number in calls if name not in _PLAIN}
    wide = {shared[number] for name, number in calls if name not in _PLAIN and name.endswith("64")}
    writes = {shared[number] for name, number in calls if not name.startswith("get")}
    parts = [f"const TP_LANES: u32 = {lanes}u;", "@group(1) @binding(0) var<uniform> tp_args: tp_Arguments;"]
    # Of a buffer of vectors, single words may be read, but not written: WGSL lets that write the vector's others, too.
    four = {shared[number] for name, number in calls if name.endswith("128")}
    four -= {shared[number] for name, number in calls if not name.startswith("get") and name != "put128"}
    four -= {shared[number] for number in scattered}
    words = {
        n: "atomic<u64>" if n in wide else "atomic<u32>" if n in atomic else "vec4<u32>" if n in four else "u32"
        for n in bound
    }
    for position, number in enumerate(bound):
        access = "read_write" if number in writes | atomic else "read"
        parts.append(f"@group(0) @binding({position}) var<storage, {access}> m{number}: array<{words[number]}>;")
    # Not a number of the uniform block: Mesa compiles a kernel that branches on one anew for its values.
    zero = f"u32(arrayLength(&m{bound[0]}) == 0u)" if bound else "tp_args.zero"
    parts.append(f"fn tp_zero() -> u32 {{ return {zero}; }}")
    parts += [_accessor(name, number, f"m{shared[number]}", words[shared[number]]) for name, number in calls]
    return "\n".join([*parts, text]), bound, tuple(number in writes | atomic for number in bound)


def prelude(text: str, adapter: Adapter) -> str:
    """The functions that kernels call, for an adapter; ``text`` says whether those of math.h are among them."""
    names = ["common", "rounding", "int64_native" if adapter.int64 else "int64_words", "int64_common"]
    called = any(f"{name}(" in text for name in FUNCTIONS.values())
    if called:
        names.append("turns")
    if adapter.float64:
        names.append("float64")
    if called:
        names.append("functions" if adapter.float64 else "functions_float32")
    names.append(f"fma_{adapter.fma}")
    return "\n".join(map(_text, names))


FUNCTIONS = {
    f"{name}_{kind}": f"tp_{name}_{kind}"
    for kind, names in (
        ("f32", "acos asin atan atan2 atanh cbrt cos cospi exp10 expm1 hypot log10 log1p pow sin sinpi tan"),
        ("f64", "acos acosh asin asinh atan atan2 atanh cosh exp expm1 fmod log log1p sinh"),
    )
    for name in names.split()
}
"""What ``functions.wgsl`` has of math.h, by name and type. It computes in f64."""

IN_FLOAT32 = frozenset({"tp_sin_f32", "tp_cos_f32", "tp_log1p_f32", "tp_expm1_f32"})
"""Those that ``functions_float32.wgsl`` has, for adapters without f64."""


@cache
def _text(name: str) -> str:
    return (Path(__file__).parent / f"{name}.wgsl").read_text()


_COMBINED = {  # what WGSL has no atomic of: the new value of a part of a word that was ``part``
    "put8": "v", "put16": "v", "put32": "v",
    "max32": "bitcast<u32>(max(bitcast<i32>(part), bitcast<i32>(v)))",
    "min32": "bitcast<u32>(min(bitcast<i32>(part), bitcast<i32>(v)))",
    "add32": "(part + v)", "and32": "(part & v)", "or32": "(part | v)", "xor32": "(part ^ v)", "xchg32": "v",
    "umax32": "max(part, v)", "umin32": "min(part, v)", "cas32": "v", "cas16": "v",
    "fadd_f32": "bitcast<u32>(tp_add_f32(bitcast<f32>(part), bitcast<f32>(v)))",
    "fadd_f16": "tp_f32_to_f16(tp_add_f32(tp_f16_to_f32(part), tp_f16_to_f32(v)))",
    "fadd_bf16": "tp_f32_to_bf16(tp_add_f32(tp_bf16_to_f32(part), tp_bf16_to_f32(v)))",
    "max64": "select(v, part, tp_sless_u64(v, part))", "min64": "select(v, part, tp_sless_u64(part, v))", "cas64": "v",
    "fadd_f64": "tp_as_u64(tp_add_f64(tp_as_f64(part), tp_as_f64(v)))",
}  # fmt: skip
_NATIVE = {
    "add": "atomicAdd", "and": "atomicAnd", "or": "atomicOr", "xor": "atomicXor", "umax": "atomicMax",
    "umin": "atomicMin", "xchg": "atomicExchange",
}  # fmt: skip


def _accessor(name: str, number: int, buffer: str, word: str) -> str:
    """The function ``name`` of a buffer of words. ``p`` is a byte offset, ``v`` what is stored or combined."""
    atomic, size = word.startswith("atomic"), 64 if "u64" in word else 32
    if name.endswith("128"):
        return _four(name, number, buffer, word)
    bits = int(name[-2:] if name[-2:].isdecimal() else name[-1:])
    kind = "tp_u64" if bits == 64 else "u32"
    place, second = f"{buffer}[p >> {'3' if size == 64 else '2'}u]", f"{buffer}[(p >> 2u) + 1u]"
    if word.startswith("vec4"):
        place, second = (f"{buffer}[p >> 4u][((p >> 2u) & 3u){plus}]" for plus in ("", " + 1u"))
    head = f"fn tp_{name}_b{number}"
    if name.startswith(("get", "volatile")):
        return f"{head}(p: u32) -> {kind} {{ return {_read(place, second, bits, size, atomic)}; }}"
    if bits == size and name.startswith("put"):
        return f"{head}(p: u32, v: {kind}) {{ {_write(place, 'v', atomic)} }}"
    if name == "put64":
        high = _write(second, "tp_high(v)", atomic)
        return f"{head}(p: u32, v: tp_u64) {{ {_write(place, 'tp_low(v)', atomic)} {high} }}"
    if bits == size and name[:-2] in _NATIVE:
        return f"{head}(p: u32, v: {kind}) -> {kind} {{ return {_NATIVE[name[:-2]]}(&{place}, v); }}"
    expected = f", e: {kind}" if name.startswith("cas") else ""
    result = "" if name.startswith("put") else f" -> {kind}"
    body = _swap(place, _COMBINED[name], bits, size, bool(expected))
    return f"{head}(p: u32{expected}, v: {kind}){result} {{ {body}{' return part;' if result else ''} }}"


def _four(name: str, number: int, buffer: str, word: str) -> str:
    """An access to four words, whatever the buffer's elements are."""
    first, pairs = "(p >> 2u)", "(p >> 3u)"
    if word.startswith("vec4"):
        read, write = f"{buffer}[p >> 4u]", f"{buffer}[p >> 4u] = v;"
    elif word == "atomic<u64>":
        halves = [f"atomicLoad(&{buffer}[{pairs} + {i}u])" for i in (0, 1)]
        read = f"vec4<u32>({', '.join(f'tp_low({half}), tp_high({half})' for half in halves)})"
        values = enumerate(("tp_u64_of(v.x, v.y)", "tp_u64_of(v.z, v.w)"))
        write = " ".join(_write(f"{buffer}[{pairs} + {i}u]", value, True) for i, value in values)
    else:
        atomic = word.startswith("atomic")
        places = [f"{buffer}[{first} + {i}u]" for i in range(4)]
        read = f"vec4<u32>({', '.join(f'atomicLoad(&{place})' if atomic else place for place in places)})"
        write = " ".join(_write(place, f"v.{c}", atomic) for place, c in zip(places, "xyzw", strict=True))
    if name == "get128":
        return f"fn tp_get128_b{number}(p: u32) -> vec4<u32> {{ return {read}; }}"
    return f"fn tp_put128_b{number}(p: u32, v: vec4<u32>) {{ {write} }}"


def _read(place: str, second: str, bits: int, size: int, atomic: bool) -> str:
    word = f"atomicLoad(&{place})" if atomic else place
    if bits == size:
        return word
    if bits == 64:
        return f"tp_u64_of({word}, {f'atomicLoad(&{second})' if atomic else second})"
    return _part(word, bits, size)


def _shift(bits: int, size: int) -> str:
    """How far to the right a part of a word is moved."""
    return f"((p & {size // 8 - bits // 8}u) * 8u)"


def _part(word: str, bits: int, size: int) -> str:
    moved = f"({word} >> {_shift(bits, size)})" if bits < size else word
    if bits in (32, size):
        return f"tp_low({moved})" if size == 64 and bits == 32 else moved
    return f"({f'tp_low({moved})' if size == 64 else moved} & {(1 << bits) - 1}u)"


def _write(place: str, value: str, atomic: bool) -> str:
    return f"atomicStore(&{place}, {value});" if atomic else f"{place} = {value};"


def _swap(place: str, value: str, bits: int, size: int, compares: bool) -> str:
    """Replace a part of a word by ``value`` of what was in it, until no other lane comes in between."""
    if bits == size:
        wanted = value
    elif size == 64:
        mask = f"(tp_u64_of({(1 << bits) - 1}u, 0u) << {_shift(bits, size)})"
        wanted = f"(seen & ~{mask}) | (tp_u64_of({value}, 0u) << {_shift(bits, size)})"
    else:
        wanted = f"(seen & ~({(1 << bits) - 1}u << {_shift(bits, size)})) | ({value} << {_shift(bits, size)})"
    kind = "tp_u64" if bits == 64 else "u32"
    differs = "!tp_equal_u64(part, e)" if bits == 64 else "part != e"
    stop = f"if ({differs}) {{ break; }} " if compares else ""
    return (
        f"var seen = atomicLoad(&{place}); var part: {kind}; loop {{ part = {_part('seen', bits, size)}; {stop}"
        f"let swapped = atomicCompareExchangeWeak(&{place}, seen, {wanted}); "
        "if (swapped.exchanged) { break; } seen = swapped.old_value; }"
    )

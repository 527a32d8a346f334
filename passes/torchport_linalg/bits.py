"""Functions of ``tl.extra.libdevice`` of integers and of the bits of floats, written in ``arith`` and ``math``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from torchport_linalg.text import Value, Writer

__all__ = ["BITS", "applied"]


def applied(w: Writer, name: str, *args: Value, to: str = "") -> Value:
    """An operation on scalars of one type; ``to``: a cast to another."""
    e = args[0].element
    names = ", ".join(a.name for a in args)
    return w.value(to or e, f"{name} {names} : {e}{' to ' + to if to else ''}")


def _bits(to: str) -> Callable[[Writer, Sequence[Value]], Value]:
    return lambda w, args: w.value(to, f"arith.bitcast {args[0].name} : {args[0].element} to {to}")


def _signbit(w: Writer, args: Sequence[Value]) -> Value:
    e = "i" + args[0].element[1:]
    bits, zero = _bits(e)(w, args), w.constant("0", e)
    return w.value("i1", f"arith.cmpi slt, {bits.name}, {zero.name} : {e}")


def _counted(name: str) -> Callable[[Writer, Sequence[Value]], Value]:
    def write(w: Writer, args: Sequence[Value]) -> Value:
        e = args[0].element
        count = w.value(e, f"math.{name} {args[0].name} : {e}")
        return count if e == "i32" else w.value("i32", f"arith.trunci {count.name} : {e} to i32")

    return write


def _ffs(w: Writer, args: Sequence[Value]) -> Value:
    """The number of the lowest bit that is set, from 1; 0 if none is."""
    e = args[0].element
    zero, one = w.constant("0", e), w.constant("1", e)
    low = w.value(e, f"math.cttz {args[0].name} : {e}")
    number = w.value(e, f"arith.addi {low.name}, {one.name} : {e}")
    none = w.value("i1", f"arith.cmpi eq, {args[0].name}, {zero.name} : {e}")
    chosen = w.value(e, f"arith.select {none.name}, {zero.name}, {number.name} : {e}")
    return chosen if e == "i32" else w.value("i32", f"arith.trunci {chosen.name} : {e} to i32")


def _mulhi(word: str) -> Callable[[Writer, Sequence[Value]], Value]:
    def write(w: Writer, args: Sequence[Value]) -> Value:
        e = args[0].element
        return w.values([(e, None)] * 2, f"arith.{word} {args[0].name}, {args[1].name} : {e}")[1]

    return write


def _number(w: Writer, number: int, like: Value) -> Value:
    bits = int(like.element[1:])
    return w.constant(str(number - (1 << bits) if number >> (bits - 1) else number), like.element)


def _brev(w: Writer, args: Sequence[Value]) -> Value:
    """The bits in the other order: neighbours change places, then pairs, then groups of four ..."""
    (x,) = args
    bits = int(x.element[1:])
    step = 1
    while step < bits:
        low = sum(((1 << step) - 1) << at for at in range(0, bits, 2 * step))
        shift, mask = _number(w, step, x), _number(w, low, x)
        down = applied(w, "arith.andi", applied(w, "arith.shrui", x, shift), mask)
        up = applied(w, "arith.shli", applied(w, "arith.andi", x, mask), shift)
        x = applied(w, "arith.ori", down, up)
        step *= 2
    return x


def _mul24(shift: str) -> Callable[[Writer, Sequence[Value]], Value]:
    """The product of the low 24 bits; ``shift`` brings them down, with their sign or without."""

    def write(w: Writer, args: Sequence[Value]) -> Value:
        eight = w.constant("8", "i32")
        low = [applied(w, shift, applied(w, "arith.shli", a, eight), eight) for a in args]
        return applied(w, "arith.muli", *low)

    return write


def _halved(extend: str, more: int) -> Callable[[Writer, Sequence[Value]], Value]:
    """Half of a sum that does not overflow, rounded down or (``more`` = 1) up."""

    def write(w: Writer, args: Sequence[Value]) -> Value:
        left, right = (applied(w, extend, a, to="i64") for a in args)
        total = applied(w, "arith.addi", applied(w, "arith.addi", left, right), w.constant(str(more), "i64"))
        return applied(w, "arith.trunci", applied(w, "arith.shrsi", total, w.constant("1", "i64")), to="i32")

    return write


def _sad(most: str, least: str) -> Callable[[Writer, Sequence[Value]], Value]:
    """|a - b| + c."""

    def write(w: Writer, args: Sequence[Value]) -> Value:
        a, b, c = args
        return applied(w, "arith.addi", applied(w, "arith.subi", applied(w, most, a, b), applied(w, least, a, b)), c)

    return write


def _byte_perm(w: Writer, args: Sequence[Value]) -> Value:
    """Four bytes of the eight of ``b:a``, each chosen by three bits of a nibble of ``c``."""
    low, high, chosen = (applied(w, "arith.extui", a, to="i64") for a in args)
    both = applied(w, "arith.ori", low, applied(w, "arith.shli", high, w.constant("32", "i64")))
    result = w.constant("0", "i64")
    for i in range(4):
        nibble = applied(
            w, "arith.andi", applied(w, "arith.shrui", chosen, w.constant(str(4 * i), "i64")), w.constant("7", "i64")
        )
        at = applied(w, "arith.shli", nibble, w.constant("3", "i64"))
        byte = applied(w, "arith.andi", applied(w, "arith.shrui", both, at), w.constant("255", "i64"))
        result = applied(w, "arith.ori", result, applied(w, "arith.shli", byte, w.constant(str(8 * i), "i64")))
    return applied(w, "arith.trunci", result, to="i32")


def _half_of_double(high: bool) -> Callable[[Writer, Sequence[Value]], Value]:
    def write(w: Writer, args: Sequence[Value]) -> Value:
        bits = applied(w, "arith.bitcast", args[0], to="i64")
        if high:
            bits = applied(w, "arith.shrui", bits, w.constant("32", "i64"))
        return applied(w, "arith.trunci", bits, to="i32")

    return write


def _hiloint2double(w: Writer, args: Sequence[Value]) -> Value:
    high, low = (applied(w, "arith.extui", a, to="i64") for a in args)
    bits = applied(w, "arith.ori", applied(w, "arith.shli", high, w.constant("32", "i64")), low)
    return applied(w, "arith.bitcast", bits, to="f64")


def _rcp64h(w: Writer, args: Sequence[Value]) -> Value:
    """The high word of 1/x, the low one 0."""
    bits = applied(w, "arith.bitcast", applied(w, "arith.divf", w.constant("1.0", "f64"), args[0]), to="i64")
    kept = applied(w, "arith.andi", bits, w.constant(str(-(1 << 32)), "i64"))
    return applied(w, "arith.bitcast", kept, to="f64")


BITS: Mapping[str, Callable[[Writer, Sequence[Value]], Value]] = MappingProxyType(
    {
        "int_as_float": _bits("f32"),
        "uint_as_float": _bits("f32"),
        "float_as_int": _bits("i32"),
        "float_as_uint": _bits("i32"),
        "longlong_as_double": _bits("f64"),
        "double_as_longlong": _bits("i64"),
        "signbit": _signbit,
        "clz": _counted("ctlz"),
        "popc": _counted("ctpop"),
        "ffs": _ffs,
        "mulhi": _mulhi("mulsi_extended"),
        "umulhi": _mulhi("mului_extended"),
        "brev": _brev,
        "mul24": _mul24("arith.shrsi"),
        "umul24": _mul24("arith.shrui"),
        **{f"{'r' * more}hadd": _halved("arith.extsi", more) for more in (0, 1)},
        **{f"u{'r' * more}hadd": _halved("arith.extui", more) for more in (0, 1)},
        "sad": _sad("arith.maxsi", "arith.minsi"),
        "usad": _sad("arith.maxui", "arith.minui"),
        "byte_perm": _byte_perm,
        "double2hiint": _half_of_double(high=True),
        "double2loint": _half_of_double(high=False),
        "hiloint2double": _hiloint2double,
        "rcp64h": _rcp64h,
    }
)
"""What writes these functions, by name."""

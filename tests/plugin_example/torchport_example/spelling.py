"""C as a kernel language: a work-group has one lane, barriers are empty, local memory is an array, a grid is loops."""

from torchport_simt.spelling import LIBM, Spelling

_ROUNDING = "fma fabs ceil floor trunc round rint sqrt copysign".split()
PREAMBLE = r"""
#include <stdio.h>
#include <tgmath.h> /* one name for a function of float and that of double */
typedef unsigned char tp_u8; typedef unsigned short tp_u16; typedef unsigned tp_u32; typedef unsigned long tp_u64;
typedef signed char tp_i8; typedef short tp_i16; typedef int tp_i32; typedef long tp_i64; typedef int tp_bool;
static tp_u32 tp_group[3], tp_groups[3];
#define TP_FP64
#define TP_ATOMIC64
#define TP_GLOBAL
#define TP_KERNEL(name) static void name
#define TP_PARAMETERS
#define TP_NO_PARAMETERS void
#define TP_LANE 0
#define TP_GROUP(axis) tp_group[axis]
#define TP_GROUPS(axis) tp_groups[axis]
#define TP_SCRATCHPAD static /* the stack would be too small, and work-groups run one by one */
#define TP_SCRATCHPAD_COUNT(place) ++*(place)
#define TP_BARRIER_SCRATCHPAD
#define TP_BARRIER_ALL
#define TP_PRINT(...) (printf(__VA_ARGS__), fflush(stdout))
#define TP_AS(name, from, to) static to name(from x) { union { from a; to b; } u; u.a = x; return u.b; }
TP_AS(tp_as_f32, tp_u32, float) TP_AS(tp_as_u32, float, tp_u32)
TP_AS(tp_as_f64, tp_u64, double) TP_AS(tp_as_u64, double, tp_u64)
#define tp_cas_tp_u32 __sync_val_compare_and_swap
#define tp_cas_tp_u64 __sync_val_compare_and_swap
#define tp_clz_u32(x) ((x) ? (tp_u32)__builtin_clz(x) : 32u)
#define tp_clz_u64(x) ((x) ? (tp_u64)__builtin_clzl(x) : 64ul)
#define tp_ctz_u32(x) ((x) ? (tp_u32)__builtin_ctz(x) : 32u)
#define tp_ctz_u64(x) ((x) ? (tp_u64)__builtin_ctzl(x) : 64ul)
#define tp_popcount_u32 __builtin_popcount
#define tp_popcount_u64 __builtin_popcountl
#define tp_mulhi_u32(a, b) ((tp_u64)(a) * (b) >> 32)
#define tp_mulhi_u64(a, b) ((unsigned __int128)(a) * (b) >> 64)
#define tp_smulhi_u32(a, b) ((tp_i64)(tp_i32)(a) * (tp_i32)(b) >> 32)
#define tp_smulhi_u64(a, b) ((__int128)(tp_i64)(a) * (tp_i64)(b) >> 64)
""" + "".join(f"#define tp_{name}_{kind} {name}\n" for name in _ROUNDING for kind in ("f32", "f64"))
SPELLING = Spelling("C", "c", PREAMBLE, {name: name for name in LIBM})


def entry(symbol, parameters):
    """``void tp_run(x, y, z, parameters...)``, which calls a kernel for every work-group of a grid."""
    known = {"buffer": "TP_GLOBAL tp_u8 *", "fp32": "float ", "fp64": "double "}
    types = ["tp_u32 "] * 3 + [known.get(name, f"tp_{name} ") for name in parameters]
    names = [f"a{i}" for i in range(len(types))]
    counts = " ".join(f"tp_groups[{i}] = a{i};" for i in range(3))
    loops = " ".join(f"for (tp_group[{i}] = 0; tp_group[{i}] < a{i}; ++tp_group[{i}])" for i in (2, 1, 0))
    head = ", ".join(type_ + name for type_, name in zip(types, names, strict=True))
    return f"void tp_run({head}) {{ {counts} {loops} {symbol}({', '.join(names[3:])}); }}\n"

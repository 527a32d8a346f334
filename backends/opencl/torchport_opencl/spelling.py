"""OpenCL C 1.2 as a kernel language. Sections are those of the OpenCL C 1.2 specification."""

from __future__ import annotations

from torchport_simt import Spelling

__all__ = ["PREAMBLE", "spelling"]

PREAMBLE = r"""
#pragma OPENCL EXTENSION cl_khr_byte_addressable_store : enable
#pragma OPENCL FP_CONTRACT OFF
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#define TP_FP64
#endif
#ifdef cl_khr_int64_base_atomics
#pragma OPENCL EXTENSION cl_khr_int64_base_atomics : enable
#define TP_ATOMIC64
#endif
typedef uchar tp_u8; typedef ushort tp_u16; typedef uint tp_u32; typedef ulong tp_u64;
typedef char tp_i8; typedef short tp_i16; typedef int tp_i32; typedef long tp_i64;
typedef int tp_bool;
#define TP_GLOBAL __global
#define TP_KERNEL(name) __attribute__((reqd_work_group_size(TP_LANES, 1, 1))) __kernel void name
#define TP_PARAMETERS
#define TP_NO_PARAMETERS
#define TP_LANE get_local_id(0)
#define TP_GROUP(axis) get_group_id(axis)
#define TP_GROUPS(axis) get_num_groups(axis)
#define TP_SCRATCHPAD __local
#define TP_SCRATCHPAD_POINTER __local
#define TP_SCRATCHPAD_COUNT(place) atomic_inc((volatile __local uint *)(place))
#define TP_BARRIER_SCRATCHPAD barrier(CLK_LOCAL_MEM_FENCE)
#define TP_BARRIER_ALL barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define TP_PRINT(...) printf(__VA_ARGS__)
#define tp_as_f32 as_float
#define tp_as_u32 as_uint
#define tp_as_f64 as_double
#define tp_as_u64 as_ulong
#define tp_cas_tp_u32(p, a, b) atomic_cmpxchg((volatile __global uint *)(p), a, b)
#define tp_cas_tp_u64(p, a, b) atom_cmpxchg((volatile __global ulong *)(p), a, b)
/* Drivers for CPUs may compile OpenCL's functions as calls, which cost more than what they compute and keep loops from
   becoming vector code. Clang's own functions are instructions on these CPUs, with the same exact results. */
#if defined(__clang__) && (defined(__FMA__) || defined(__aarch64__))
#define TP_INLINE
#define TP_INLINE_F32(name) __builtin_##name##f
#define TP_INLINE_F64(name) __builtin_##name
#else
#define TP_INLINE_F32(name) name
#define TP_INLINE_F64(name) name
#endif
#define tp_fma_f32 TP_INLINE_F32(fma)
#define tp_fabs_f32 TP_INLINE_F32(fabs)
#define tp_ceil_f32 TP_INLINE_F32(ceil)
#define tp_floor_f32 TP_INLINE_F32(floor)
#define tp_trunc_f32 TP_INLINE_F32(trunc)
#define tp_round_f32 round
#define tp_rint_f32 TP_INLINE_F32(rint)
#define tp_sqrt_f32 TP_INLINE_F32(sqrt)
#define tp_copysign_f32 TP_INLINE_F32(copysign)
#define tp_fma_f64 TP_INLINE_F64(fma)
#define tp_fabs_f64 TP_INLINE_F64(fabs)
#define tp_ceil_f64 TP_INLINE_F64(ceil)
#define tp_floor_f64 TP_INLINE_F64(floor)
#define tp_trunc_f64 TP_INLINE_F64(trunc)
#define tp_round_f64 round
#define tp_rint_f64 TP_INLINE_F64(rint)
#define tp_sqrt_f64 TP_INLINE_F64(sqrt)
#define tp_copysign_f64 TP_INLINE_F64(copysign)
#define tp_clz_u32 clz
#define tp_clz_u64 clz
#define tp_popcount_u32 popcount
#define tp_popcount_u64 popcount
#define tp_ctz_u32(x) ((x) ? 31u - clz((x) & (0u - (x))) : 32u)
#define tp_ctz_u64(x) ((x) ? 63ul - clz((x) & (0ul - (x))) : 64ul)
#define tp_mulhi_u32 mul_hi
#define tp_mulhi_u64 mul_hi
#define tp_smulhi_u32(a, b) mul_hi((int)(a), (int)(b))
#define tp_smulhi_u64(a, b) mul_hi((long)(a), (long)(b))
"""

_LOSE_NAN = "ceil exp exp10 exp2 expm1 floor round sinh tanh tgamma trunc".split()
"""Functions of which PoCL 3.0 first makes an integer of the argument: of a constant NaN, that is any number to LLVM."""

VECTORS = r"""
#define TP_PASTE(a, b) a##b
#define TP_JOIN(a, b) TP_PASTE(a, b)
#define TP_TYPE(type) TP_JOIN(type, TP_WIDTH)
typedef TP_TYPE(uchar) tp_u8v; typedef TP_TYPE(ushort) tp_u16v; typedef TP_TYPE(uint) tp_u32v;
typedef TP_TYPE(ulong) tp_u64v; typedef TP_TYPE(char) tp_i8v; typedef TP_TYPE(short) tp_i16v;
typedef TP_TYPE(int) tp_i32v; typedef TP_TYPE(long) tp_i64v; typedef TP_TYPE(float) tp_f32v;
typedef TP_TYPE(int) tp_boolv;
#define tp_as_u8v TP_TYPE(as_uchar)
#define tp_as_i8v TP_TYPE(as_char)
#define tp_as_u16v TP_TYPE(as_ushort)
#define tp_as_i16v TP_TYPE(as_short)
#define tp_as_u32v TP_TYPE(as_uint)
#define tp_as_i32v TP_TYPE(as_int)
#define tp_as_u64v TP_TYPE(as_ulong)
#define tp_as_i64v TP_TYPE(as_long)
#define tp_as_f32v TP_TYPE(as_float)
#ifdef TP_FP64
typedef TP_TYPE(double) tp_f64v;
#define tp_as_f64v TP_TYPE(as_double)
#endif
#define TP_PRIVATE __private
#ifdef TP_INLINE
/* instructions in place of calls, as above */
#define TP_CONVERT(type, from, x) __builtin_convertvector(x, type)
#define TP_VECTOR_READ(space, type, p) (*(const space TP_UNALIGNED(type) *)(p))
#define TP_VECTOR_WRITE(space, type, p, v) (*(space TP_UNALIGNED(type) *)(p) = (v))
#define TP_ROLLED _Pragma("clang loop unroll(disable) vectorize(disable)")
#define TP_UNALIGNED(type) TP_JOIN(tp_unaligned_, type)
typedef tp_u8v __attribute__((aligned(1))) tp_unaligned_tp_u8;
typedef tp_u16v __attribute__((aligned(2))) tp_unaligned_tp_u16;
typedef tp_u32v __attribute__((aligned(4))) tp_unaligned_tp_u32;
typedef tp_u64v __attribute__((aligned(8))) tp_unaligned_tp_u64;
typedef tp_f32v __attribute__((aligned(4))) tp_unaligned_float;
static tp_f32v tp_fma_f32v(tp_f32v a, tp_f32v b, tp_f32v c) {
#pragma OPENCL FP_CONTRACT ON
  return a * b + c;
}
#ifdef TP_FP64
typedef tp_f64v __attribute__((aligned(8))) tp_unaligned_double;
static tp_f64v tp_fma_f64v(tp_f64v a, tp_f64v b, tp_f64v c) {
#pragma OPENCL FP_CONTRACT ON
  return a * b + c;
}
#endif
#else
#define TP_CONVERT(type, from, x) TP_TYPE(convert_##from)(x)
#define TP_VECTOR_READ(space, type, p) TP_JOIN(vload, TP_WIDTH)(0, (const space type *)(p))
#define TP_VECTOR_WRITE(space, type, p, v) TP_JOIN(vstore, TP_WIDTH)(v, 0, (space type *)(p))
#define TP_ROLLED __attribute__((opencl_unroll_hint(1)))
#define tp_fma_f32v fma
#define tp_fma_f64v fma
#endif
#define tp_convert_u8v(x) TP_CONVERT(tp_u8v, uchar, x)
#define tp_convert_i8v(x) TP_CONVERT(tp_i8v, char, x)
#define tp_convert_u16v(x) TP_CONVERT(tp_u16v, ushort, x)
#define tp_convert_i16v(x) TP_CONVERT(tp_i16v, short, x)
#define tp_convert_u32v(x) TP_CONVERT(tp_u32v, uint, x)
#define tp_convert_i32v(x) TP_CONVERT(tp_i32v, int, x)
#define tp_convert_u64v(x) TP_CONVERT(tp_u64v, ulong, x)
#define tp_convert_i64v(x) TP_CONVERT(tp_i64v, long, x)
#define tp_convert_f32v(x) TP_CONVERT(tp_f32v, float, x)
#define tp_convert_f64v(x) TP_CONVERT(tp_f64v, double, x)
static tp_bool tp_all(tp_boolv v) {
#if TP_WIDTH == 16
  const int8 most = v.lo & v.hi;
  const int4 four = most.lo & most.hi;
#elif TP_WIDTH == 8
  const int4 four = v.lo & v.hi;
#else
  const int4 four = v;
#endif
  return (four.x & four.y & four.z & four.w) != 0;
}
"""

_FUNCTIONS = (
    "acos acosh asin asinh atan atan2 atanh cbrt cos cosh cospi erf erfc exp exp2 exp10 expm1 fmod hypot lgamma log "
    "log10 log1p log2 nextafter pow remainder sin sinh sinpi tan tanh tgamma"
).split()  # section 6.12.2, table 6.8


def spelling() -> Spelling:
    """OpenCL C."""
    kept = "\n".join(_keeping_nan(name) for name in _LOSE_NAN)
    preamble = f"{PREAMBLE}#ifdef POCL_DEVICE_ADDRESS_BITS\n{kept}\n#endif\n"
    return Spelling("OpenCL C", "cl", preamble, dict(zip(_FUNCTIONS, _FUNCTIONS, strict=True)), VECTORS)


def _keeping_nan(name: str) -> str:
    """Put in place of a function of one number one that gives NaN for NaN."""

    def definition(kind: str) -> str:
        return f"{kind} __attribute__((overloadable)) tp_{name}({kind} x) {{ return x == x ? {name}(x) : x; }}"

    return (
        f"{definition('float')}\n#ifdef TP_FP64\n{definition('double')}\n#endif\n"
        f"#undef {name}\n#define {name} tp_{name}"
    )

/* What kernels written by torchport use, in terms of the macros and types that a language's preamble defines. */

/* the address space of pointers to scratchpad memory, in languages that have address spaces */
#ifndef TP_SCRATCHPAD_POINTER
#define TP_SCRATCHPAD_POINTER
#endif

/* 16-bit floats, by their bits: to nearest even, denormals kept, NaN quiet. */
static float tp_f16_to_f32(tp_u16 h) {
  const tp_u32 sign = (tp_u32)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 1023u;
  if (exponent == 31u) return tp_as_f32(sign | 0x7f800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0u));
  if (exponent) return tp_as_f32(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  {
    const float magnitude = (float)mantissa * 5.9604644775390625e-8f; /* 2^-24 */
    return tp_as_f32(sign | tp_as_u32(magnitude));
  }
}
static tp_u16 tp_f32_to_f16(float x) {
  const tp_u32 bits = tp_as_u32(x), sign = (bits >> 16) & 0x8000u;
  tp_u32 magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (tp_u16)(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
  if (magnitude >= 0x477ff000u) return (tp_u16)(sign | 0x7c00u); /* rounds to 65536 or more */
  if (magnitude < 0x38800000u) { /* below 2^-14: the sum rounds at 2^-24 */
    return (tp_u16)(sign | (tp_as_u32(tp_as_f32(magnitude) + 0.5f) & 0x7ffu));
  }
  magnitude += 0xfffu + ((magnitude >> 13) & 1u);
  return (tp_u16)(sign | ((magnitude - 0x38000000u) >> 13));
}

/* minimum and maximum that take the other number in place of a NaN, of scalars and of vectors: no number is less or
   greater than NaN, so where a is NaN the comparison gives b */
#define TP_MINNUM(T, B) \
  static T tp_minnum_##B(T a, T b) { return b != b ? a : (a < b ? a : b); } \
  static T tp_maxnum_##B(T a, T b) { return b != b ? a : (a > b ? a : b); }

/* minimum and maximum that propagate NaN and order -0 below +0 */
#define TP_MINIMUM(T, U, B, as) \
  static T tp_minimum_##B(T a, T b) { \
    if (a != a) return a; \
    if (b != b) return b; \
    if (a == b) return ((U)as(a) >> (8 * sizeof(T) - 1)) ? a : b; \
    return a < b ? a : b; \
  } \
  static T tp_maximum_##B(T a, T b) { \
    if (a != a) return a; \
    if (b != b) return b; \
    if (a == b) return ((U)as(a) >> (8 * sizeof(T) - 1)) ? b : a; \
    return a > b ? a : b; \
  } \
  TP_MINNUM(T, B)
TP_MINIMUM(float, tp_u32, f32, tp_as_u32)
#ifdef TP_FP64
TP_MINIMUM(double, tp_u64, f64, tp_as_u64)
#endif

/* atomics that a language has no instruction for, on top of compare and swap */
#define TP_ATOMIC(name, T, W, from, to, expression) \
  static T name(TP_GLOBAL W *p, T b) { \
    W seen = *(volatile TP_GLOBAL W *)p; \
    for (;;) { \
      const T a = from(seen); \
      const W before = tp_cas_##W(p, seen, to(expression)); \
      if (before == seen) return a; \
      seen = before; \
    } \
  }
#define TP_SAME(x) (x)
TP_ATOMIC(tp_atomic_fadd_f32, float, tp_u32, tp_as_f32, tp_as_u32, a + b)
TP_ATOMIC(tp_atomic_xchg_u32, tp_u32, tp_u32, TP_SAME, TP_SAME, b)
TP_ATOMIC(tp_atomic_add_u32, tp_u32, tp_u32, TP_SAME, TP_SAME, a + b)
TP_ATOMIC(tp_atomic_and_u32, tp_u32, tp_u32, TP_SAME, TP_SAME, a & b)
TP_ATOMIC(tp_atomic_or_u32, tp_u32, tp_u32, TP_SAME, TP_SAME, a | b)
TP_ATOMIC(tp_atomic_xor_u32, tp_u32, tp_u32, TP_SAME, TP_SAME, a ^ b)
TP_ATOMIC(tp_atomic_max_u32, tp_u32, tp_u32, TP_SAME, TP_SAME, (tp_u32)((tp_i32)a > (tp_i32)b ? a : b))
TP_ATOMIC(tp_atomic_min_u32, tp_u32, tp_u32, TP_SAME, TP_SAME, (tp_u32)((tp_i32)a < (tp_i32)b ? a : b))
TP_ATOMIC(tp_atomic_umax_u32, tp_u32, tp_u32, TP_SAME, TP_SAME, a > b ? a : b)
TP_ATOMIC(tp_atomic_umin_u32, tp_u32, tp_u32, TP_SAME, TP_SAME, a < b ? a : b)
#ifdef TP_ATOMIC64
TP_ATOMIC(tp_atomic_xchg_u64, tp_u64, tp_u64, TP_SAME, TP_SAME, b)
TP_ATOMIC(tp_atomic_add_u64, tp_u64, tp_u64, TP_SAME, TP_SAME, a + b)
TP_ATOMIC(tp_atomic_and_u64, tp_u64, tp_u64, TP_SAME, TP_SAME, a & b)
TP_ATOMIC(tp_atomic_or_u64, tp_u64, tp_u64, TP_SAME, TP_SAME, a | b)
TP_ATOMIC(tp_atomic_xor_u64, tp_u64, tp_u64, TP_SAME, TP_SAME, a ^ b)
TP_ATOMIC(tp_atomic_max_u64, tp_u64, tp_u64, TP_SAME, TP_SAME, (tp_u64)((tp_i64)a > (tp_i64)b ? a : b))
TP_ATOMIC(tp_atomic_min_u64, tp_u64, tp_u64, TP_SAME, TP_SAME, (tp_u64)((tp_i64)a < (tp_i64)b ? a : b))
TP_ATOMIC(tp_atomic_umax_u64, tp_u64, tp_u64, TP_SAME, TP_SAME, a > b ? a : b)
TP_ATOMIC(tp_atomic_umin_u64, tp_u64, tp_u64, TP_SAME, TP_SAME, a < b ? a : b)
#ifdef TP_FP64
TP_ATOMIC(tp_atomic_fadd_f64, double, tp_u64, tp_as_f64, tp_as_u64, a + b)
#endif
#endif

/* 16-bit floats: the half of a 32-bit word that they are in */
#define TP_ATOMIC16(name, widen, narrow) \
  static tp_u16 name(TP_GLOBAL tp_u16 *p, tp_u16 b) { \
    const tp_u32 shift = 8u * (tp_u32)((tp_u64)p & 2u); \
    TP_GLOBAL tp_u32 *word = (TP_GLOBAL tp_u32 *)((TP_GLOBAL tp_u8 *)p - ((tp_u64)p & 2u)); \
    tp_u32 seen = *(volatile TP_GLOBAL tp_u32 *)word; \
    for (;;) { \
      const tp_u16 a = (tp_u16)(seen >> shift); \
      const tp_u32 sum = (tp_u32)narrow(widen(a) + widen(b)) << shift; \
      const tp_u32 before = tp_cas_tp_u32(word, seen, (seen & ~(0xffffu << shift)) | sum); \
      if (before == seen) return a; \
      seen = before; \
    } \
  }
static tp_u16 tp_cas_u16(TP_GLOBAL tp_u16 *p, tp_u16 expected, tp_u16 value) {
  const tp_u32 shift = 8u * (tp_u32)((tp_u64)p & 2u);
  TP_GLOBAL tp_u32 *word = (TP_GLOBAL tp_u32 *)((TP_GLOBAL tp_u8 *)p - ((tp_u64)p & 2u));
  tp_u32 seen = *(volatile TP_GLOBAL tp_u32 *)word;
  for (;;) {
    const tp_u16 a = (tp_u16)(seen >> shift);
    const tp_u32 wanted = (seen & ~(0xffffu << shift)) | ((tp_u32)value << shift);
    if (a != expected) return a;
    {
      const tp_u32 before = tp_cas_tp_u32(word, seen, wanted);
      if (before == seen) return a;
      seen = before;
    }
  }
}
static float tp_bf16_to_f32(tp_u16 x) { return tp_as_f32((tp_u32)x << 16); }
static tp_u16 tp_f32_to_bf16(float x) {
  const tp_u32 bits = tp_as_u32(x);
  if (x != x) return (tp_u16)((bits >> 16) | 0x40u);
  return (tp_u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
TP_ATOMIC16(tp_atomic_fadd_f16, tp_f16_to_f32, tp_f32_to_f16)
TP_ATOMIC16(tp_atomic_fadd_bf16, tp_bf16_to_f32, tp_f32_to_bf16)

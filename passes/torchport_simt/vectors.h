/* What kernels with vectors use, in terms of the macros and types that a language defines for them. */

/* minimum and maximum that propagate NaN and order -0 below +0: of equal numbers, all bits or any */
#define TP_MINIMUM_VECTOR(T, B, as, from) \
  static T tp_minimum_##B(T a, T b) { \
    const T least = a < b ? a : (a == b ? from(as(a) | as(b)) : b); \
    return a != a ? a : least; \
  } \
  static T tp_maximum_##B(T a, T b) { \
    const T most = a > b ? a : (a == b ? from(as(a) & as(b)) : b); \
    return a != a ? a : most; \
  } \
  TP_MINNUM(T, B)
TP_MINIMUM_VECTOR(tp_f32v, f32v, tp_as_u32v, tp_as_f32v)
#ifdef TP_FP64
TP_MINIMUM_VECTOR(tp_f64v, f64v, tp_as_u64v, tp_as_f64v)
#endif

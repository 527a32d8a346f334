// Functions that other targets call in their library, in f64 on every adapter that has it; those of f32 are rounded once.
// Series are Taylor's, after reductions that leave less than 2^-50 behind the last term. Sources: Muller, "Elementary
// Functions", 3rd ed.; Payne and Hanek, "Radian reduction for trigonometric functions", 1983.
fn tp_is_negative(x: f64) -> bool { return (tp_high(bitcast<u64>(x)) >> 31u) != 0u; }
fn tp_not_a_number() -> f64 { return tp_f64_of(0u, 0x7ff80000u); }
fn tp_infinity() -> f64 { return tp_f64_of(0u, 0x7ff00000u); }
fn tp_power_of_two(n: i32) -> f64 { return bitcast<f64>(u64(u32(n + 1023)) << 52u); }
// x * 2^n, also where 2^n is no number.
fn tp_scaled(x: f64, n: i32) -> f64 {
  let first = clamp(n, -1000, 1000);
  let second = clamp(n - first, -1000, 1000);
  return tp_mul_f64(tp_mul_f64(x, tp_power_of_two(first)), tp_power_of_two(second));
}

// e^x - 1 for |x| up to 0.35.
fn tp_exp_series(r: f64) -> f64 {
  var sum = 1.0lf / 6227020800.0lf;
  sum = sum * r + 1.0lf / 479001600.0lf;
  sum = sum * r + 1.0lf / 39916800.0lf;
  sum = sum * r + 1.0lf / 3628800.0lf;
  sum = sum * r + 1.0lf / 362880.0lf;
  sum = sum * r + 1.0lf / 40320.0lf;
  sum = sum * r + 1.0lf / 5040.0lf;
  sum = sum * r + 1.0lf / 720.0lf;
  sum = sum * r + 1.0lf / 120.0lf;
  sum = sum * r + 1.0lf / 24.0lf;
  sum = sum * r + 1.0lf / 6.0lf;
  return tp_add_f64(r, tp_mul_f64(r, tp_hide_f64((sum * r + 0.5lf) * r)));
}
fn tp_exp_f64(x: f64) -> f64 {
  if (tp_nan_f64(x)) { return tp_add_f64(x, x); }
  let near = min(max(x, -800.0lf), 800.0lf);
  let n = tp_rint_f64(tp_mul_f64(near, 1.4426950408889634lf));
  // ln 2 in two parts, of which the first has 33 bits: n times it is exact.
  let high = tp_sub_f64(near, tp_mul_f64(n, tp_f64_of(0xfee00000u, 0x3fe62e42u)));
  let r = tp_sub_f64(high, tp_mul_f64(n, tp_f64_of(0x35793c76u, 0x3dea39efu)));
  return tp_scaled(tp_add_f64(1.0lf, tp_exp_series(r)), i32(n));
}
fn tp_expm1_f64(x: f64) -> f64 {
  if (tp_fabs_f64(x) < 0.35lf) { return select(tp_exp_series(x), x, tp_fabs_f64(x) < 1e-300lf); }
  return tp_sub_f64(tp_exp_f64(x), 1.0lf);
}
// 2 artanh(s) - 2 s, for |s| up to 0.172.
fn tp_log_series(s: f64) -> f64 {
  let z = tp_mul_f64(s, s);
  var sum = 2.0lf / 21.0lf;
  sum = sum * z + 2.0lf / 19.0lf;
  sum = sum * z + 2.0lf / 17.0lf;
  sum = sum * z + 2.0lf / 15.0lf;
  sum = sum * z + 2.0lf / 13.0lf;
  sum = sum * z + 2.0lf / 11.0lf;
  sum = sum * z + 2.0lf / 9.0lf;
  sum = sum * z + 2.0lf / 7.0lf;
  sum = sum * z + 2.0lf / 5.0lf;
  sum = sum * z + 2.0lf / 3.0lf;
  return tp_hide_f64(sum * z * s);
}
// The logarithm of x + d, where d is what x lost when it was rounded.
fn tp_log_of(x: f64, d: f64) -> f64 {
  if (tp_nan_f64(x) || tp_infinite_f64(x) && !tp_is_negative(x)) { return tp_add_f64(x, x); }
  if (tp_magnitude_f64(x) == 0lu) { return tp_neg_f64(tp_infinity()); }
  if (tp_is_negative(x)) { return tp_not_a_number(); }
  let parts = tp_unpack_f64(x);
  var exponent = parts.exponent + 63;
  var m = bitcast<f64>(((parts.high >> 11u) & ((1lu << 52u) - 1lu)) | (1023lu << 52u));
  if (m > 1.4142135623730951lf) {
    m = tp_mul_f64(m, 0.5lf);
    exponent += 1;
  }
  let f = tp_sub_f64(m, 1.0lf);
  let s = tp_div_f64(f, tp_add_f64(f, 2.0lf));
  // ln(1 + f) = f - (f^2/2 - s (f^2/2 + R)): f is exact, what is taken from it small.
  let half = tp_mul_f64(tp_mul_f64(f, 0.5lf), f);
  let rest = tp_mul_f64(s, tp_add_f64(half, tp_div_f64(tp_log_series(s), s + select(0.0lf, 1.0lf, s == 0.0lf))));
  let e = f64(exponent);
  let low = tp_add_f64(tp_mul_f64(e, tp_f64_of(0x35793c76u, 0x3dea39efu)), tp_add_f64(rest, tp_div_f64(d, x)));
  let high = tp_mul_f64(e, tp_f64_of(0xfee00000u, 0x3fe62e42u));
  return tp_sub_f64(high, tp_sub_f64(tp_sub_f64(half, low), f));
}
fn tp_log_f64(x: f64) -> f64 { return tp_log_of(x, 0.0lf); }
fn tp_log1p_f64(x: f64) -> f64 {
  if (tp_fabs_f64(x) < 1e-17lf || !tp_finite_f64(x)) { return select(x, tp_log_f64(x), tp_is_negative(x) && !tp_finite_f64(x)); }
  let sum = tp_add_f64(1.0lf, x);
  let lost = select(tp_sub_f64(1.0lf, tp_sub_f64(sum, x)), tp_sub_f64(x, tp_sub_f64(sum, 1.0lf)), tp_fabs_f64(x) < 1.0lf);
  return select(tp_log_of(sum, lost), tp_log_f64(sum), !(sum > 0.0lf));
}

// Where x is in quarters of a turn: their number modulo 4, and the rest of at most pi/4 and a little.
struct tp_Angle { quarter: u32, rest: f64 }
fn tp_reduced(x: f32) -> tp_Angle {
  let size = tp_fabs_f32(x);
  if (size < 0x1p22f) {
    let wide = f64(size);
    let n = tp_rint_f64(tp_mul_f64(wide, 0.6366197723675814lf));
    // pi/2 in three parts; the first two have 30 bits.
    var r = tp_sub_f64(wide, tp_mul_f64(n, tp_f64_of(0x50000000u, 0x3ff921fbu)));
    r = tp_sub_f64(r, tp_mul_f64(n, tp_f64_of(0x60000000u, 0x3e5110b4u)));
    r = tp_sub_f64(r, tp_mul_f64(n, tp_f64_of(0x1a626331u, 0x3c91a626u)));
    return tp_Angle(u32(i32(n)) & 3u, r);
  }
  let turned = tp_far(size);
  let part = tp_mul_f64(tp_s64_to_f64(turned.rest), tp_f64_of(0u, 0x3bf00000u));
  return tp_Angle(turned.quarter, tp_mul_f64(part, 1.5707963267948966lf));
}
fn tp_sine_series(r: f64) -> f64 {
  let z = tp_mul_f64(r, r);
  var sum = -1.0lf / 1307674368000.0lf;
  sum = sum * z + 1.0lf / 6227020800.0lf;
  sum = sum * z - 1.0lf / 39916800.0lf;
  sum = sum * z + 1.0lf / 362880.0lf;
  sum = sum * z - 1.0lf / 5040.0lf;
  sum = sum * z + 1.0lf / 120.0lf;
  sum = sum * z - 1.0lf / 6.0lf;
  return tp_add_f64(r, tp_mul_f64(tp_hide_f64(sum * z), r));
}
fn tp_cosine_series(r: f64) -> f64 {
  let z = tp_mul_f64(r, r);
  var sum = -1.0lf / 87178291200.0lf;
  sum = sum * z + 1.0lf / 479001600.0lf;
  sum = sum * z - 1.0lf / 3628800.0lf;
  sum = sum * z + 1.0lf / 40320.0lf;
  sum = sum * z - 1.0lf / 720.0lf;
  sum = sum * z + 1.0lf / 24.0lf;
  return tp_add_f64(1.0lf, tp_hide_f64((sum * z - 0.5lf) * z));
}
fn tp_turned(rest: f64, quarter: u32) -> f64 {
  let value = select(tp_sine_series(rest), tp_cosine_series(rest), (quarter & 1u) != 0u);
  return select(value, tp_neg_f64(value), (quarter & 2u) != 0u);
}
fn tp_sin_f32(x: f32) -> f32 {
  if (!tp_finite_f32(x)) { return tp_sub_f32(x, tp_hide_f32(x)); }
  if (tp_fabs_f32(x) < 0x1p-30f) { return x; }
  let angle = tp_reduced(x);
  let value = f32(tp_turned(angle.rest, angle.quarter));
  return select(value, tp_neg_f32(value), bitcast<u32>(x) >= 0x80000000u);
}
fn tp_cos_f32(x: f32) -> f32 {
  if (!tp_finite_f32(x)) { return tp_sub_f32(x, tp_hide_f32(x)); }
  let angle = tp_reduced(x);
  return f32(tp_turned(angle.rest, angle.quarter + 1u));
}
fn tp_tan_f32(x: f32) -> f32 {
  if (!tp_finite_f32(x)) { return tp_sub_f32(x, tp_hide_f32(x)); }
  if (tp_fabs_f32(x) < 0x1p-30f) { return x; }
  let angle = tp_reduced(x);
  let value = f32(tp_div_f64(tp_turned(angle.rest, angle.quarter), tp_turned(angle.rest, angle.quarter + 1u)));
  return select(value, tp_neg_f32(value), bitcast<u32>(x) >= 0x80000000u);
}
fn tp_sinpi_f32(x: f32) -> f32 {
  if (!tp_finite_f32(x)) { return tp_sub_f32(x, tp_hide_f32(x)); }
  let n = tp_rint_f32(tp_mul_f32(x, 2.0f));
  if (tp_mul_f32(n, 0.5f) == x && tp_trunc_f32(x) == x) { return tp_copysign_f32(tp_f32_of(0u), x); }
  let rest = tp_mul_f64(f64(tp_sub_f32(x, tp_mul_f32(n, 0.5f))), 3.141592653589793lf);
  return f32(tp_turned(rest, u32(i32(n)) & 3u));
}
fn tp_cospi_f32(x: f32) -> f32 {
  if (!tp_finite_f32(x)) { return tp_sub_f32(x, tp_hide_f32(x)); }
  if (tp_fabs_f32(x) >= 0x1p24f) { return tp_hide_f32(1.0f); }
  let n = tp_rint_f32(tp_mul_f32(x, 2.0f));
  let rest = tp_mul_f64(f64(tp_sub_f32(x, tp_mul_f32(n, 0.5f))), 3.141592653589793lf);
  if (rest == 0.0lf && (i32(n) & 1) != 0) { return tp_f32_of(0u); }
  return f32(tp_turned(rest, (u32(i32(n)) + 1u) & 3u));
}

// atan x / x - 1 for |x| up to tan(pi/16).
fn tp_atan_series(z: f64) -> f64 {
  var sum = 1.0lf / 21.0lf;
  sum = 1.0lf / 19.0lf - sum * z;
  sum = 1.0lf / 17.0lf - sum * z;
  sum = 1.0lf / 15.0lf - sum * z;
  sum = 1.0lf / 13.0lf - sum * z;
  sum = 1.0lf / 11.0lf - sum * z;
  sum = 1.0lf / 9.0lf - sum * z;
  sum = 1.0lf / 7.0lf - sum * z;
  sum = 1.0lf / 5.0lf - sum * z;
  sum = 1.0lf / 3.0lf - sum * z;
  return tp_hide_f64(-sum * z);
}
// The angle of (x, y) for x and y of at least 0, not both 0 or infinite.
fn tp_angle_of(y: f64, x: f64) -> f64 {
  let steep = y > x;
  let t = tp_div_f64(min(x, y), max(x, y));
  // Of tangents up to 1, the nearest multiple of pi/8 is taken away.
  let k = u32(t > 0.19891236737965800lf) + u32(t > 0.66817863791929890lf);
  let c = select(select(0.0lf, 0.41421356237309503lf, k == 1u), 1.0lf, k == 2u);
  let u = select(tp_div_f64(tp_sub_f64(t, c), tp_add_f64(1.0lf, tp_mul_f64(t, c))), t, k == 0u);
  let part = tp_add_f64(u, tp_mul_f64(u, tp_atan_series(tp_mul_f64(u, u))));
  let angle = tp_add_f64(part, tp_mul_f64(f64(k), 0.39269908169872414lf));
  return select(angle, tp_sub_f64(1.5707963267948966lf, angle), steep);
}
fn tp_atan_f64(x: f64) -> f64 {
  if (tp_nan_f64(x)) { return tp_add_f64(x, x); }
  let size = tp_fabs_f64(x);
  if (size < 1e-17lf) { return x; }
  if (tp_infinite_f64(x)) { return tp_copysign_f64(1.5707963267948966lf, x); }
  return tp_copysign_f64(tp_angle_of(size, 1.0lf), x);
}
fn tp_atan2_f64(y: f64, x: f64) -> f64 {
  if (tp_unordered_f64(x, y)) { return tp_add_f64(x, y); }
  let far_x = tp_infinite_f64(x);
  let far_y = tp_infinite_f64(y);
  let a = select(tp_fabs_f64(x), select(0.0lf, 1.0lf, far_x), far_x || far_y);
  let b = select(tp_fabs_f64(y), select(0.0lf, 1.0lf, far_y), far_x || far_y);
  var angle = 0.0lf;
  if (b != 0.0lf) { angle = tp_angle_of(b, a); }
  return tp_copysign_f64(select(angle, tp_sub_f64(3.141592653589793lf, angle), tp_is_negative(x)), y);
}
fn tp_asin_f64(x: f64) -> f64 {
  if (tp_fabs_f64(x) < 1e-17lf) { return x; }
  let root = tp_sqrt_f64(tp_mul_f64(tp_sub_f64(1.0lf, x), tp_add_f64(1.0lf, x)));
  return select(tp_atan2_f64(x, root), tp_not_a_number(), !(tp_fabs_f64(x) <= 1.0lf));
}
fn tp_acos_f64(x: f64) -> f64 {
  let root = tp_sqrt_f64(tp_mul_f64(tp_sub_f64(1.0lf, x), tp_add_f64(1.0lf, x)));
  return select(tp_atan2_f64(root, x), tp_not_a_number(), !(tp_fabs_f64(x) <= 1.0lf));
}
fn tp_sinh_f64(x: f64) -> f64 {
  if (!tp_finite_f64(x)) { return tp_add_f64(x, x); }
  let size = tp_fabs_f64(x);
  if (size < 1e-9lf) { return x; }
  let half = tp_exp_f64(tp_mul_f64(size, 0.5lf));
  if (size > 40.0lf) { return tp_copysign_f64(tp_mul_f64(tp_mul_f64(half, 0.5lf), half), x); }
  let t = tp_expm1_f64(size);
  return tp_copysign_f64(tp_mul_f64(0.5lf, tp_add_f64(t, tp_div_f64(t, tp_add_f64(t, 1.0lf)))), x);
}
fn tp_cosh_f64(x: f64) -> f64 {
  if (!tp_finite_f64(x)) { return tp_mul_f64(x, tp_hide_f64(x)); }
  let half = tp_exp_f64(tp_mul_f64(tp_fabs_f64(x), 0.5lf));
  let whole = tp_mul_f64(half, half);
  let far = tp_mul_f64(tp_mul_f64(half, 0.5lf), half);
  return select(tp_add_f64(far, tp_div_f64(0.5lf, whole)), far, tp_fabs_f64(x) > 40.0lf);
}
fn tp_asinh_f64(x: f64) -> f64 {
  let size = tp_fabs_f64(x);
  if (!tp_finite_f64(x) || size < 1e-9lf) { return x; }
  let square = tp_mul_f64(size, size);
  let grown = tp_add_f64(1.0lf, tp_sqrt_f64(tp_add_f64(1.0lf, square)));
  return tp_copysign_f64(tp_log1p_f64(tp_add_f64(size, tp_div_f64(square, grown))), x);
}
fn tp_acosh_f64(x: f64) -> f64 {
  let t = tp_sub_f64(x, 1.0lf);
  let root = tp_sqrt_f64(tp_add_f64(tp_mul_f64(2.0lf, t), tp_mul_f64(t, tp_hide_f64(t))));
  return select(tp_log1p_f64(tp_add_f64(t, root)), tp_not_a_number(), !(x >= 1.0lf));
}
fn tp_atanh_f64(x: f64) -> f64 {
  let size = tp_fabs_f64(x);
  if (size < 1e-9lf) { return x; }
  let ratio = tp_div_f64(tp_mul_f64(2.0lf, size), tp_sub_f64(1.0lf, size));
  let value = tp_copysign_f64(tp_mul_f64(0.5lf, tp_log1p_f64(ratio)), x);
  return select(value, tp_not_a_number(), !(size <= 1.0lf));
}

// x^y by C's rules (C11, F.10.4.4).
fn tp_pow_f32(x: f32, y: f32) -> f32 {
  if (tp_magnitude(y) == 0u || x == 1.0f) { return tp_hide_f32(1.0f); }
  if (tp_unordered_f32(x, y)) { return tp_add_f32(x, y); }
  let whole = tp_trunc_f32(y) == y;
  let odd = whole && tp_fabs_f32(y) < 0x1p24f && (i32(y) & 1) != 0;
  let negative = bitcast<u32>(x) >= 0x80000000u;
  let down = bitcast<u32>(y) >= 0x80000000u;
  if (tp_infinite_f32(y)) {
    let size = tp_fabs_f32(x);
    if (size == 1.0f) { return tp_hide_f32(1.0f); }
    return tp_f32_of(select(0u, 0x7f800000u, (size > 1.0f) != down));
  }
  if (tp_magnitude(x) == 0u || tp_infinite_f32(x)) {
    let grows = tp_infinite_f32(x) != down;
    return tp_f32_of(select(0u, 0x7f800000u, grows) | select(0u, 0x80000000u, negative && odd));
  }
  if (negative && !whole) { return tp_f32_of(0x7fc00000u); }
  let power = tp_mul_f64(f64(y), tp_log_f64(f64(tp_fabs_f32(x))));
  let value = f32(tp_exp_f64(power));
  return select(value, tp_neg_f32(value), negative && odd);
}
fn tp_magnitude(x: f32) -> u32 { return bitcast<u32>(x) & 0x7fffffffu; }
fn tp_cbrt_f32(x: f32) -> f32 {
  if (tp_magnitude(x) == 0u || !tp_finite_f32(x)) { return tp_add_f32(x, x); }
  let size = f64(tp_fabs_f32(x));
  let root = tp_exp_f64(tp_div_f64(tp_log_f64(size), 3.0lf));
  let better = tp_sub_f64(root, tp_div_f64(tp_sub_f64(tp_mul_f64(tp_mul_f64(root, root), root), size), tp_mul_f64(3.0lf, tp_mul_f64(root, root))));
  return tp_copysign_f32(f32(better), x);
}
fn tp_hypot_f32(x: f32, y: f32) -> f32 {
  if (tp_infinite_f32(x) || tp_infinite_f32(y)) { return tp_f32_of(0x7f800000u); }
  return f32(tp_sqrt_f64(tp_add_f64(tp_mul_f64(f64(x), f64(x)), tp_mul_f64(f64(y), f64(y)))));
}
fn tp_exp10_f32(x: f32) -> f32 { return f32(tp_exp_f64(tp_mul_f64(f64(x), 2.302585092994046lf))); }
fn tp_expm1_f32(x: f32) -> f32 { return f32(tp_expm1_f64(f64(x))); }
fn tp_log1p_f32(x: f32) -> f32 { return f32(tp_log1p_f64(f64(x))); }
fn tp_log10_f32(x: f32) -> f32 { return f32(tp_mul_f64(tp_log_f64(f64(x)), 0.4342944819032518lf)); }
fn tp_atan_f32(x: f32) -> f32 { return f32(tp_atan_f64(f64(x))); }
fn tp_atan2_f32(y: f32, x: f32) -> f32 { return f32(tp_atan2_f64(f64(y), f64(x))); }
fn tp_asin_f32(x: f32) -> f32 { return f32(tp_asin_f64(f64(x))); }
fn tp_acos_f32(x: f32) -> f32 { return f32(tp_acos_f64(f64(x))); }
fn tp_atanh_f32(x: f32) -> f32 { return f32(tp_atanh_f64(f64(x))); }

// The remainder of x / y with the sign of x, exact: long division, a bit at a time.
fn tp_fmod_f64(x: f64, y: f64) -> f64 {
  if (!tp_finite_f64(x) || tp_nan_f64(y) || tp_magnitude_f64(y) == 0lu) { return tp_not_a_number(); }
  if (tp_infinite_f64(y) || tp_fabs_f64(x) < tp_fabs_f64(y) || tp_magnitude_f64(x) == 0lu) { return x; }
  let a = tp_unpack_f64(x);
  let b = tp_unpack_f64(y);
  let divisor = b.high >> 1u;
  var rest = a.high >> 1u;
  for (var i = a.exponent - b.exponent; i > 0; i--) {
    rest = select(rest, rest - divisor, rest >= divisor) << 1u;
  }
  rest = select(rest, rest - divisor, rest >= divisor);
  if (rest == 0lu) { return tp_copysign_f64(0.0lf, x); }
  let shift = tp_clz_u64(rest);
  let exponent = b.exponent + 1 - i32(shift);
  let mantissa = (rest << shift) >> 11u;
  let field = exponent + 1086;
  let bits = select(mantissa >> min(u32(max(1 - field, 0)), 63u), (u64(u32(max(field - 1, 0))) << 52u) + mantissa, field >= 1);
  return tp_copysign_f64(bitcast<f64>(bits), x);
}

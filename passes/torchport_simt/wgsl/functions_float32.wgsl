// Functions of f32 where there is no f64. sin and cos up to 65536 are the CPU target's code (scalar/mathlib/trigonometric.py) and
// give its bits; beyond, by the reduction of turns.wgsl, rounded to two f32. At most 0.9 ULP.
fn tp_of_turn(r: f32, lost: f32, turns: u32) -> f32 {
  let square = tp_mul_f32(r, r);
  var s = tp_fma_f32(square, 0x1.7cd640p-19f, -0x1.a05bb6p-13f);
  s = tp_fma_f32(s, square, 0x1.111176p-7f);
  s = tp_fma_f32(s, square, -0x1.555556p-3f);
  let sine = tp_add_f32(r, tp_fma_f32(tp_mul_f32(r, square), s, lost));
  let head = tp_fma_f32(square, -0.5f, 1.0f);
  let rest = tp_fma_f32(square, -0.5f, tp_sub_f32(1.0f, head));
  var c = tp_fma_f32(square, 0x1.99e0e4p-16f, -0x1.6c0c1ap-10f);
  c = tp_fma_f32(c, square, 0x1.55554ap-5f);
  let cosine = tp_add_f32(head, tp_fma_f32(tp_mul_f32(square, square), c, tp_fma_f32(r, tp_neg_f32(lost), rest)));
  let chosen = select(sine, cosine, (turns & 1u) != 0u);
  return bitcast<f32>(bitcast<u32>(chosen) ^ ((turns & 2u) << 30u));
}
struct tp_Reduced { r: f32, lost: f32, turns: u32 }
fn tp_reduced_f32(x: f32) -> tp_Reduced {
  if (tp_fabs_f32(x) <= 65536.0f) {
    let shifted = tp_fma_f32(x, 0x1.45f306p-1f, 12582912.0f);
    let n = tp_sub_f32(shifted, 12582912.0f);
    let exact = tp_fma_f32(n, -0x1.921fb6p+0f, x);
    let product = tp_mul_f32(n, -0x1.777a5cp-25f);
    let r = tp_sub_f32(exact, product);
    let rounded = tp_fma_f32(n, 0x1.777a5cp-25f, product);
    let under = tp_add_f32(tp_sub_f32(tp_sub_f32(exact, r), product), rounded);
    return tp_Reduced(r, tp_fma_f32(n, 0x1.ee59dap-50f, under), bitcast<u32>(shifted));
  }
  let turned = tp_far(tp_fabs_f32(x));
  let size = tp_abs_u64(turned.rest);
  let shift = tp_clz_u64(size);
  let bits = tp_shl_u64(size, shift);
  let unit = bitcast<f32>((103u - min(shift, 63u)) << 23u);  // 2^(-24 - shift)
  let high = tp_mul_f32(f32(tp_high(bits) >> 8u), unit);
  let low = tp_mul_f32(tp_mul_f32(f32(((tp_high(bits) & 255u) << 16u) | (tp_low(bits) >> 16u)), 0x1p-24f), unit);
  let r = tp_mul_f32(high, 0x1.921fb6p+0f);
  var lost = tp_fma_f32(high, 0x1.921fb6p+0f, tp_neg_f32(r));
  lost = tp_fma_f32(low, 0x1.921fb6p+0f, tp_fma_f32(high, -0x1.777a5cp-25f, lost));
  let sign = (tp_high(turned.rest) ^ bitcast<u32>(x)) & 0x80000000u;
  let backwards = bitcast<u32>(x) >= 0x80000000u;
  let turns = select(turned.quarter, (4u - turned.quarter) & 3u, backwards);
  return tp_Reduced(tp_f32_of(bitcast<u32>(r) ^ sign), tp_f32_of(bitcast<u32>(lost) ^ sign), turns);
}
fn tp_sin_f32(x: f32) -> f32 {
  if (!tp_finite_f32(x)) { return tp_sub_f32(x, tp_hide_f32(x)); }
  let found = tp_reduced_f32(x);
  return select(tp_of_turn(found.r, found.lost, found.turns), x, (bitcast<u32>(x) & 0x7fffffffu) == 0u);
}
fn tp_cos_f32(x: f32) -> f32 {
  if (!tp_finite_f32(x)) { return tp_sub_f32(x, tp_hide_f32(x)); }
  let found = tp_reduced_f32(x);
  return tp_of_turn(found.r, found.lost, found.turns + 1u);
}
// log(1 + x) as in fdlibm's s_log1p.c, with its series for 2 artanh: at most 1 ULP.
fn tp_log1p_f32(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  if (tp_nan_f32(x)) { return tp_add_f32(x, x); }
  if (bits == 0x7f800000u || (bits & 0x7fffffffu) < 0x33000000u) { return x; }
  if (bits >= 0xbf800000u) { return tp_f32_of(select(0x7fc00000u, 0xff800000u, bits == 0xbf800000u)); }
  let near = x > -0.29289f && x < 0.41421f;
  let u = tp_add_f32(1.0f, x);
  let lost = select(tp_sub_f32(1.0f, tp_sub_f32(u, x)), tp_sub_f32(x, tp_sub_f32(u, 1.0f)), tp_fabs_f32(x) < 1.0f);
  let high = bitcast<u32>(u) + (0x3f800000u - 0x3f3504f3u);  // from sqrt(1/2) on
  let e = select(f32(i32(high >> 23u) - 127), 0.0f, near);
  let m = tp_f32_of((high & 0x7fffffu) + 0x3f3504f3u);
  let f = select(tp_sub_f32(m, 1.0f), x, near);
  let s = tp_div_f32(f, tp_add_f32(2.0f, f));
  let z = tp_mul_f32(s, s);
  var sum = tp_fma_f32(z, 0x1.c71c72p-3f, 0x1.24924ap-2f);
  sum = tp_fma_f32(z, sum, 0x1.99999ap-2f);
  sum = tp_fma_f32(z, sum, 0x1.555556p-1f);
  let half = tp_mul_f32(tp_mul_f32(f, 0.5f), f);
  let under = select(tp_div_f32(lost, u), 0.0f, near);
  let low = tp_fma_f32(s, tp_fma_f32(z, sum, half), tp_fma_f32(e, 0x1.7f7d1cp-20f, under));
  return tp_add_f32(tp_mul_f32(e, 0x1.62e400p-1f), tp_sub_f32(f, tp_sub_f32(half, low)));
}
// e^x - 1 of the rest after whole powers of two, by Taylor's series: at most 1.5 ULP.
fn tp_expm1_f32(x: f32) -> f32 {
  if (tp_nan_f32(x)) { return tp_add_f32(x, x); }
  if ((bitcast<u32>(x) & 0x7fffffffu) < 0x33000000u) { return x; }
  let near = select(select(x, 88.8f, x > 88.8f), -20.0f, x < -20.0f);
  let n = tp_sub_f32(tp_fma_f32(near, 0x1.715476p+0f, 12582912.0f), 12582912.0f);
  let r = tp_fma_f32(n, -0x1.7f7d1cp-20f, tp_fma_f32(n, -0x1.62e400p-1f, near));
  var sum = tp_fma_f32(r, 0x1.a01a02p-16f, 0x1.a01a02p-13f);
  sum = tp_fma_f32(r, sum, 0x1.6c16c2p-10f);
  sum = tp_fma_f32(r, sum, 0x1.111112p-7f);
  sum = tp_fma_f32(r, sum, 0x1.555556p-5f);
  sum = tp_fma_f32(r, sum, 0x1.555556p-3f);
  sum = tp_fma_f32(r, sum, 0.5f);
  let found = tp_fma_f32(tp_mul_f32(r, r), sum, r);
  let power = tp_f32_of(u32(i32(n) + 126) << 23u);  // half of it, as the whole may be no number
  let scaled = tp_mul_f32(tp_fma_f32(power, found, tp_sub_f32(power, 0.5f)), 2.0f);
  return select(scaled, found, n == 0.0f);
}

// sin and cos of f32 where there is no f64. Up to 65536 it is the CPU target's code (scalar/mathlib/trigonometric.py) and
// gives its bits; beyond, the reduction of turns.wgsl, rounded to two f32. At most 0.9 ULP.
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

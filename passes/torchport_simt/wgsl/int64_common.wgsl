// 64-bit integers, whatever they are made of.
// Signed division by magnitudes: Mesa 22.3 gives remainders of an extended i32 by powers of two the wrong sign.
fn tp_negative_u64(x: tp_u64) -> bool { return tp_high(x) >= 0x80000000u; }
fn tp_negated_u64(x: tp_u64) -> tp_u64 { return tp_sub_u64(tp_u64_of(0u, 0u), x); }
fn tp_abs_u64(x: tp_u64) -> tp_u64 { return select(x, tp_negated_u64(x), tp_negative_u64(x)); }
fn tp_sdiv_u64(a: tp_u64, b: tp_u64) -> tp_u64 {
  let size = tp_udiv_u64(tp_abs_u64(a), tp_abs_u64(b));
  return select(size, tp_negated_u64(size), tp_negative_u64(a) != tp_negative_u64(b));
}
fn tp_srem_u64(a: tp_u64, b: tp_u64) -> tp_u64 {
  let size = tp_urem_u64(tp_abs_u64(a), tp_abs_u64(b));
  return select(size, tp_negated_u64(size), tp_negative_u64(a));
}
fn tp_clz_u64(x: tp_u64) -> u32 {
  return select(countLeadingZeros(tp_high(x)), 32u + countLeadingZeros(tp_low(x)), tp_high(x) == 0u);
}
fn tp_ctz_u64(x: tp_u64) -> u32 {
  return select(countTrailingZeros(tp_low(x)), 32u + countTrailingZeros(tp_high(x)), tp_low(x) == 0u);
}
fn tp_popcount_u64(x: tp_u64) -> u32 { return countOneBits(tp_low(x)) + countOneBits(tp_high(x)); }
fn tp_mulhi_u64(a: tp_u64, b: tp_u64) -> tp_u64 {
  let high = tp_u64_of(tp_high(a) * tp_high(b), tp_mulhi_u32(tp_high(a), tp_high(b)));
  let cross = tp_u64_of(tp_high(a) * tp_low(b), tp_mulhi_u32(tp_high(a), tp_low(b)));
  let other = tp_u64_of(tp_low(a) * tp_high(b), tp_mulhi_u32(tp_low(a), tp_high(b)));
  let left = tp_add_u64(cross, tp_u64_of(tp_mulhi_u32(tp_low(a), tp_low(b)), 0u));
  let right = tp_add_u64(other, tp_u64_of(tp_low(left), 0u));
  return tp_add_u64(tp_add_u64(high, tp_u64_of(tp_high(left), 0u)), tp_u64_of(tp_high(right), 0u));
}
fn tp_smulhi_u64(a: tp_u64, b: tp_u64) -> tp_u64 {
  var high = tp_mulhi_u64(a, b);
  if (tp_high(a) >= 0x80000000u) { high = tp_sub_u64(high, b); }
  if (tp_high(b) >= 0x80000000u) { high = tp_sub_u64(high, a); }
  return high;
}
// To f32, to nearest even: the top bits, with what is lost below them as a last bit.
fn tp_u64_to_f32(x: tp_u64) -> f32 {
  if (tp_high(x) == 0u) { return tp_rounded(tp_low(x)); }
  let shift = 32u - countLeadingZeros(tp_high(x));
  let top = tp_low(tp_shr_u64(x, shift));
  let lost = tp_equal_u64(tp_shl_u64(tp_shr_u64(x, shift), shift), x);
  return tp_rounded(top | select(1u, 0u, lost)) * bitcast<f32>((shift + 127u) << 23u);
}
fn tp_rounded(x: u32) -> f32 {
  if (x < 0x1000000u) { return f32(x); }
  let shift = 8u - countLeadingZeros(x);
  let half = (1u << shift) >> 1u;
  let whole = x >> shift;
  let rest = x & ((1u << shift) - 1u);
  let up = rest > half || (rest == half && (whole & 1u) != 0u);
  return f32(whole + u32(up)) * bitcast<f32>((shift + 127u) << 23u);
}
fn tp_s64_to_f32(x: tp_u64) -> f32 {
  let size = tp_u64_to_f32(tp_abs_u64(x));
  return select(size, tp_neg_f32(size), tp_high(x) >= 0x80000000u);
}
// From f32, of a number in range: its mantissa, shifted.
fn tp_f32_to_u64(x: f32) -> tp_u64 {
  let bits = bitcast<u32>(x);
  let exponent = (bits >> 23u) & 255u;
  let mantissa = tp_u64_of((bits & 0x7fffffu) | 0x800000u, 0u);
  if (exponent < 127u) { return tp_u64_of(0u, 0u); }
  if (exponent < 150u) { return tp_shr_u64(mantissa, 150u - exponent); }
  return tp_shl_u64(mantissa, exponent - 150u);
}
fn tp_f32_to_s64(x: f32) -> tp_u64 {
  let size = tp_f32_to_u64(x);
  if (bitcast<u32>(x) >= 0x80000000u) { return tp_sub_u64(tp_u64_of(0u, 0u), size); }
  return size;
}

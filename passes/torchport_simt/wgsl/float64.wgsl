// f64, where the adapter has it and 64-bit integers.
fn tp_as_f64(x: u64) -> f64 { return bitcast<f64>(x); }
fn tp_as_u64(x: f64) -> u64 { return bitcast<u64>(x); }
fn tp_hide_f64(x: f64) -> f64 { return bitcast<f64>(bitcast<u64>(x) ^ u64(tp_args.zero)); }
fn tp_f64_of(low: u32, high: u32) -> f64 { return bitcast<f64>(tp_u64_of(low ^ tp_args.zero, high)); }
fn tp_add_f64(a: f64, b: f64) -> f64 { return tp_hide_f64(a + b); }
fn tp_sub_f64(a: f64, b: f64) -> f64 { return tp_hide_f64(a - b); }
fn tp_mul_f64(a: f64, b: f64) -> f64 { return tp_hide_f64(a * b); }
fn tp_div_f64(a: f64, b: f64) -> f64 { return tp_hide_f64(a / b); }
fn tp_sqrt_f64(a: f64) -> f64 { return tp_hide_f64(sqrt(a)); }
fn tp_neg_f64(a: f64) -> f64 { return bitcast<f64>(bitcast<u64>(a) ^ (1lu << 63u)); }
fn tp_magnitude_f64(a: f64) -> u64 { return bitcast<u64>(a) & ((1lu << 63u) - 1lu); }
fn tp_fabs_f64(a: f64) -> f64 { return bitcast<f64>(tp_magnitude_f64(a)); }
fn tp_copysign_f64(a: f64, b: f64) -> f64 {
  return bitcast<f64>(tp_magnitude_f64(a) | (bitcast<u64>(b) & (1lu << 63u)));
}
fn tp_nan_f64(a: f64) -> bool { return tp_magnitude_f64(a) > (2047lu << 52u); }
fn tp_infinite_f64(a: f64) -> bool { return tp_magnitude_f64(a) == (2047lu << 52u); }
fn tp_finite_f64(a: f64) -> bool { return tp_magnitude_f64(a) < (2047lu << 52u); }
fn tp_unordered_f64(a: f64, b: f64) -> bool { return tp_nan_f64(a) || tp_nan_f64(b); }
fn tp_minnum_f64(a: f64, b: f64) -> f64 { return select(select(b, a, a < b), a, tp_nan_f64(b)); }
fn tp_maxnum_f64(a: f64, b: f64) -> f64 { return select(select(b, a, a > b), a, tp_nan_f64(b)); }
fn tp_minimum_f64(a: f64, b: f64) -> f64 {
  let least = select(select(b, a, a < b), bitcast<f64>(bitcast<u64>(a) | bitcast<u64>(b)), a == b);
  return select(select(least, b, tp_nan_f64(b)), a, tp_nan_f64(a));
}
fn tp_maximum_f64(a: f64, b: f64) -> f64 {
  let most = select(select(b, a, a > b), bitcast<f64>(bitcast<u64>(a) & bitcast<u64>(b)), a == b);
  return select(select(most, b, tp_nan_f64(b)), a, tp_nan_f64(a));
}
// Roundings: by adding and taking away 2^52, below which every number has a place for the whole part.
fn tp_rint_f64(x: f64) -> f64 {
  let huge = tp_f64_of(0u, 0x43300000u);
  let size = tp_fabs_f64(x);
  let whole = tp_sub_f64(tp_add_f64(size, huge), huge);
  return select(tp_copysign_f64(whole, x), x, tp_magnitude_f64(x) >= (1075lu << 52u));
}
fn tp_trunc_f64(x: f64) -> f64 {
  let size = tp_fabs_f64(x);
  let near = tp_fabs_f64(tp_rint_f64(size));
  let whole = select(near, tp_sub_f64(near, f64(1.0f)), near > size);
  return select(tp_copysign_f64(whole, x), x, tp_magnitude_f64(x) >= (1075lu << 52u));
}
fn tp_floor_f64(x: f64) -> f64 {
  let whole = tp_trunc_f64(x);
  return select(whole, tp_sub_f64(whole, f64(1.0f)), whole > x);
}
fn tp_ceil_f64(x: f64) -> f64 { return tp_neg_f64(tp_floor_f64(tp_neg_f64(x))); }
fn tp_round_f64(x: f64) -> f64 {
  let whole = tp_trunc_f64(x);
  let far = tp_fabs_f64(tp_sub_f64(x, whole)) >= f64(0.5f);
  return tp_copysign_f64(select(whole, tp_add_f64(whole, tp_copysign_f64(f64(1.0f), x)), far), x);
}
fn tp_u64_to_f64(x: u64) -> f64 {
  return tp_add_f64(f64(tp_high(x)) * tp_f64_of(0u, 0x41f00000u), f64(tp_low(x)));
}
fn tp_s64_to_f64(x: u64) -> f64 {
  return tp_add_f64(f64(bitcast<i32>(tp_high(x))) * tp_f64_of(0u, 0x41f00000u), f64(tp_low(x)));
}
fn tp_f64_to_u64(x: f64) -> u64 {
  let bits = bitcast<u64>(x);
  let exponent = u32(bits >> 52u) & 2047u;
  let mantissa = (bits & ((1lu << 52u) - 1lu)) | (1lu << 52u);
  if (exponent < 1023u) { return 0lu; }
  if (exponent < 1075u) { return mantissa >> (1075u - exponent); }
  return tp_shl_u64(mantissa, exponent - 1075u);
}
fn tp_f64_to_s64(x: f64) -> u64 {
  let size = tp_f64_to_u64(x);
  return select(size, 0lu - size, bitcast<i64>(x) < 0li);
}

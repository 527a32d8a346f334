// f64, where the adapter has it and 64-bit integers.
fn tp_as_f64(x: u64) -> f64 { return bitcast<f64>(x); }
fn tp_as_u64(x: f64) -> u64 { return bitcast<u64>(x); }
fn tp_hide_f64(x: f64) -> f64 { return bitcast<f64>(bitcast<u64>(x) ^ u64(tp_zero())); }
fn tp_f64_of(low: u32, high: u32) -> f64 { return bitcast<f64>(tp_u64_of(low ^ tp_zero(), high)); }
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
  return select(size, 0lu - size, tp_high(bitcast<u64>(x)) >= 0x80000000u);
}

// a * b + c with one rounding, in integers: the product of 106 bits and the addend in 128 bits, their highest bits at
// bit 125, the smaller one shifted to the right; a last bit tells that something was shifted out.
struct tp_Wide { high: u64, low: u64, exponent: i32 }
fn tp_unpack_f64(x: f64) -> tp_Wide {
  let size = tp_magnitude_f64(x);
  let field = i32(u32(size >> 52u));
  let fraction = size & ((1lu << 52u) - 1lu);
  let mantissa = select(fraction | (1lu << 52u), fraction, field == 0);
  let shift = tp_clz_u64(mantissa);
  return tp_Wide(mantissa << shift, 0lu, max(field, 1) - 1075 - i32(shift));
}
fn tp_shift_right(x: tp_Wide, shift: u32) -> tp_Wide {
  var high = x.high;
  var low = x.low;
  if (shift >= 64u) {
    low = high | select(0lu, 1lu, low != 0lu);
    high = 0lu;
  }
  let rest = min(shift - select(0u, 64u, shift >= 64u), 63u);
  let far = shift >= 127u;
  let mask = (1lu << rest) - 1lu;
  let lost = select(0lu, 1lu, (low & mask) != 0lu || (far && (low | high) != 0lu));
  let down = select(high << (64u - rest), 0lu, rest == 0u);
  let moved = select((low >> rest) | down, 0lu, far) | lost;
  return tp_Wide(select(high >> rest, 0lu, far), moved, x.exponent);
}
fn tp_fma_f64(a: f64, b: f64, c: f64) -> f64 {
  let product = tp_mul_f64(a, b);
  let none = tp_magnitude_f64(a) == 0lu || tp_magnitude_f64(b) == 0lu;
  if (!tp_finite_f64(a) || !tp_finite_f64(b) || none) { return tp_add_f64(product, c); }
  if (!tp_finite_f64(c)) { return tp_add_f64(c, c); }
  if (tp_magnitude_f64(c) == 0lu) { return product; }
  let x = tp_unpack_f64(a);
  let y = tp_unpack_f64(b);
  let z = tp_unpack_f64(c);
  var large = tp_Wide(tp_mulhi_u64(x.high, y.high), x.high * y.high, x.exponent + y.exponent);
  let spare = select(1u, 2u, (large.high >> 63u) != 0lu);
  large = tp_shift_right(large, spare);
  large.exponent += i32(spare);
  var small = tp_shift_right(z, 2u);
  small.exponent = z.exponent - 62;
  var sign = (bitcast<u64>(a) ^ bitcast<u64>(b)) >> 63u;
  var other = bitcast<u64>(c) >> 63u;
  let closer = large.high < small.high || (large.high == small.high && large.low < small.low);
  if (large.exponent < small.exponent || (large.exponent == small.exponent && closer)) {
    let kept = large;
    large = small;
    small = kept;
    let which = sign;
    sign = other;
    other = which;
  }
  small = tp_shift_right(small, u32(min(large.exponent - small.exponent, 127)));
  var low = large.low + small.low;
  var high = large.high + small.high + select(0lu, 1lu, low < large.low);
  if (sign != other) {
    low = large.low - small.low;
    high = large.high - small.high - select(0lu, 1lu, large.low < small.low);
  }
  if ((high | low) == 0lu) { return f64(0.0f); }
  let first = select(tp_clz_u64(high), 64u + tp_clz_u64(low), high == 0lu);
  if (first >= 64u) {
    high = low << (first - 64u);
    low = 0lu;
  } else {
    high = (high << first) | select(low >> (64u - first), 0lu, first == 0u);
    low = low << first;
  }
  let exponent = large.exponent + 127 - i32(first);
  var normal = tp_Wide(high, low, 0);
  var field = exponent + 1023;
  if (field >= 2047) { return bitcast<f64>((2047lu << 52u) | (sign << 63u)); }
  if (field < 1) {
    normal = tp_shift_right(normal, u32(min(1 - field, 127)));
    field = 1;
  }
  let rest = normal.high & 2047lu;
  let kept = normal.high >> 11u;
  let up = rest > 1024lu || (rest == 1024lu && (normal.low != 0lu || (kept & 1lu) != 0lu));
  return bitcast<f64>((u64(u32(field - 1)) << 52u) + kept + select(0lu, 1lu, up) | (sign << 63u));
}

// What kernels written by torchport use. Signed operands of u32 functions are i32; results are bits.

// Hide a number from the optimiser: tp_zero() is 0, which it does not know. WGSL allows it to reassociate and to fuse what
// it sees through, and to assume that there are no NaN and infinities.
fn tp_hide_f32(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) ^ tp_zero()); }
fn tp_f32_of(bits: u32) -> f32 { return bitcast<f32>(bits ^ tp_zero()); }
fn tp_add_f32(a: f32, b: f32) -> f32 { return tp_hide_f32(a + b); }
fn tp_sub_f32(a: f32, b: f32) -> f32 { return tp_hide_f32(a - b); }
fn tp_mul_f32(a: f32, b: f32) -> f32 { return tp_hide_f32(a * b); }
fn tp_neg_f32(a: f32) -> f32 { return bitcast<f32>(bitcast<u32>(a) ^ 0x80000000u); }
fn tp_fabs_f32(a: f32) -> f32 { return bitcast<f32>(bitcast<u32>(a) & 0x7fffffffu); }
fn tp_copysign_f32(a: f32, b: f32) -> f32 {
  return bitcast<f32>((bitcast<u32>(a) & 0x7fffffffu) | (bitcast<u32>(b) & 0x80000000u));
}
fn tp_nan_f32(a: f32) -> bool { return (bitcast<u32>(a) & 0x7fffffffu) > 0x7f800000u; }
fn tp_infinite_f32(a: f32) -> bool { return (bitcast<u32>(a) & 0x7fffffffu) == 0x7f800000u; }
fn tp_finite_f32(a: f32) -> bool { return (bitcast<u32>(a) & 0x7fffffffu) < 0x7f800000u; }
fn tp_unordered_f32(a: f32, b: f32) -> bool { return tp_nan_f32(a) || tp_nan_f32(b); }

// Minimum and maximum that take the other number in place of a NaN, and those that propagate it and order -0 below +0.
fn tp_minnum_f32(a: f32, b: f32) -> f32 { return select(select(b, a, a < b), a, tp_nan_f32(b)); }
fn tp_maxnum_f32(a: f32, b: f32) -> f32 { return select(select(b, a, a > b), a, tp_nan_f32(b)); }
fn tp_minimum_f32(a: f32, b: f32) -> f32 {
  let least = select(select(b, a, a < b), bitcast<f32>(bitcast<u32>(a) | bitcast<u32>(b)), a == b);
  return select(select(least, b, tp_nan_f32(b)), a, tp_nan_f32(a));
}
fn tp_maximum_f32(a: f32, b: f32) -> f32 {
  let most = select(select(b, a, a > b), bitcast<f32>(bitcast<u32>(a) & bitcast<u32>(b)), a == b);
  return select(select(most, b, tp_nan_f32(b)), a, tp_nan_f32(a));
}

// Roundings: numbers of 2^23 and more, infinities and NaN are whole already.
fn tp_whole_f32(x: f32, rounded: f32) -> f32 {
  return select(tp_copysign_f32(rounded, x), x, (bitcast<u32>(x) & 0x7fffffffu) >= 0x4b000000u);
}
fn tp_trunc_f32(x: f32) -> f32 { return tp_whole_f32(x, trunc(x)); }
fn tp_floor_f32(x: f32) -> f32 { return tp_whole_f32(x, floor(x)); }
fn tp_ceil_f32(x: f32) -> f32 { return tp_whole_f32(x, ceil(x)); }
fn tp_rint_f32(x: f32) -> f32 { return tp_whole_f32(x, round(x)); }
fn tp_round_f32(x: f32) -> f32 {
  let whole = tp_hide_f32(trunc(x));
  let far = tp_fabs_f32(tp_sub_f32(x, whole)) >= 0.5f;
  return tp_whole_f32(x, select(whole, tp_add_f32(whole, tp_copysign_f32(1.0f, x)), far));
}

// 16-bit floats, by their bits: to nearest even, denormals kept, NaN quiet.
fn tp_f16_to_f32(h: u32) -> f32 {
  let sign = (h & 0x8000u) << 16u;
  let exponent = (h >> 10u) & 31u;
  let mantissa = h & 1023u;
  let ordinary = sign | ((exponent + 112u) << 23u) | (mantissa << 13u);
  let special = sign | 0x7f800000u | (mantissa << 13u) | select(0u, 0x400000u, mantissa != 0u);
  let small = sign | bitcast<u32>(f32(mantissa) * 0x1p-24f);
  return bitcast<f32>(select(select(ordinary, special, exponent == 31u), small, exponent == 0u));
}
fn tp_f32_to_f16(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return sign | 0x7e00u | ((magnitude >> 13u) & 0x1ffu); }
  if (magnitude >= 0x477ff000u) { return sign | 0x7c00u; }
  if (magnitude < 0x38800000u) {
    return sign | (bitcast<u32>(tp_add_f32(bitcast<f32>(magnitude), 0.5f)) & 0x7ffu);
  }
  return sign | ((magnitude + 0xfffu + ((magnitude >> 13u) & 1u) - 0x38000000u) >> 13u);
}
fn tp_bf16_to_f32(x: u32) -> f32 { return bitcast<f32>(x << 16u); }
fn tp_f32_to_bf16(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return select((bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u, (bits >> 16u) | 0x40u, tp_nan_f32(x));
}

// Integers of up to 32 bits.
fn tp_s8(x: u32) -> i32 { return bitcast<i32>(x << 24u) >> 24u; }
fn tp_s16(x: u32) -> i32 { return bitcast<i32>(x << 16u) >> 16u; }
fn tp_udiv_u32(a: u32, b: u32) -> u32 { return a / b; }
fn tp_urem_u32(a: u32, b: u32) -> u32 { return a % b; }
fn tp_sdiv_u32(a: i32, b: i32) -> u32 { return bitcast<u32>(a / b); }
fn tp_srem_u32(a: i32, b: i32) -> u32 { return bitcast<u32>(a % b); }
fn tp_shl_u32(a: u32, b: u32, width: u32) -> u32 { return select(a << (b & 31u), 0u, b >= width); }
fn tp_shr_u32(a: u32, b: u32, width: u32) -> u32 { return select(a >> (b & 31u), 0u, b >= width); }
fn tp_shrs_u32(a: i32, b: u32) -> u32 { return bitcast<u32>(a >> min(b, 31u)); }
fn tp_clz_u32(x: u32) -> u32 { return countLeadingZeros(x); }
fn tp_ctz_u32(x: u32) -> u32 { return countTrailingZeros(x); }
fn tp_popcount_u32(x: u32) -> u32 { return countOneBits(x); }
fn tp_mulhi_u32(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let left = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let right = (a & 0xffffu) * (b >> 16u) + (left & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (left >> 16u) + (right >> 16u);
}
fn tp_smulhi_u32(a: u32, b: u32) -> u32 {
  return tp_mulhi_u32(a, b) - select(0u, b, a >= 0x80000000u) - select(0u, a, b >= 0x80000000u);
}

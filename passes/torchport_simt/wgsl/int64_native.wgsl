// 64-bit integers, as the adapter has them.
alias tp_u64 = u64;
fn tp_u64_of(low: u32, high: u32) -> u64 { return u64(low) | (u64(high) << 32u); }
fn tp_low(x: u64) -> u32 { return u32(x & 0xfffffffflu); }
fn tp_high(x: u64) -> u32 { return u32(x >> 32u); }
fn tp_wide_signed(x: i32) -> u64 { return bitcast<u64>(i64(x)); }
fn tp_add_u64(a: u64, b: u64) -> u64 { return a + b; }
fn tp_sub_u64(a: u64, b: u64) -> u64 { return a - b; }
fn tp_mul_u64(a: u64, b: u64) -> u64 { return a * b; }
fn tp_and_u64(a: u64, b: u64) -> u64 { return a & b; }
fn tp_or_u64(a: u64, b: u64) -> u64 { return a | b; }
fn tp_xor_u64(a: u64, b: u64) -> u64 { return a ^ b; }
fn tp_udiv_u64(a: u64, b: u64) -> u64 { return a / b; }
fn tp_urem_u64(a: u64, b: u64) -> u64 { return a % b; }
fn tp_shl_u64(a: u64, b: u32) -> u64 { return select(a << (b & 63u), 0lu, b > 63u); }
fn tp_shr_u64(a: u64, b: u32) -> u64 { return select(a >> (b & 63u), 0lu, b > 63u); }
fn tp_shrs_u64(a: u64, b: u32) -> u64 { return bitcast<u64>(bitcast<i64>(a) >> min(b, 63u)); }
fn tp_equal_u64(a: u64, b: u64) -> bool { return a == b; }
fn tp_uless_u64(a: u64, b: u64) -> bool { return a < b; }
// By words: Mesa 22.3 compares an extended i32 with a constant wrongly.
fn tp_sless_u64(a: u64, b: u64) -> bool {
  return (tp_high(a) ^ 0x80000000u) < (tp_high(b) ^ 0x80000000u) || (tp_high(a) == tp_high(b) && tp_low(a) < tp_low(b));
}

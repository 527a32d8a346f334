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
fn tp_sdiv_u64(a: u64, b: u64) -> u64 { return bitcast<u64>(bitcast<i64>(a) / bitcast<i64>(b)); }
fn tp_srem_u64(a: u64, b: u64) -> u64 { return bitcast<u64>(bitcast<i64>(a) % bitcast<i64>(b)); }
fn tp_shl_u64(a: u64, b: u32) -> u64 { return select(a << (b & 63u), 0lu, b > 63u); }
fn tp_shr_u64(a: u64, b: u32) -> u64 { return select(a >> (b & 63u), 0lu, b > 63u); }
fn tp_shrs_u64(a: u64, b: u32) -> u64 { return bitcast<u64>(bitcast<i64>(a) >> min(b, 63u)); }
fn tp_equal_u64(a: u64, b: u64) -> bool { return a == b; }
fn tp_uless_u64(a: u64, b: u64) -> bool { return a < b; }
fn tp_sless_u64(a: u64, b: u64) -> bool { return bitcast<i64>(a) < bitcast<i64>(b); }
fn tp_abs_u64(a: u64) -> u64 { return select(a, 0lu - a, bitcast<i64>(a) < 0li); }

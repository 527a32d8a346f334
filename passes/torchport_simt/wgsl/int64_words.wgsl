// 64-bit integers as two words, low and high: for adapters without them, as all browsers'.
alias tp_u64 = vec2<u32>;
fn tp_u64_of(low: u32, high: u32) -> tp_u64 { return vec2<u32>(low, high); }
fn tp_low(x: tp_u64) -> u32 { return x.x; }
fn tp_high(x: tp_u64) -> u32 { return x.y; }
fn tp_wide_signed(x: i32) -> tp_u64 { return vec2<u32>(bitcast<u32>(x), bitcast<u32>(x >> 31u)); }
fn tp_add_u64(a: tp_u64, b: tp_u64) -> tp_u64 {
  let low = a.x + b.x;
  return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}
fn tp_sub_u64(a: tp_u64, b: tp_u64) -> tp_u64 {
  return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}
fn tp_mul_u64(a: tp_u64, b: tp_u64) -> tp_u64 {
  return vec2<u32>(a.x * b.x, tp_mulhi_u32(a.x, b.x) + a.x * b.y + a.y * b.x);
}
fn tp_and_u64(a: tp_u64, b: tp_u64) -> tp_u64 { return a & b; }
fn tp_or_u64(a: tp_u64, b: tp_u64) -> tp_u64 { return a | b; }
fn tp_xor_u64(a: tp_u64, b: tp_u64) -> tp_u64 { return a ^ b; }
fn tp_shl_u64(a: tp_u64, b: u32) -> tp_u64 {
  let near = b & 31u;
  let carried = select(a.x >> ((32u - near) & 31u), 0u, near == 0u);
  let within = vec2<u32>(a.x << near, (a.y << near) | carried);
  return select(select(within, vec2<u32>(0u, a.x << near), b > 31u), vec2<u32>(0u, 0u), b > 63u);
}
fn tp_shr_u64(a: tp_u64, b: u32) -> tp_u64 {
  let near = b & 31u;
  let carried = select(a.y << ((32u - near) & 31u), 0u, near == 0u);
  let within = vec2<u32>((a.x >> near) | carried, a.y >> near);
  return select(select(within, vec2<u32>(a.y >> near, 0u), b > 31u), vec2<u32>(0u, 0u), b > 63u);
}
fn tp_shrs_u64(a: tp_u64, b: u32) -> tp_u64 {
  let sign = bitcast<u32>(bitcast<i32>(a.y) >> 31u);
  let moved = tp_shr_u64(a, min(b, 63u));
  let filled = tp_shr_u64(vec2<u32>(0xffffffffu, 0xffffffffu), min(b, 63u));
  return moved | (vec2<u32>(sign, sign) & ~filled);
}
fn tp_equal_u64(a: tp_u64, b: tp_u64) -> bool { return a.x == b.x && a.y == b.y; }
fn tp_uless_u64(a: tp_u64, b: tp_u64) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }
fn tp_sless_u64(a: tp_u64, b: tp_u64) -> bool {
  return bitcast<i32>(a.y) < bitcast<i32>(b.y) || (a.y == b.y && a.x < b.x);
}
// Division bit by bit, if numbers need both words.
struct tp_Divided { quotient: tp_u64, rest: tp_u64 }
fn tp_divided(a: tp_u64, b: tp_u64) -> tp_Divided {
  if ((a.y | b.y) == 0u) { return tp_Divided(vec2<u32>(a.x / b.x, 0u), vec2<u32>(a.x % b.x, 0u)); }
  var quotient = vec2<u32>(0u, 0u);
  var rest = vec2<u32>(0u, 0u);
  for (var i = 0u; i < 64u; i++) {
    let bit = select((a.y >> ((63u - i) & 31u)) & 1u, (a.x >> ((63u - i) & 31u)) & 1u, i > 31u);
    let carried = (rest.y >> 31u) != 0u;
    rest = vec2<u32>((rest.x << 1u) | bit, (rest.y << 1u) | (rest.x >> 31u));
    let fits = carried || !tp_uless_u64(rest, b);
    rest = select(rest, tp_sub_u64(rest, b), fits);
    quotient = vec2<u32>((quotient.x << 1u) | select(0u, 1u, fits), (quotient.y << 1u) | (quotient.x >> 31u));
  }
  return tp_Divided(quotient, rest);
}
fn tp_udiv_u64(a: tp_u64, b: tp_u64) -> tp_u64 { return tp_divided(a, b).quotient; }
fn tp_urem_u64(a: tp_u64, b: tp_u64) -> tp_u64 { return tp_divided(a, b).rest; }

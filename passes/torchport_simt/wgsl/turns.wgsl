// Where a number of at least 1 is in quarters of a turn (Payne and Hanek, "Radian reduction for trigonometric functions",
// 1983): their number modulo 4, and the rest in units of 2^-64 of a quarter, with its sign.
struct tp_Turned { quarter: u32, rest: tp_u64 }
const tp_TWO_OVER_PI = array<u32, 7>(
  0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu
);
fn tp_far(size: f32) -> tp_Turned {
  // size = m 2^e. Of the bits of 2/pi, the 96 from that worth 2^95 / 2^(e + 94) on: those before make whole turns.
  let bits = bitcast<u32>(size);
  let first = (bits >> 23u) - 120u;
  let m = (bits & 0x7fffffu) | 0x800000u;
  let shift = first & 31u;
  var w = array<u32, 3>(0u, 0u, 0u);
  for (var i = 0u; i < 3u; i++) {
    let left = tp_two_over_pi((first >> 5u) + i);
    let right = tp_two_over_pi((first >> 5u) + i + 1u);
    w[i] = select((left << shift) | (right >> ((32u - shift) & 31u)), left, shift == 0u);
  }
  // Their product with m modulo 2^96, without its last word: two bits of quarters, 62 of their fraction.
  let low = tp_mulhi_u32(m, w[2]);
  let second = m * w[1] + low;
  let carry = select(0u, 1u, second < low);
  let turns = tp_u64_of(second, m * w[0] + tp_mulhi_u32(m, w[1]) + carry);
  let rest = tp_shl_u64(turns, 2u);
  return tp_Turned(((tp_high(turns) >> 30u) + (tp_high(rest) >> 31u)) & 3u, rest);
}
// The bits of 2/pi behind 32 of zeros.
fn tp_two_over_pi(index: u32) -> u32 {
  var table = tp_TWO_OVER_PI;
  return select(0u, table[clamp(index, 1u, 7u) - 1u], index >= 1u && index <= 7u);
}

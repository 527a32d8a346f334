// a * b + c with one rounding, in integers: the product of 48 bits and the addend in 64 bits, their highest bits at bit 60
// or 61, the smaller one shifted to the right; a last bit tells that something was shifted out.
struct tp_Parts { bits: u32, exponent: i32 }
fn tp_parts(x: f32) -> tp_Parts {
  let magnitude = bitcast<u32>(x) & 0x7fffffffu;
  let field = magnitude >> 23u;
  let fraction = magnitude & 0x7fffffu;
  let shift = select(0u, countLeadingZeros(fraction) - 8u, field == 0u);
  return tp_Parts(select(fraction | 0x800000u, fraction << (shift & 31u), field == 0u), i32(max(field, 1u)) - 150 - i32(shift));
}
fn tp_jammed(x: tp_u64, shift: u32) -> tp_u64 {
  let moved = tp_shr_u64(x, shift);
  return moved | vec2<u32>(select(1u, 0u, tp_equal_u64(tp_shl_u64(moved, shift), x)), 0u);
}
fn tp_fma_f32(a: f32, b: f32, c: f32) -> f32 {
  let size_a = bitcast<u32>(a) & 0x7fffffffu;
  let size_b = bitcast<u32>(b) & 0x7fffffffu;
  let size_c = bitcast<u32>(c) & 0x7fffffffu;
  let product = tp_mul_f32(a, b);
  if (max(size_a, size_b) > 0x7f7fffffu || min(size_a, size_b) == 0u) { return tp_add_f32(product, c); }
  if (size_c > 0x7f7fffffu) { return tp_add_f32(c, tp_hide_f32(c)); }
  let x = tp_parts(a);
  let y = tp_parts(b);
  let sign_product = (bitcast<u32>(a) ^ bitcast<u32>(b)) & 0x80000000u;
  var large = tp_shl_u64(vec2<u32>(x.bits * y.bits, tp_mulhi_u32(x.bits, y.bits)), 14u);
  var exponent = x.exponent + y.exponent - 14;
  var sign = sign_product;
  if (size_c != 0u) {
    let z = tp_parts(c);
    var small = vec2<u32>(0u, z.bits << 5u);
    var other = bitcast<u32>(c) & 0x80000000u;
    var below = z.exponent - 37;
    if (below > exponent || (below == exponent && tp_uless_u64(large, small))) {
      let kept = large;
      large = small;
      small = kept;
      let level = exponent;
      exponent = below;
      below = level;
      other = sign;
      sign = bitcast<u32>(c) & 0x80000000u;
    }
    small = tp_jammed(small, u32(min(exponent - below, 64)));
    if (sign == other) {
      large = tp_add_u64(large, small);
    } else {
      if (tp_uless_u64(large, small)) {
        let kept = large;
        large = small;
        small = kept;
        sign = other;
      }
      large = tp_sub_u64(large, small);
      if ((large.x | large.y) == 0u) { return tp_f32_of(0u); }
    }
  }
  let first = tp_clz_u64(large);
  large = tp_shl_u64(large, first);
  var field = exponent + 63 - i32(first) + 127;
  if (field >= 255) { return tp_f32_of(sign | 0x7f800000u); }
  if (field < 1) {
    large = tp_jammed(large, u32(min(1 - field, 64)));
    field = 1;
  }
  let kept = large.y >> 8u;
  let rest = large.y & 255u;
  let up = rest > 128u || (rest == 128u && (large.x != 0u || (kept & 1u) != 0u));
  return tp_f32_of(sign | ((u32(field - 1) << 23u) + kept + u32(up)));
}
fn tp_fma_through_f32(a: f32, b: f32, c: f32) -> f32 { return tp_fma_f32(a, b, c); }

// a * b + c with one rounding but where the sum is within 2^-23 of halfway between two numbers: the product in two f32
// (Dekker, "A floating-point technique for extending the available precision", 1971, with halves of 12 bits), the sum's
// error by Knuth's two-sum, and both errors added at the end. The errors of products below 2^-76, and of sums that
// overflow, are left out. It is a third of the code of fma_words.wgsl, which compilers write out at each place.
fn tp_fma_f32(a: f32, b: f32, c: f32) -> f32 {
  let p = tp_mul_f32(a, b);
  let ah = bitcast<f32>(bitcast<u32>(a) & 0xfffff000u);
  let bh = bitcast<f32>(bitcast<u32>(b) & 0xfffff000u);
  let al = tp_sub_f32(a, ah);
  let bl = tp_sub_f32(b, bh);
  let first = tp_hide_f32(ah * bh - p);
  let second = tp_hide_f32(first + ah * bl);
  let third = tp_hide_f32(second + al * bh);
  let rest = tp_hide_f32(third + al * bl);
  let s = tp_hide_f32(p + c);
  let t = tp_hide_f32(s - p);
  let u = tp_hide_f32(s - t);
  let lost = tp_hide_f32(p - u) + tp_hide_f32(c - t);
  let whole = tp_hide_f32(s + tp_hide_f32(lost + rest));
  let size = bitcast<u32>(p) & 0x7fffffffu;
  return select(s, whole, size >= 0x19800000u && size < 0x7f000000u && tp_finite_f32(s));
}
fn tp_fma_through_f32(a: f32, b: f32, c: f32) -> f32 { return tp_fma_f32(a, b, c); }

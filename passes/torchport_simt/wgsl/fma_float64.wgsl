// a * b + c with one rounding. The product of two f32 is exact in f64. Their sum is rounded to odd there, which keeps
// its rounding to f32 from being a second one (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008):
// where the sum is not exact and its last bit is 0, that of the neighbour on the side of the error is 1.
fn tp_fma_f32(a: f32, b: f32, c: f32) -> f32 {
  let product = f64(a) * f64(b);
  let addend = f64(c);
  let sum = tp_hide_f64(product + addend);
  let taken = tp_hide_f64(sum - product);
  let error = (product - tp_hide_f64(sum - taken)) + (addend - taken);
  let bits = bitcast<u64>(sum);
  let inexact = error < 0.0lf || error > 0.0lf;
  let away = (error < 0.0lf) == (sum < 0.0lf);
  let odd = select(bits, bits + select(0xfffffffffffffffflu, 1lu, away), inexact && (bits & 1lu) == 0lu);
  return f32(bitcast<f64>(odd));
}
// Rounded twice, to f64 and to f32: in functions whose values this does not change.
fn tp_fma_through_f32(a: f32, b: f32, c: f32) -> f32 { return tp_hide_f32(f32(f64(a) * f64(b) + f64(c))); }

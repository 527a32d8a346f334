// a * b + c with one rounding, on adapters whose own function was found to do so.
fn tp_fma_f32(a: f32, b: f32, c: f32) -> f32 { return tp_hide_f32(fma(a, b, c)); }
fn tp_fma_through_f32(a: f32, b: f32, c: f32) -> f32 { return tp_fma_f32(a, b, c); }

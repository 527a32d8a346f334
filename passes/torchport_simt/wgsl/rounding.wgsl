// Division and square root, as accurate as the adapter's; whether it rounds them correctly is measured and declared.
fn tp_div_f32(a: f32, b: f32) -> f32 { return tp_hide_f32(a / b); }
fn tp_sqrt_f32(a: f32) -> f32 { return tp_hide_f32(sqrt(a)); }

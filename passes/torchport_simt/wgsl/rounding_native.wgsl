// Division and square root of adapters that round them correctly.
fn tp_div_f32(a: f32, b: f32) -> f32 { return tp_hide_f32(a / b); }
fn tp_sqrt_f32(a: f32) -> f32 { return tp_hide_f32(sqrt(a)); }

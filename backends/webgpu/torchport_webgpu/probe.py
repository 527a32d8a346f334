"""Measures what WGSL leaves to an adapter: whether ``fma`` is fused, division is rounded correctly, denormals stay."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Measured", "measure"]


@dataclass(frozen=True)
class Measured:
    """What an adapter's arithmetic was found to do.

    fused: its ``fma`` rounds once.
    exact: its division and square root are rounded correctly.
    denormals: those of f32 survive sums and products.
    """

    fused: bool
    exact: bool
    denormals: bool


_LANES = 64
_COUNT = 1024
_SHADER = """
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> o: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  o[i] = fma(a[i], b[i], c[i]);
  o[i + 1024u] = a[i] / b[i];
  o[i + 2048u] = sqrt(abs(b[i]));
  o[i + 3072u] = a[i] * 0x1p-126f + c[i] * 0x1p-130f;
}
"""


def measure(device: Any) -> Measured:
    """Run a few thousand operations and compare their bits."""
    generator = np.random.default_rng(0)
    a, b, c = (generator.standard_normal(_COUNT).astype(np.float32) for _ in range(3))
    c = (-(a.astype(np.float64) * b) * (1 + c * 2.0**-24)).astype(np.float32)  # what is left is in the low bits
    fused, quotient, root, small = np.split(_run(device, (a, b, c)), 4)
    exact_fma = np.array([_round(x, y, z) for x, y, z in zip(a, b, c, strict=True)], np.float32)
    scaled = (a.astype(np.float64) * 2.0**-126).astype(np.float32)
    denormal = scaled + (c.astype(np.float64) * 2.0**-130).astype(np.float32)
    return Measured(
        fused=bool((fused == exact_fma).all()),
        exact=bool((quotient == a / b).all() and (root == np.sqrt(np.abs(b))).all()),
        denormals=bool((small == denormal).mean() > 0.9),  # the sum may be fused
    )


def _round(x: np.float32, y: np.float32, z: np.float32) -> float:
    """``x * y + z`` rounded once to f32: the sum is exact in integers, and struct rounds to nearest even."""
    from fractions import Fraction

    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    wide = float(exact)  # rounded to f64; to odd below, so that the next rounding is the only one that counts
    if Fraction(wide) != exact and not struct.unpack("<Q", struct.pack("<d", wide))[0] & 1:
        wide = float(np.nextafter(wide, np.inf if exact > Fraction(wide) else -np.inf))
    return float(np.float32(wide))


def _run(device: Any, inputs: tuple[Any, ...]) -> Any:
    import wgpu

    module = device.create_shader_module(code=_SHADER)
    pipeline = device.create_compute_pipeline(layout="auto", compute={"module": module, "entry_point": "main"})
    usage = wgpu.BufferUsage
    buffers = [device.create_buffer_with_data(data=array, usage=usage.STORAGE) for array in inputs]
    buffers.append(device.create_buffer(size=16 * _COUNT, usage=usage.STORAGE | usage.COPY_SRC))
    entries = [{"binding": i, "resource": {"buffer": buffer}} for i, buffer in enumerate(buffers)]
    group = device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
    encoder = device.create_command_encoder()
    compute = encoder.begin_compute_pass()
    compute.set_pipeline(pipeline)
    compute.set_bind_group(0, group)
    compute.dispatch_workgroups(_COUNT // _LANES)
    compute.end()
    device.queue.submit([encoder.finish()])
    return np.frombuffer(device.queue.read_buffer(buffers[-1]), np.float32)

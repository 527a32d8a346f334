"""The target ``webgpu:browser``: what every browser with WebGPU has."""

from __future__ import annotations

from types import MappingProxyType

from torchport.capabilities import Capabilities
from torchport.target import Target

__all__ = ["BINDING_BYTES", "BROWSER", "BUFFERS", "GROUPS", "LANES", "capabilities"]

BROWSER = Target("webgpu", ("browser",))

# WebGPU's default limits (section 3.6.2 of the specification), which no adapter is below.
LANES = 256
GROUPS = 65_535
BUFFERS = 8
BINDING_BYTES = 128 << 20
_SCRATCHPAD = 16_384

_PROMOTED = ("fp16", "bf16", "fp8e4nv", "fp8e5", "fp8e4b8", "fp8e5b16")


def capabilities() -> Capabilities:
    """Limits that every adapter has, and arithmetic without 64-bit types.

    The accuracy of division and square root is WGSL's (section 15.7.4). Whether ``fma`` is fused, and denormal numbers
    survive, differs; kernels are written for those that are not.
    """
    return Capabilities(
        simd_width=32,
        simd_groups=(1, 2, 4, 8),
        lane_elements=4,
        block_elements=1024,
        grid=(2**31 - 1, GROUPS, GROUPS),  # along x, several launches
        scratchpad_bytes=_SCRATCHPAD,
        dtypes=frozenset({"int1", "int8", "int16", "int32", "int64", "fp32", *_PROMOTED}),
        promoted=MappingProxyType(dict.fromkeys(_PROMOTED, "fp32")),
        atomics=frozenset({"int32", "fp32", "fp16", "bf16"}),
        dot_precisions=frozenset({"ieee", "tf32", "tf32x3", "bf16x3", "bf16x6"}),
        denormals=frozenset({"fp16", "bf16"}),
        fma=False,
        ulp=MappingProxyType({"div": 2.5, "sqrt": 3.0}),
    )
